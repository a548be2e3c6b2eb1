"""Rule evaluate_task: what a model's vectors say of a label."""

from pathlib import Path

from echo_embeddings.core import job, settings
from echo_embeddings.evaluate import evaluation, tasks

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        keys = snakemake.config["evaluate"]
        evaluation.evaluate(
            tasks.tasks(snakemake.config)[snakemake.wildcards.task],
            snakemake.wildcards.model,
            Path(snakemake.input.clips),
            Path(snakemake.input.merged),
            settings.tables(snakemake.config),
            evaluation.Options(keys["folds"], keys["bootstrap"], keys["seed"], keys["shots"]),
            Path(snakemake.output.numbers),
        )
