"""A fitted head on all vectors of its model: what `echo-embeddings predict` writes, a table for `tables`."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from ..core import origin
from ..core.errors import UserError
from ..core.files import atomic_write
from ..core.layout import Layout
from ..core.names import one_line
from ..core.vectors import read_vectors
from ..qc.base import Vectors
from ..tables import identity
from . import heads, linear
from .clips import KEY
from .heads import LAST, NONE, UNKNOWN, Fitted

Integers = npt.NDArray[np.int64]

PATH, CONFIDENCE = "path", "_confidence"  # columns: the clip, and behind the target's name its probability


def predict(file: Path, out: Path | None, layout: Layout, *, divided: bool) -> str:
    """Write what the head in `file` says of every clip of the merged file of its model; returns what is to be said.

    One row a clip, in the merged file's order: `path`, that of its MP4 or with that ending, which joins (`by: path,
    key: path`), and under the target's name the value, or the likeliest class and its probability as
    `{target}_confidence`. A clip whose patient the head was fitted to is predicted by the head that never saw the
    patient's group; one of another patient by the last head. Cells are empty, and counted, where that cannot be: the
    patient is not known, or stood in train or val of a given split, to whom every head was fitted. What these would
    say of the patient is no prediction.

    `out` is CSV, or Parquet by its name; None means below `layout.predictions()`. `divided` is that of `Tables`.
    Raises `UserError` if the head is none, or of other vectors.
    """
    head = heads.read(file)
    merged = layout.merged(head.model)
    keys, tensor = read_vectors(merged)
    _check(head, file, merged, tensor.shape[1])
    clips = _clips(layout.evaluated_clips(head.model), merged, keys)
    group = head.group_of(clips["subject_id"])
    with threadpool_limits(1):  # the last bits do not depend on the number of cores
        values = linear.predict(head.heads, Vectors(tensor.numpy(), np.arange(len(keys))), group, head.known)
    folder, path = identity.places(clips, divided)
    # As an MP4's, whatever the clip is: other names would be percent-encoded once more where the table is read.
    names = (folder + "/").where(folder != "", "") + path + ".mp4"
    table = pd.DataFrame({PATH: names, **_columns(head, values, group >= LAST)})
    out = out or layout.predictions() / f"{head.task}-{head.model}.csv"
    content = io.BytesIO()
    if out.suffix == ".parquet":
        table.to_parquet(content, index=False, compression="zstd")
    else:
        table.to_csv(content, index=False)
    if not out.is_file() or out.read_bytes() != content.getbuffer():  # a new file would make all that joins it pending
        with atomic_write(out) as part:
            part.write_bytes(content.getbuffer())
    return f"{one_line(out)}: {'; '.join(_says(head, group))}"


def _check(head: Fitted, file: Path, merged: Path, dim: int) -> None:
    """Raise `UserError` if the vectors are others than those that the head was fitted to."""
    theirs, ours = head.fingerprint, origin.beside(merged).get(origin.SHORT)
    if theirs != ours:
        fitted, given = (f"of the fingerprint {one}" if one else "without a fingerprint" for one in (theirs, ours))
        raise UserError(
            f"{file}: fitted to vectors {fitted}, and {merged} holds vectors {given}: another model, recipe or "
            "checkpoint; `snakemake evaluate` fits a head to these"
        )
    if dim != head.dim:
        raise UserError(f"{file}: fitted to vectors of {head.dim} values, and those of {merged} have {dim}")
    if head.target == PATH:
        raise UserError(f"{file}: its target is called {PATH!r}, as the column that names the clips; rename it")


def _clips(path: Path, merged: Path, keys: list[str]) -> pd.DataFrame:
    """Whose the clips of the merged file are, and where, in its order."""
    fix = f"`snakemake evaluate` makes it, or `snakemake {path}` alone"
    if not path.is_file():
        raise UserError(f"{path}: no such file, which says whose clips the vectors are of; {fix}")
    try:
        columns = [KEY, "subject_id", "folder", "path"]
        table = pd.read_parquet(path, columns=columns, dtype_backend="numpy_nullable")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)[:200]}; {fix}") from error
    if table[KEY].tolist() != keys:
        raise UserError(f"{path}: its clips are not those of {merged}; {fix}")
    return table


def _columns(head: Fitted, values: npt.NDArray[np.float64], known: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """The columns of values [n, T], empty where they are not `known`."""
    if head.classes is None:
        return {head.target: values[:, 0]}
    shares = softmax(values, axis=1)
    labels = pd.Series(np.array(head.classes, object)[shares.argmax(axis=1)], dtype="string")
    return {head.target: labels.where(known), head.target + CONFIDENCE: shares.max(axis=1)}


def _says(head: Fitted, group: Integers) -> Iterator[str]:
    """How many clips were predicted by what, in words."""
    yield f"{len(group):,} clips"
    yield f"{int((group >= 0).sum()):,} of patients that it was fitted to, by heads that never saw them"
    yield f"{int((group == LAST).sum()):,} of others, by the last head"
    if count := int((group == NONE).sum()):
        yield f"{count:,} without a prediction: every head was fitted to their patients, as the task's split has it"
    if count := int((group == UNKNOWN).sum()):
        yield f"{count:,} without a prediction: their patient is not known"
    if head.not_tested:
        yield f"the evaluation says of this head: not tested, {head.not_tested}"
