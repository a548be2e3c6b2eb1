"""Which clips: one expression over the columns of manifest and tables, checked before any table is read."""

import ast
import csv
import dataclasses
import difflib
import gzip
import io
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from ..core import manifest
from ..core.errors import UserError
from ..core.layout import Layout
from ..core.names import one_line
from ..core.settings import Table, Tables

IDENTITY = ("subject_id", "study_id")
IDENTIFIERS = (*IDENTITY, "dicom_id")
OF_A_CLIP = ("folder", "file_path", *IDENTIFIERS)  # besides the manifest's columns
NOT_TAKEN = {*OF_A_CLIP, "dicom_filepath"}  # of a table: they say which row it is, and stand with the clips already
# What a gzip file may unpack to: bytes, and that many times its size if that is more. Rows with a key of their own are
# far below it. 256 MB of the shortest rows take 2 GB of memory.
UNPACKED, RATIO = 2**28, 100
ALL, DEFAULT = "all", "default"  # in export.columns
STUDY_WHERE = "study.where"  # of the configuration
EMBEDDING, N_CLIPS = "embedding", "n_clips"  # columns that the exports make themselves
KEY, ROW, FOLD = "key", "row", "fold"  # and these, of clips

_UNNAMED = r"|__index_level_\d+__"  # a column of Parquet
_BACKTICKS = re.compile(r"`([^`]*)`")
# Comparisons, and, or, not, arithmetic, lists: nothing that calls or reaches into an object.
_ALLOWED = (
    *(ast.Expression, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Name, ast.Constant, ast.List, ast.Tuple),
    *(ast.And, ast.Or, ast.Not, ast.Invert, ast.USub, ast.UAdd, ast.BitAnd, ast.BitOr, ast.Load),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn),
)


def parse(expression: str, known: Iterable[str] = (), key: str = "select") -> set[str]:
    """The columns that an expression names, as `pandas.DataFrame.query` understands it.

    Names with blanks stand in backticks. Raises `UserError` if it is not made of comparisons, `in`, `and`, `or`,
    `not`, arithmetic, columns, numbers, texts and lists alone; it tells the `known` columns, where there are some, and
    the `key` of the configuration.
    """
    tree, quoted = _tree(expression, known, key)
    return {quoted.get(node.id, node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)}


def compared(expression: str) -> Iterator[tuple[str, str | float, bool]]:
    """Each column of an expression with each text or number that it is compared with, or looked for among.

    And whether it is asked if they are equal.
    """
    tree, quoted = _tree(expression)
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for operator, sides in zip(node.ops, pairwise([node.left, *node.comparators]), strict=True):
                equal = isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn)
                for column, other in (sides, reversed(sides)):
                    if isinstance(column, ast.Name):
                        listed = other.elts if isinstance(other, ast.List | ast.Tuple) else [other]
                        for part in listed:
                            if isinstance(part, ast.Constant) and isinstance(part.value, str | int | float):
                                yield quoted.get(column.id, column.id), part.value, equal


def _tree(expression: str, known: Iterable[str] = (), key: str = "select") -> tuple[ast.Expression, dict[str, str]]:
    """The expression, in which names stand for those in backticks; and which ones."""
    quoted: dict[str, str] = {}
    hint = f"; columns: {', '.join(known)}" if known else ""

    def stand_in(found: re.Match[str]) -> str:
        name = f"_quoted_{len(quoted)}"
        quoted[name] = found[1]
        return name

    try:
        tree = ast.parse(_BACKTICKS.sub(stand_in, expression.strip()), mode="eval")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f"config: {key}: {expression!r} is no expression: {one_line(error)}{hint}") from error
    for parent in ast.walk(tree):
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, _ALLOWED) or (isinstance(node, ast.Constant) and not _is_value(node.value)):
                # An operator alone is no text that anyone would find in the expression.
                raise UserError(
                    f"config: {key}: {ast.unparse(node) or ast.unparse(parent)!r} is not allowed: only comparisons, "
                    f"in, and, or, not, + - * / // %, columns, numbers, texts and lists{hint}"
                )
    return tree, quoted


def _is_value(value: object) -> bool:
    return isinstance(value, str | int | float)  # bool is an int


def header(table: Table) -> list[str]:
    """The columns of a CSV (gzip or not) or Parquet file, but for one without a name, as pandas writes its index.

    Raises `UserError` if it is neither, or names one twice.
    """
    path = Path(table.file)
    try:
        if is_parquet(table.file):
            # pyarrow is slow to import, and most workflows are read without it.
            from pyarrow import parquet  # noqa: PLC0415

            names = [name for name in parquet.read_schema(path).names if not re.fullmatch(_UNNAMED, name)]
        else:
            with io.TextIOWrapper(open_csv(table.file), encoding="utf-8-sig", newline="") as file:
                names = [name for name in next(csv.reader(file), []) if name]
    except FileNotFoundError as error:
        raise UserError(f"config: {table.name}: no file {table.file!r} in {Path.cwd()}") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"config: {table.name}: {path} is neither CSV nor Parquet: {one_line(error)[:200]}") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"config: {table.name}: {path} has two columns {twice[0]!r}; rename one")
    return names


def is_parquet(path: str) -> bool:
    """Whether the file begins as Parquet does."""
    return _beginning(path, 4) == b"PAR1"


def open_csv(path: str) -> BinaryIO:
    """The content of a CSV file, unpacked if it is gzip.

    Reading raises `OSError` where the gzip is damaged, and `UserError` where it unpacks to more than a table can hold.
    """
    return io.BufferedReader(_Unpacked(path)) if _beginning(path, 2) == b"\x1f\x8b" else open(path, "rb")


class _Unpacked(io.RawIOBase):
    """What a gzip file holds, unpacked as it is read, up to a limit: a decompression bomb would fill the memory."""

    def __init__(self, path: str) -> None:
        self._path, self._file = path, gzip.open(path)  # noqa: SIM115 (`close` closes it)
        self._limit = self._left = max(UNPACKED, RATIO * os.path.getsize(path))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            count = self._file.readinto(buffer)
        except (EOFError, zlib.error) as error:
            raise OSError(f"the gzip is damaged: {one_line(error)}") from error
        self._left -= count
        if self._left < 0:
            raise UserError(
                f"{self._path}: unpacks to more than {self._limit:,} bytes, {RATIO} times its size or more: no table "
                "does; fetch it again from where you trust, or unpack it yourself and name the unpacked file"
            )
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _beginning(path: str, length: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(length)


def taken(table: Table) -> list[str]:
    """The columns of a table that join the clips. Raises `UserError` if one that it should have is not there."""
    names = header(table)
    for name in (table.key, *table.columns):
        if name not in names:
            raise UserError(f"config: {table.name}: {table.file}: no column {name!r}; it has: {', '.join(names)}")
    if table.columns:
        return list(table.columns)
    own = {table.key} if table.name == "record_list" else set()
    return [name for name in names if name in own or name not in {table.key, *NOT_TAKEN}]


def identifying(table: Table) -> list[str]:
    """Which of `subject_id` and `study_id` a table says of files, whether `columns` names them or not."""
    if table.by != "path":
        return []
    names = header(table)
    return [name for name in IDENTITY if name in names and name != table.key]


def columns(tables: Tables) -> dict[str, Table | None]:
    """Every column that a clip has: the table it comes from, None for the manifest and the clip's path.

    Raises `UserError` if a table is not there or broken, or two have a column of one name.
    """
    known: dict[str, Table | None] = dict.fromkeys((*OF_A_CLIP, *manifest.COLUMNS))
    for table in tables.all:
        for name in taken(table):
            if name in known:
                other = known[name]
                raise UserError(
                    f"config: {table.name}: {table.file}: the column {name!r} is known from "
                    f"{other.file if other else 'the manifest'}; say in 'columns' which ones are to join, or rename it"
                )
            known[name] = table
    return known


def selecting(tables: Tables) -> set[str]:
    """The columns that decide the selection."""
    return parse(tables.select) if tables.select else set()


def used(tables: Tables, *, identities: bool = False) -> Tables:
    """Of the tables, those that decide the selection; all where some are not there to be asked.

    With `identities` those too that say whose a file is. Tables that are predicted from vectors are none of them.
    Raises `UserError` if the selection names a column that none has.
    """
    tables = _not_predicted(tables)
    wanted: set[Table | None] = set()
    missing = absent(tables)
    if tables.select:
        if missing:
            return tables
        known = columns(tables)
        names = parse(tables.select, known)
        check_names("select", names, known)
        wanted = {known[name] for name in names} - {None}
        by_identifier = any(table and table.by != "path" for table in wanted)
        identities = identities or by_identifier or not names.isdisjoint(IDENTITY)
    if identities:  # which a table that is not there may say
        wanted |= {table for table in tables.all if table.by == "path" and (table in missing or identifying(table))}
    return dataclasses.replace(
        tables,
        record_list=tables.record_list if tables.record_list in wanted else None,
        study_list=tables.study_list if tables.study_list in wanted else None,
        others=tuple(table for table in tables.others if table in wanted),
        layout=tables.layout if identities else None,
        direct=tables.direct if identities else "",
    )


def paged(tables: Tables) -> Tables:
    """Of the tables, what the quality pages read: those that they need, and whatever others are there."""
    needed = used(tables, identities=True).all

    def kept(table: Table | None) -> bool:
        return table is not None and (table in needed or Path(table.file).is_file())

    return dataclasses.replace(
        tables,
        record_list=tables.record_list if kept(tables.record_list) else None,
        study_list=tables.study_list if kept(tables.study_list) else None,
        others=tuple(filter(kept, tables.others)),
    )


def _not_predicted(tables: Tables) -> Tables:
    """The tables but for those of `Layout.predictions`. Raises `UserError` if the selection names a column of these."""
    top = Layout().predictions().resolve()
    predicted = [table for table in tables.others if top in Path(table.file).resolve().parents]
    for table in predicted if tables.select else ():
        names = table.columns or (taken(table) if Path(table.file).is_file() else ())
        for name in sorted(parse(tables.select or "").intersection(names)):
            raise UserError(
                f"config: select: {name!r} of {table.file} is predicted from vectors, and select decides which clips "
                "get one; use it in study.where, in the where of a task, or in export.columns"
            )
    return dataclasses.replace(tables, others=tuple(table for table in tables.others if table not in predicted))


def absent(tables: Tables) -> list[Table]:
    """The tables whose files are not there."""
    return [table for table in tables.all if not Path(table.file).is_file()]


def check(tables: Tables, export: Sequence[str], of_studies: str | None = None) -> None:
    """Check the selection, the names in export.columns and study.where, `of_studies`, as far as tables are there.

    Raises `UserError`.
    """
    names = parse(of_studies, key=STUDY_WHERE) if of_studies else set()
    if absent(tables):
        if tables.select:
            parse(tables.select)
        return
    used(tables)
    known = columns(tables)
    check_export(export, known)
    check_names(STUDY_WHERE, names, known)


def check_export(export: Collection[str], known: Mapping[str, Table | None]) -> None:
    """Raise `UserError` if export.columns names a column that is not known, or lets one leave that is made there.

    A table may have such a column for anything else, for `select` say.
    """
    check_names("export.columns", set(export) - {ALL, DEFAULT}, known)
    for name in (EMBEDDING, N_CLIPS, KEY, ROW, FOLD):
        table = known.get(name)
        if table and {name, ALL} & set(export):
            raise UserError(
                f"config: {table.name}: {table.file}: the column {name!r} is called like one that the exports make; "
                "rename it, or leave it out of 'columns' or of export.columns"
            )


def check_names(key: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise `UserError` if one of the names is not known."""
    known = list(known)
    for name in sorted(names):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            if key != "export.columns" and not near:
                hint = "a text stands in quotes; "
            raise UserError(f"config: {key}: no column {name!r}; {hint}columns: {', '.join(known)}")
