"""Rule export_matrix: a model's merged vectors as one NumPy file, and its keys."""

from pathlib import Path

from echo_embeddings.core import job
from echo_embeddings.tables import export

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        export.write_matrix(*map(Path, (snakemake.input[0], snakemake.output.matrix, snakemake.output.names)))
