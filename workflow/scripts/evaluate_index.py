"""Rule evaluate_index: the pages of what vectors can predict."""

from pathlib import Path

from echo_embeddings.collection.source import Collection
from echo_embeddings.core import job
from echo_embeddings.core.layout import Layout
from echo_embeddings.evaluate.page import Options, write_pages
from echo_embeddings.qc.tables import folder_files

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        params, layout = snakemake.params, Layout()
        collection = Collection.of(snakemake.config)
        folders = {}
        for model, clips in params.fed_with.items():
            trees = {name: collection.tree(collection.unit(name), layout, clips) for name in params.folders}
            folders[model] = folder_files(layout, model, clips, trees)
        write_pages(
            {task: {model: layout.evaluation(task, model) for model in params.models} for task in params.tasks},
            Path(snakemake.output.page),
            folders,
            Options(
                pictures=params.pictures,
                hash_names=params.hash_names,
                prefix_folder=params.prefix_folder,
                bootstrap=params.bootstrap,
                seed=params.seed,
            ),
        )
