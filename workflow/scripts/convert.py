"""Rule convert: a folder of DICOM to a tree of MP4 files and its manifest."""

from pathlib import Path

from echo_embeddings import collection, convert, job, settings

if __name__ == "__main__":  # worker processes import this file
    with job.logged(snakemake.log[0]) as terminal:
        size, folder = snakemake.wildcards.size, snakemake.wildcards.folder
        keys = snakemake.config["convert"]
        convert.convert_folder(
            collection.find(snakemake.config["dicom_dir"], folder),
            convert.Places(
                tree=Path("results/mp4", size, folder),
                state=Path("results/state/convert", size, folder),
                table=Path(snakemake.output.manifest),
                digest=Path(snakemake.output.digest),
            ),
            settings.convert_settings(snakemake.config, int(size)),
            limit=snakemake.params.limit,
            workers=snakemake.threads,
            timeout=keys["timeout"],
            max_failed_fraction=keys["max_failed_fraction"],
            terminal=terminal,
        )
