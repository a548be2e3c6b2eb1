"""Rule embed: a folder's MP4 tree and a checkpoint to one vector a clip."""

import functools
from pathlib import Path

from echo_embeddings.collection.folders import collection_source, find_folders, mp4_tree
from echo_embeddings.core import configuration, job, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.embed.folder import ComputeOptions, embed_folder

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)) as terminal:
        registry = configuration.check(snakemake.config)
        model = settings.model(snakemake.config, registry, snakemake.wildcards.model)
        folder = snakemake.wildcards.folder
        keys = snakemake.config["embed"]
        layout = Layout()
        top, kind = collection_source(snakemake.config)
        embed_folder(
            folder,
            model,
            Path(snakemake.input.checkpoint),
            mp4_tree(snakemake.config, layout, model.resolution, folder),
            layout,
            ComputeOptions(
                device=keys["device"],
                batch_size=settings.batch_size(snakemake.config, registry, model.name),
                auto=keys["batch_size"] == "auto",
                num_workers=min(keys["num_workers"], snakemake.threads),
                threads=snakemake.threads,
                save_every=keys["save_every"],
                timeout=keys["timeout"],
            ),
            max_failed_fraction=keys["max_failed_fraction"],
            pooling=keys["pool"],
            tables=settings.tables(snakemake.config),
            collection=functools.partial(find_folders, top, snakemake.config["folders"], kind),
            terminal=terminal,
        )
