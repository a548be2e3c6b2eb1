"""Rule probe: the manifest of a folder of videos that are there already."""

from echo_embeddings.collection.source import Collection
from echo_embeddings.convert import probe
from echo_embeddings.core import job
from echo_embeddings.core.layout import Layout

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)) as terminal:
        size, folder = snakemake.wildcards.size, snakemake.wildcards.folder
        keys = snakemake.config["convert"]
        probe.probe_folder(
            Collection.of(snakemake.config).unit(folder),
            Layout(),
            int(size),
            limit=snakemake.params.limit,
            workers=snakemake.threads,
            timeout=keys["timeout"],
            max_failed_fraction=keys["max_failed_fraction"],
            terminal=terminal,
        )
