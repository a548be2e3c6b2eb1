"""Rule evaluate_task: what a model's vectors say of a label."""

from echo_embeddings.core import job, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.evaluate import evaluation, tasks
from echo_embeddings.evaluate.predictions import Options

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        evaluation.evaluate(
            tasks.tasks(snakemake.config)[snakemake.wildcards.task],
            snakemake.wildcards.model,
            settings.tables(snakemake.config),
            Options.of(snakemake.config),
            Layout(),
        )
