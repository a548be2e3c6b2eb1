"""Rule read_headers: the manifest of a folder of DICOM that models are fed with straight."""

from echo_embeddings.collection.source import Collection
from echo_embeddings.convert.headers import read_folder
from echo_embeddings.core import job
from echo_embeddings.core.keys import key_of_ids
from echo_embeddings.core.layout import Layout

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)) as terminal:
        keys = snakemake.config["convert"]
        read_folder(
            Collection.of(snakemake.config).unit(snakemake.wildcards.folder),
            Layout(),
            tuple(keys["modalities"]),
            limit=snakemake.params.limit,
            workers=snakemake.threads,
            timeout=keys["timeout"],
            max_failed_fraction=keys["max_failed_fraction"],
            key=key_of_ids(snakemake.config),
            terminal=terminal,
        )
