"""What is known of clips, column by column: to colour them by, and to ask the vectors for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import UserError
from ..core.names import one_line
from ..core.settings import Tables
from ..tables import join, selection
from .base import Floats, Integers
from .tables import UNKNOWN

FEW = 10  # different numbers: more are a range, fewer are grades
MANY = 250  # different texts: more are names, or sentences
MISSING = -1
OWN = ("folder", "device", "kind", "fps", "frames")


@dataclass(frozen=True)
class Column:
    """What one column says of P clips: one of a few texts, or a number."""

    name: str
    labels: list[str]  # none of numbers; else the most frequent first, or in order where they are numbers themselves
    codes: Integers  # [P]: which label, `MISSING` where nothing is said
    numbers: Floats | None  # float64 [P], NaN where nothing is said

    @property
    def known(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
        """Of which clips something is said."""
        return self.codes != MISSING if self.numbers is None else ~np.isnan(self.numbers)


@dataclass(frozen=True)
class Columns:
    """The columns of P clips, and why others are none of them."""

    all: list[Column]
    left_out: list[str]  # "name: why"


def read(clips: pd.DataFrame, files: pd.DataFrame, known: Tables) -> Columns:
    """What manifests and tables say of `clips`, rows of `tables.clips` whose `files` are those of `tables.read_files`.

    A table that is not there, or cannot be joined, is named among what is left out, and so is a column of names, of
    dates, of one value or of more than `MANY` texts.
    """
    found: list[Column] = []
    left_out: list[str] = []
    place = clips["file"].to_numpy()
    of_manifest = clips[["folder", "device", "kind"]].replace(UNKNOWN, pd.NA)
    fps = files["fps"].reset_index(drop=True).reindex(place).to_numpy(np.float64, na_value=np.nan)
    said = [(name, of_manifest[name]) for name in OWN[:3]]
    said += [("fps", pd.Series(fps)), ("frames", clips["frames"].replace(0, pd.NA))]
    for name, values in [*said, *_of_tables(place, files, known, left_out)]:
        column = column_of(name, values.reset_index(drop=True))
        if isinstance(column, Column) and name not in OWN and _names(column, clips["patient"]):
            column = "names: most of its values stand with one patient alone"
        if isinstance(column, Column):
            found.append(column)
        elif name not in OWN:
            left_out.append(f"{name}: {column}")
    return Columns(found, left_out)


def _of_tables(
    place: Integers, files: pd.DataFrame, known: Tables, left_out: list[str]
) -> Iterator[tuple[str, pd.Series]]:
    """Name and values of each column of the tables; `place` are the rows of `files`, below 0 none."""
    for table in known.all:
        if not Path(table.file).is_file():
            left_out.append(f"{table.file}: not there yet")
            continue
        try:
            content, _ = join.look_up(table, files, known)
        except UserError as error:
            print(f"note: the page shows no column of {table.file}: {one_line(error)}", flush=True)
            left_out.append(f"{table.file}: cannot be joined; the log of the page says why")  # there with names
            continue
        for name in content:
            if name in selection.NOT_TAKEN or name == table.key:
                continue
            yield str(name), content[name].reset_index(drop=True).reindex(place)


def _names(column: Column, patients: pd.Series) -> bool:
    """Whether a column of texts seems to name patients or less: such are neither shown nor asked for."""
    if len(column.labels) <= FEW:
        return False
    held = pd.DataFrame({"code": column.codes, "patient": patients.to_numpy()})[column.known].drop_duplicates()
    return bool((held.groupby("code").size() == 1).mean() > 0.5)


def column_of(name: str, values: pd.Series) -> Column | str:
    """The column, or why its values are none to colour by."""
    there = values.dropna().infer_objects()
    different = there.nunique()
    if not different and name in OWN[:3]:
        return Column(name, [], np.full(len(values), MISSING), None)
    if different < 2 and name not in OWN[:3]:
        return "one value" if different else "no value"
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.infer_dtype(there) in ("date", "datetime"):
        return "dates"
    is_number = pd.api.types.is_numeric_dtype(there) and not pd.api.types.is_bool_dtype(there)
    if is_number and different > FEW:
        return Column(name, [], np.where(values.isna(), MISSING, 0), values.to_numpy(np.float64, na_value=np.nan))
    if different > MANY:
        return f"{different:,} different texts"
    counts = there.value_counts()
    order = sorted(counts.index) if is_number else list(counts.index)
    codes = pd.Categorical(values, categories=order).codes.astype(np.int64)
    return Column(name, [f"{value:g}" if is_number else str(value) for value in order], codes, None)
