"""Rule check_record_list: the files that the record list names against those on the disk."""

from pathlib import Path

from echo_embeddings import collection, inventory, job, settings

if __name__ == "__main__":
    with job.logged(snakemake.log[0]):
        config = snakemake.config
        inventory.check(
            settings.tables(config).record_list,
            collection.folders(config["dicom_dir"], config["folders"]),
            Path(snakemake.output[0]),
            everything=not config["folders"],
            require_complete=snakemake.params.require_complete,
        )
