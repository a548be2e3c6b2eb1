"""Rule evaluate_clips: what is known of a model's clips, for all tasks."""

from pathlib import Path

from echo_embeddings.core import job, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.evaluate import clips, tasks
from echo_embeddings.tables import export

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        params = snakemake.params
        clips.write(
            Path(snakemake.input.merged),
            export.parts(Layout(), snakemake.wildcards.model, params.fed_with, params.folders),
            settings.tables(snakemake.config),
            tasks.selecting(tasks.tasks(snakemake.config)),
            Path(snakemake.output[0]),
            prefix_folder=params.prefix_folder,
        )
