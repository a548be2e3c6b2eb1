"""Rule merge: the folders' embedding files into one."""

from pathlib import Path

from echo_embeddings.core import job, origin
from echo_embeddings.core.vectors import merge_vectors

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        parts = dict(zip(snakemake.params.folders, snakemake.input.parts, strict=True))
        origin.write_merged({folder: Path(part) for folder, part in parts.items()}, Path(snakemake.output[0]))
        vectors = merge_vectors(parts, snakemake.output[0], snakemake.params.embed_dim, snakemake.params.prefix_folder)
        print(f"{vectors} vectors of {len(parts)} folders")
