"""Rule export_study: a model's vectors, one a study."""

from pathlib import Path

from echo_embeddings.core import job, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.tables import export, study

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        params = snakemake.params
        study.write(
            export.parts(Layout(), snakemake.wildcards.model, params.fed_with, params.folders),
            Path(snakemake.output[0]),
            settings.tables(snakemake.config),
            params.columns,
            params.dim,
            where=params.where,
            everything=not snakemake.config["folders"],
        )
