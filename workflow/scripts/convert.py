"""Rule convert: a folder of DICOM to a tree of MP4 files and its manifest."""

from pathlib import Path

from echo_embeddings.collection.folders import find_folder
from echo_embeddings.convert.folder import ConvertPaths, convert_folder
from echo_embeddings.core import job
from echo_embeddings.core.settings import ConvertSettings

if __name__ == "__main__":  # worker processes import this file
    with job.logged(snakemake.log[0]) as terminal:
        size, folder = snakemake.wildcards.size, snakemake.wildcards.folder
        keys = snakemake.config["convert"]
        convert_folder(
            find_folder(snakemake.config["dicom_dir"], folder),
            ConvertPaths(
                tree=Path("results/mp4", size, folder),
                state=Path("results/state/convert", size, folder),
                table=Path(snakemake.output.manifest),
                digest=Path(snakemake.output.digest),
            ),
            ConvertSettings(**snakemake.params.settings),
            limit=snakemake.params.limit,
            workers=snakemake.threads,
            timeout=keys["timeout"],
            max_failed_fraction=keys["max_failed_fraction"],
            terminal=terminal,
        )
