"""Rule check_record_list: the files that the record list names against those on the disk."""

from pathlib import Path

from echo_embeddings.collection.source import Collection
from echo_embeddings.core import job, settings
from echo_embeddings.tables import inventory

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        config = snakemake.config
        inventory.check(
            settings.tables(config).record_list,
            Collection.of(config).units(),
            Path(snakemake.output[0]),
            everything=not config["folders"],
            require_complete=snakemake.params.require_complete,
        )
