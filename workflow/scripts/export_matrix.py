"""Rule export_matrix: a model's merged vectors as one NumPy file, and its keys."""

from pathlib import Path

from echo_embeddings.core import job, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.tables import export, selection

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)):
        params, output = snakemake.params, snakemake.output
        known = selection.used(settings.tables(snakemake.config), identities=True)
        parts = export.parts(Layout(), snakemake.wildcards.model, params.fed_with, params.folders)
        files = export.read(parts, known, selection.IDENTITY)
        clips = export.of_vectors(parts, files, params.dim, export.Merging(**params.merging))
        export.write_matrix(Path(snakemake.input.merged), Path(output.matrix), Path(output.names), clips.merged)
