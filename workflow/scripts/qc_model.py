"""Rule qc_model: the quality page of a model."""

from pathlib import Path

from echo_embeddings import qc
from echo_embeddings.collection.folders import mp4_tree
from echo_embeddings.core import job, settings

if __name__ == "__main__":
    with job.logged(snakemake.log[0]):
        model, params = snakemake.wildcards.model, snakemake.params
        record_list = snakemake.input.get("record_list")
        qc.make_model_page(
            model,
            Path(snakemake.input.merged),
            {
                folder: qc.FolderFiles(
                    manifest=Path("results/mp4", params.size, f"{folder}.manifest.tsv"),
                    tree=mp4_tree(snakemake.config, params.size, folder),
                    run=Path("results/embeddings", f"{model}_embeddings_{folder}.json"),
                    failed=Path("results/embeddings", f"{model}_embeddings_{folder}.failed.tsv"),
                )
                for folder in params.folders
            },
            Path(snakemake.output.page),
            qc.Options(
                prefix_folder=params.prefix_folder,
                pictures=params.pictures,
                hash_names=params.hash_names,
                record_list=Path(record_list) if record_list else None,
                tables=settings.tables(snakemake.config),
                training=qc.Training(params.pretrained_on, params.collection),
            ),
        )
