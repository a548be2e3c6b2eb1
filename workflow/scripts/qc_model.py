"""Rule qc_model: the quality page of a model."""

from pathlib import Path

from echo_embeddings import qc
from echo_embeddings.collection.source import Collection
from echo_embeddings.core import job, settings
from echo_embeddings.core.layout import Layout

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        model, params = snakemake.wildcards.model, snakemake.params
        layout = Layout()
        collection = Collection.of(snakemake.config)
        trees = {name: collection.tree(collection.unit(name), layout, params.size) for name in params.folders}
        record_list = snakemake.input.get("record_list")
        qc.make_model_page(
            model,
            Path(snakemake.input.merged),
            qc.folder_files(layout, model, params.size, trees),
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
