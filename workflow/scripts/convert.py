"""Rule convert: a folder of DICOM to a tree of MP4 files and its manifest."""

from echo_embeddings.collection.folders import find_folder
from echo_embeddings.convert.folder import convert_folder
from echo_embeddings.core import job
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.settings import ConvertSettings

if __name__ == "__main__":  # worker processes import this file
    with job.logged(snakemake.log[0]) as terminal:
        keys = snakemake.config["convert"]
        convert_folder(
            find_folder(snakemake.config["dicom_dir"], snakemake.wildcards.folder),
            Layout(),
            ConvertSettings(**snakemake.params.settings),
            limit=snakemake.params.limit,
            workers=snakemake.threads,
            timeout=keys["timeout"],
            max_failed_fraction=keys["max_failed_fraction"],
            terminal=terminal,
        )
