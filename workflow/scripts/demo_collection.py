"""Rule demo_collection: a small collection of real echo clips."""

from echo_embeddings.core import job
from echo_embeddings.tools import demo

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        demo.write_collection(snakemake.output[0])
