"""Rule embed: a folder's MP4 tree and a checkpoint to one vector a clip."""

from pathlib import Path

from echo_embeddings.collection.folders import mp4_tree
from echo_embeddings.core import job, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.embed.folder import EmbedPaths, Means, embed_folder

if __name__ == "__main__":  # worker processes import this file
    with job.logged(snakemake.log[0]) as terminal:
        registry = settings.check(snakemake.config)
        model = settings.model(snakemake.config, registry, snakemake.wildcards.model)
        folder = snakemake.wildcards.folder
        keys = snakemake.config["embed"]
        size = str(model.resolution)
        embed_folder(
            folder,
            EmbedPaths(
                tree=mp4_tree(snakemake.config, Layout(), size, folder),
                table=Path("results/mp4", size, f"{folder}.manifest.tsv"),
                checkpoint=Path(snakemake.input.checkpoint),
                state=Path("results/state/embed", model.name, folder),
                digests=Path("results/state/checkpoints"),
                vectors=Path(snakemake.output.vectors),
            ),
            model,
            Means(
                device=keys["device"],
                batch_size=settings.batch_size(snakemake.config, registry, model.name),
                auto=keys["batch_size"] == "auto",
                num_workers=min(keys["num_workers"], snakemake.threads),
                threads=snakemake.threads,
                save_every=keys["save_every"],
            ),
            max_failed_fraction=keys["max_failed_fraction"],
            keep=keys["pool"],
            tables=settings.tables(snakemake.config),
            terminal=terminal,
        )
