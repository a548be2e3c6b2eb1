"""What is known of a model's clips, in one table that every task of `evaluate` reads: joining them takes a while."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from ..core.errors import UserError
from ..core.files import atomic_write
from ..core.settings import Tables
from ..core.vectors import read_vectors
from ..qc import components, health, moments
from ..qc.base import Vectors
from ..tables import export, identity
from ..tables.export import Part
from ..tables.selection import IDENTITY

KEY, ALIKE = "_merged_key", "_alike"  # columns that the table has besides those of manifest and tables


def write(
    merged: Path, parts: Mapping[str, Part], known: Tables, used: Collection[str], output: Path, *, prefix_folder: bool
) -> None:
    """Write a Parquet file with one row a vector of the file `merged`, in its order.

    Columns: those of manifest and tables, `KEY` as in the merged file, and `ALIKE`, a number that nearly equal vectors
    share (see `qc.health`). Of the tables, rows of one key must agree in the columns `used`. Raises `UserError` if a
    file is broken, or they are not of one run.
    """
    keys, tensor = read_vectors(merged)
    files = export.read(parts, known, {*used, *IDENTITY})
    at, own = [], []
    for folder, part in parts.items():
        names = part.read(tensor.shape[1])[0]
        at.append(files.rows(folder, names))
        own += [f"{folder}/{name}" for name in names] if prefix_folder else names
    table = files.table.iloc[np.concatenate(at)].assign(**{KEY: own})
    rows = pd.Index(own).get_indexer(pd.Index(keys))
    if (rows < 0).any():
        raise UserError(f"{merged}: {keys[int(rows.argmin())]!r} is in no folder's embedding file; run again")
    table = table.iloc[rows].assign(**{ALIKE: alike(tensor.numpy())})
    for name in IDENTITY:
        table[name] = identity.identifier(table[name])
    with atomic_write(output) as part_file:
        table.to_parquet(part_file, index=False, compression="zstd")
    print(f"{len(keys):,} clips, {table[ALIKE].nunique():,} of them apart from each other", flush=True)


def alike(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """A number [N] for each vector [N, D], which it shares with those that are nearly equal to it."""
    with threadpool_limits(1):  # see `qc.report.measure`
        rows, totals = moments.measure(matrix, np.zeros(len(matrix), np.int64), 1)
        vectors = Vectors(matrix, np.flatnonzero(rows.finite))
        parts = components.analyse(vectors, totals[0])[1] if len(vectors) else None
        equal, near, _ = health.alike(rows, vectors, parts)
    label = np.arange(len(matrix))
    for places in (*equal, *near):
        label[places] = label[places].min()
    return label
