"""Rule physionet: tables and chosen DICOM of a PhysioNet project."""

from pathlib import Path

from echo_embeddings.core import job
from echo_embeddings.core.layout import Layout
from echo_embeddings.fetch import physionet

if __name__ == "__main__":
    with job.logged(snakemake.log[0], snakemake.resources.get("attempt", 1)) as terminal:
        params = snakemake.params
        places = physionet.Places(
            dicom=Path(params.dicom_dir),
            tables=Path(params.tables_dir),
            state=Layout().state("physionet"),
            record=Path(snakemake.output[0]),
        )
        project = physionet.Project(params.url.rstrip("/"), params.project, params.version)
        print(f"{physionet.fetch(project, params.include, places, terminal)} files are there")
