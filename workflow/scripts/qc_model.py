"""Rule qc_model: the quality page of a model."""

from pathlib import Path

from echo_embeddings import job, qc

if __name__ == "__main__":
    with job.logged(snakemake.log[0]):
        model = snakemake.wildcards.model
        qc.make_model_page(
            model,
            Path(snakemake.input.merged),
            {
                folder: qc.FolderFiles(
                    manifest=Path("results/mp4", snakemake.params.size, f"{folder}.manifest.tsv"),
                    run=Path("results/embeddings", f"{model}_embeddings_{folder}.json"),
                    failed=Path("results/embeddings", f"{model}_embeddings_{folder}.failed.tsv"),
                )
                for folder in snakemake.params.folders
            },
            Path(snakemake.output.page),
            prefix_folder=snakemake.params.prefix_folder,
        )
