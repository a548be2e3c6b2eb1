"""Rule export_parquet: a model's vectors and all that is known of its clips as Parquet, with a data set card."""

from pathlib import Path

from echo_embeddings.core import job, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.tables import card, export

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        params, known = snakemake.params, settings.tables(snakemake.config)
        parts = export.parts(Layout(), snakemake.wildcards.model, params.fed_with, params.folders)
        shards = [Path(shard) for shard in snakemake.output.shards]
        merging = export.Merging(**params.merging)
        exported = export.write_shards(parts, shards, known, params.columns, params.about["dim"], merging)
        card.write(Path(snakemake.output.card), card.About(**params.about), exported, parts, known)
