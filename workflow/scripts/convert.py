"""Rules convert and convert_masked: a folder of DICOM to a tree of MP4 files and its manifest."""

from echo_embeddings.collection.source import Collection
from echo_embeddings.convert.folder import convert_folder
from echo_embeddings.core import job, settings
from echo_embeddings.core.keys import key_of_ids
from echo_embeddings.core.layout import Layout

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)) as terminal:
        config = snakemake.config if snakemake.params.get("masked") else settings.unmasked(snakemake.config)
        keys = config["convert"]
        convert_folder(
            Collection.of(config).unit(snakemake.wildcards.folder),
            Layout(),
            settings.convert_settings(config, int(snakemake.wildcards.size)),
            limit=snakemake.params.limit,
            workers=snakemake.threads,
            timeout=keys["timeout"],
            max_failed_fraction=keys["max_failed_fraction"],
            key=key_of_ids(config),
            terminal=terminal,
        )
