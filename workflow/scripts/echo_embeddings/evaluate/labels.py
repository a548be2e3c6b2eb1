"""Labels of studies, from the measurements that a collection comes with: one tidy table for each definition."""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.errors import UserError
from ..core.files import atomic_write
from ..core.names import one_line
from .results import Definition, LeftOutError, same

STUDIES = ["subject_id", "study_id", "study_datetime", "measurement_id"]
MEASUREMENTS = ["subject_id", "measurement_id", "measurement_datetime", "test_type", "measurement", "result", "unit"]
COLUMNS = ["study_id", "subject_id", "value", "measurement", "result", "days"]
LEFT_OUT = ["label", "reason", "result", "studies"]
ROWS = 1_000_000  # of the measurements that are in memory at a time

Line = Mapping[Any, str]  # of a table, by column
Measured = Mapping[str, list[Line]]  # the rows of one measurement_id, by measurement


def make(
    measurements: Path, study_list: Path, wanted: Mapping[str, Definition], tables: Mapping[str, Path], left_out: Path
) -> None:
    """Write a table for each of the labels `wanted` to the place that `tables` names, and one of what is `left_out`.

    A table has the columns `COLUMNS`: a row for each study of `study_list` that has a value, with `days` from the study
    to the measurement. The studies that have none are counted in `left_out` (columns `LEFT_OUT`), by reason. Raises
    `UserError` if a file cannot be read or lacks a column.
    """
    (table,) = _read(study_list, STUDIES, "study_list", None)
    studies: Sequence[Line] = table.to_dict("records")
    measured = _measured(measurements, {name for one in wanted.values() for name in one.measurements}, studies)
    lines: list[tuple[str, str, str, int]] = []
    for name, one in wanted.items():
        rows, why = [], collections.Counter[tuple[str, str]]()
        for study in studies:
            try:
                rows.append(_row(one, study, measured.get(study["measurement_id"], {})))
            except LeftOutError as error:
                why[error.reason, error.text] += 1
        with atomic_write(tables[name]) as part:
            pd.DataFrame(rows, columns=COLUMNS).to_csv(part, index=False)
        print(f"{name}: {len(rows):,} of {len(studies):,} studies have a value", flush=True)
        for (reason, text), number in why.most_common():
            lines.append((name, reason, text, number))
            print(f"{name}: left out: {number:,} x {reason}{f': {text}' if text else ''}")
    with atomic_write(left_out) as part:
        pd.DataFrame(lines, columns=LEFT_OUT).to_csv(part, sep="\t", index=False)


def _read(path: Path, columns: list[str], name: str, rows: int | None) -> Iterator[pd.DataFrame]:
    """The columns of a CSV file as text, `rows` rows at a time; `name` is the configuration's key, for messages."""
    try:
        head = list(map(str, pd.read_csv(path, nrows=0)))
        if missing := [column for column in columns if column not in head]:
            raise UserError(f"config: {name}: {path} has no column {missing[0]!r}; it has {', '.join(head)}")
        read = pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False, chunksize=rows)
        yield from [read] if isinstance(read, pd.DataFrame) else read
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"config: {name}: cannot read {path}: {one_line(error)[:200]}") from error


def _measured(path: Path, names: set[str], studies: Iterable[Line]) -> Mapping[str, Measured]:
    """The measurements of these names that a study refers to, by measurement_id."""
    wanted = {study["measurement_id"] for study in studies} - {""}
    found: dict[str, dict[str, list[Line]]] = {}
    for chunk in _read(path, MEASUREMENTS, "labels.measurements", ROWS):
        kept = chunk[chunk["measurement"].isin(names) & chunk["measurement_id"].isin(wanted)]
        for line in kept.to_dict("records"):
            found.setdefault(line["measurement_id"], {}).setdefault(line["measurement"], []).append(line)
    return found


def _row(one: Definition, study: Line, measured: Measured) -> tuple[str | float, ...]:
    """The study's row. Raises `LeftOutError`: of its measurements the first reason."""
    if not study["measurement_id"]:
        raise LeftOutError("the study has no measurement_id")
    reasons = []
    for name in one.measurements:
        if name in measured:
            try:
                value, line = _value(one, study, measured[name])
            except LeftOutError as error:
                reasons.append(error)
            else:
                return study["study_id"], study["subject_id"], value, name, line["result"].strip(), _days(study, line)
    raise reasons[0] if reasons else LeftOutError("none of the measurements")


def _value(one: Definition, study: Line, lines: Iterable[Line]) -> tuple[float, Line]:
    """The value that the rows of one measurement agree on, and the first that has it. Raises `LeftOutError`."""
    reasons, values = [], dict[float, Line]()
    for line in lines:
        try:
            if line["subject_id"] != study["subject_id"]:
                raise LeftOutError("the measurement is another subject's")
            if any(same(word) in same(line["test_type"]) for word in one.without_test_types):
                raise LeftOutError("a test type that is left out", line["test_type"].strip())
            values.setdefault(one.value(line["result"], line["unit"]), line)
        except LeftOutError as error:
            reasons.append(error)
    if len(values) > 1:
        raise LeftOutError("several values that differ")
    if not values:
        raise reasons[0]
    return next(iter(values.items()))


def _days(study: Line, line: Line) -> str:
    """Whole days from the study to the measurement; empty where a time is missing, or is none."""
    texts = study["study_datetime"], line["measurement_datetime"]
    before, after = (pd.to_datetime(text, errors="coerce") for text in texts)
    if not isinstance(before, pd.Timestamp) or not isinstance(after, pd.Timestamp):
        return ""
    return str((after.tz_localize(None) - before.tz_localize(None)).round("D").days)
