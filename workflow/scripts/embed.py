"""Rule embed: a folder's MP4 tree and a checkpoint to one vector a clip."""

from pathlib import Path

from echo_embeddings.collection.source import Collection
from echo_embeddings.core import configuration, job, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.embed.folder import ComputeOptions, embed_folder
from echo_embeddings.encoders import checkpoint

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)) as terminal:
        registry = configuration.check(snakemake.config)
        model = settings.model(snakemake.config, registry, snakemake.wildcards.model)
        keys = snakemake.config["embed"]
        layout = Layout()
        collection = Collection.of(snakemake.config)
        unit = collection.unit(snakemake.wildcards.folder)
        weights = Path(snakemake.input.checkpoint)
        digest = checkpoint.sha256(weights, layout.checkpoint_digests())
        if unlike := checkpoint.unlike_registry(weights, digest, registry[model.name]["sha256"]):
            print(unlike, flush=True)
        embed_folder(
            unit,
            model,
            weights,
            collection.tree(unit, layout, model.clips),
            layout,
            ComputeOptions(
                device=keys["device"],
                batch_size=settings.batch_size(snakemake.config, registry, model.name),
                num_workers=min(keys["num_workers"], snakemake.threads),
                threads=snakemake.threads,
                save_every=keys["save_every"],
                timeout=keys["timeout"],
                compile=keys["compile"],
            ),
            max_failed_fraction=keys["max_failed_fraction"],
            pooling=keys["pool"],
            tables=settings.tables(snakemake.config),
            collection=collection.units,
            terminal=terminal,
        )
