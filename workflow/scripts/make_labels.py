"""Rule make_labels: label tables from a collection's measurements."""

from pathlib import Path

from echo_embeddings.core import job
from echo_embeddings.evaluate.definitions import definitions
from echo_embeddings.evaluate.labels import make

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        make(
            Path(snakemake.input.measurements),
            Path(snakemake.input.study_list),
            definitions(snakemake.params.definitions),
            dict(zip(snakemake.params.names, map(Path, snakemake.output.tables), strict=True)),
            Path(snakemake.output.left_out),
        )
