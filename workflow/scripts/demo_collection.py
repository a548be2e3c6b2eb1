"""Rule demo_collection: a small collection of real echo clips."""

from echo_embeddings import demo, job

if __name__ == "__main__":
    with job.logged(snakemake.log[0]):
        demo.write_collection(snakemake.output[0])
