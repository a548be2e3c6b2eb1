"""Rule atlas_model: a model's clips as points on a plane, for Embedding Atlas."""

from pathlib import Path

from echo_embeddings.collection.source import Collection
from echo_embeddings.core import job, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.qc import atlas
from echo_embeddings.qc.tables import folder_files
from echo_embeddings.tables import export

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        model, params = snakemake.wildcards.model, snakemake.params
        layout, collection = Layout(), Collection.of(snakemake.config)
        trees = {name: collection.tree(collection.unit(name), layout, params.fed_with) for name in params.folders}
        atlas.write(
            Path(snakemake.output[0]),
            Path(snakemake.input.merged),
            export.parts(layout, model, params.fed_with, params.folders),
            settings.tables(snakemake.config),
            params.columns,
            export.Merging(**params.merging),
            folder_files(layout, model, params.fed_with, trees) if params.pictures else None,
        )
