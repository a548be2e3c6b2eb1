"""Rule qc_index: the page that sets all models side by side."""

from pathlib import Path

from echo_embeddings.core import job
from echo_embeddings.qc.index import make_index

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        pages = dict(zip(snakemake.params.models, map(Path, snakemake.input.pages), strict=True))
        merged = dict(zip(snakemake.params.models, map(Path, snakemake.input.merged), strict=True))
        make_index(pages, merged, Path(snakemake.output.page), snakemake.params.facts)
