"""DICOM echocardiograms to frozen V-JEPA 2 video embeddings.

Plain Python that knows nothing of Snakemake. The parts, lowest layer first; a part imports only from those above it
in this list:

    core        settings, registry, paths below results/, atomic files, locks, manifest, vectors, progress, job
    dicom       one DICOM file: its mark, header and frames; archives of DICOM
    collection  which folders a collection has, and which files a folder holds
    fetch       checkpoints, and tables and DICOM of PhysioNet
    tables      tables joined to the manifests, selection, record list against disk, Parquet, card, study vectors
    convert     DICOM to MP4 and manifest; MP4 that are there already to a manifest
    encoders    architectures, the encoder, checkpoints
    embed       MP4 and encoder to vectors and features; one file to its vector
    qc          numbers, pictures, pages
    evaluate    what vectors can predict: labels, splits, probes, controls, pages
    tools       what is run beside the workflow, and what a job will ask of a cluster

Everything that the workflow imports while it is parsed is quick to import: no torch, pydicom or pandas.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

# Imported when first asked for: torch takes seconds.
_API = {
    "embed_file": "embed.one_file",
    "load_model": "embed.one_file",
    "read_vectors": "core.vectors",
    "write_vectors": "core.vectors",
    "UserError": "core.errors",
}
__all__ = sorted(_API)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_API[name]}"), name)
