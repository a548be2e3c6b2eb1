"""Rule download_weights: a checkpoint from where the registry says it is."""

from pathlib import Path

from echo_embeddings.core import job
from echo_embeddings.fetch import download

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)) as terminal:
        download.fetch(path=Path(snakemake.output[0]), terminal=terminal, **snakemake.params)
