"""Rule audit_text: which MP4 files still hold text that can be read."""

from pathlib import Path

from echo_embeddings.collection.source import Collection
from echo_embeddings.core import job
from echo_embeddings.core.layout import Layout
from echo_embeddings.tools.audit_text import Tree, audit

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        params, layout, collection = snakemake.params, Layout(), Collection.of(snakemake.config)
        trees = [
            Tree(clips, name, layout.manifest(clips, name), collection.tree(collection.unit(name), layout, clips))
            for clips in params.fed_with
            for name in params.folders
        ]
        audit(
            trees,
            Path(snakemake.output.page),
            clips=params.clips,
            threads=snakemake.threads,
            pictures=params.pictures,
            hash_names=params.hash_names,
        )
