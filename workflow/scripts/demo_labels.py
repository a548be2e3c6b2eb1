"""Rule demo_labels: labels of the small collection, drawn at random."""

from echo_embeddings.core import job
from echo_embeddings.tools import demo

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        demo.write_labels(snakemake.output[0], snakemake.params.seed)
