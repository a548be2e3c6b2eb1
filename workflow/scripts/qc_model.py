"""Rule qc_model: the quality page of a model."""

from pathlib import Path

from echo_embeddings.collection.source import Collection
from echo_embeddings.core import job, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.qc.page import make_model_page
from echo_embeddings.qc.provenance import Training
from echo_embeddings.qc.report import Options
from echo_embeddings.qc.tables import folder_files

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        model, params = snakemake.wildcards.model, snakemake.params
        layout = Layout()
        collection = Collection.of(snakemake.config)
        trees = {name: collection.tree(collection.unit(name), layout, params.fed_with) for name in params.folders}
        record_list = snakemake.input.get("record_list")
        make_model_page(
            model,
            Path(snakemake.input.merged),
            folder_files(layout, model, params.fed_with, trees),
            Path(snakemake.output.page),
            Options(
                prefix_folder=params.prefix_folder,
                pictures=params.pictures,
                hash_names=params.hash_names,
                record_list=Path(record_list) if record_list else None,
                tables=settings.tables(snakemake.config),
                training=Training(params.pretrained_on, params.collection),
            ),
        )
