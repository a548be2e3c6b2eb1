"""What is known of clips, joined: manifests, record list, study list and further tables; and which are selected.

The rows are those of the manifests, one a file, whatever the tables hold: a table's row is looked up for each.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..collection.kinds import VIDEOS
from ..collection.units import Unit, files_of
from ..core import manifest
from ..core.errors import UserError
from ..core.manifest import CLIPS
from ..core.names import encode_name, one_line
from ..core.settings import KEY_COLUMNS, Table, Tables
from . import identity, selection
from .identity import as_numbers, comparable, identifier, stem
from .selection import IDENTITY

_NUMBERS = dict.fromkeys(manifest.INTEGERS, "Int64") | {"fps": "Float64", "mask_kept": "Float64", "mtime_ns": "string"}
SHOWN = 20  # names in a log
EXACT = 2**53  # from here on a float64 stands for more than one whole number


@dataclass(frozen=True)
class Join:
    """How a table went onto the clips."""

    table: Table
    rows: int
    repeated: list[str]  # keys with more than one row, which agree in what is used of them; the first row counts
    found: npt.NDArray[np.bool_]  # for each file, whether the table has it
    notes: tuple[str, ...] = ()
    key: str | None = None  # one of the table's, as it is written there
    like: str | None = None  # what it might be: that of one of the files

    @property
    def error(self) -> str | None:
        """Why there is nothing to select by, where the table has a row for none of the files."""
        if self.found.any() or not len(self.found):
            return None
        known = (
            f"none of its {self.rows:,} keys is that of a file: it has {self.key!r}" if self.rows else "it has no key"
        )
        if self.like:
            theirs = f"the files are like {self.like!r}"
        else:
            theirs = f"no file has a {KEY_COLUMNS[self.table.by]}: their paths do not say it, nor does a table by path"
        fix = "correct 'key' or 'by'" if self.table.name.startswith("tables") else "take that of this collection"
        return f"config: {self.table.name}: {self.table.file}: {known}, {theirs}; {fix}"

    @property
    def is_thin(self) -> bool:
        """Whether the table has a row for fewer than half of the files."""
        return 2 * int(self.found.sum()) < len(self.found)

    def coverage(self, what: str) -> str:
        """For how many of the files, called `what`, the table has a row."""
        part = ": fewer than half" if self.is_thin else ""
        found, every = int(self.found.sum()), len(self.found)
        return f"{self.table.name} ({Path(self.table.file).name}) has a row for {found:,} of {every:,} {what}{part}"

    def __str__(self) -> str:
        text = (
            f"{self.table.name} ({self.table.file}): {self.rows:,} rows by {self.table.by}, found for "
            f"{int(self.found.sum()):,} of {len(self.found):,} files"
        )
        if self.repeated:
            more = f" and {len(self.repeated) - SHOWN:,} more" if len(self.repeated) > SHOWN else ""
            text += (
                f"; {len(self.repeated):,} keys have more than one row, of which the first counts: "
                f"{', '.join(self.repeated[:SHOWN])}{more}"
            )
        return "; ".join((text, *self.notes))


# --- reading ----------------------------------------------------------------------------------------


def read_manifest(path: Path) -> pd.DataFrame:
    """A manifest as a table; empty cells are missing. Raises `UserError` if it is not a whole one.

    A time that is beyond the range of int64, after 2262, is its end.
    """
    try:
        with path.open("rb") as file:
            names = manifest.columns_of(file.readline().decode())
            if file.seek(0, 2) == 0 or file.seek(-1, 2) < 0 or file.read(1) != b"\n":
                names = []
        if not names:
            raise UserError(f"{path}: not a whole manifest; delete it and run again")
        frame = pd.read_csv(
            path, sep="\t", usecols=names, dtype={n: _NUMBERS.get(n, "string") for n in names},
            keep_default_na=False, na_values=[""], quoting=3, encoding="utf-8",
        )  # fmt: skip
        for name in manifest.COLUMNS[len(names) :]:
            frame[name] = pd.Series(pd.NA, frame.index, _NUMBERS.get(name, "string"))
        return frame.assign(mtime_ns=frame["mtime_ns"].map(_int64, na_action="ignore").astype("Int64"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read the manifest: {one_line(error)}") from error


def _int64(text: str) -> int:
    return min(max(int(text), -(2**63)), 2**63 - 1)


def read_table(table: Table, columns: Iterable[str]) -> tuple[pd.DataFrame, list[str]]:
    """Columns of a CSV or Parquet file, the key as text; and a sentence for each column with values that are no dates.

    Columns that end in `datetime` or `charttime` become dates, identifiers texts. Raises `UserError` if it cannot be
    read, or one of these columns not without loss.
    """
    wanted = list(dict.fromkeys([table.key, *columns]))
    identifiers = [name for name in wanted if name in {table.key, *selection.IDENTIFIERS}]
    try:
        if selection.is_parquet(table.file):
            frame = pd.read_parquet(table.file, columns=wanted, dtype_backend="numpy_nullable")
            if not set(wanted) <= set(frame.columns):  # one was the index of who wrote it
                frame = frame.reset_index()
        else:
            with selection.open_csv(table.file) as file:
                frame = pd.read_csv(
                    file, usecols=wanted, dtype=dict.fromkeys(identifiers, "string"),
                    dtype_backend="numpy_nullable", encoding="utf-8-sig", low_memory=False,
                )  # fmt: skip
    except UserError:
        raise
    except Exception as error:  # there is no end to what a damaged or another program's file brings
        raise UserError(f"config: {table.name}: {table.file} cannot be read: {one_line(error)[:200]}") from error
    notes = []
    for name in wanted:
        try:
            if name in identifiers:
                frame[name] = _texts(frame[name])
            elif re.search(r"(datetime|charttime)$", name) and not pd.api.types.is_datetime64_any_dtype(frame[name]):
                dates = pd.to_datetime(frame[name].astype("string"), errors="coerce", format="ISO8601")
                wrong = int((dates.isna() & frame[name].notna()).sum())
                if wrong:
                    notes.append(f"{wrong:,} values of {name} are no dates")
                frame[name] = dates
        except ValueError as error:
            reason = one_line(error)
            if "timezone" in reason:
                reason = "its times have different offsets from UTC, or some have none; write all of them alike"
            raise UserError(f"config: {table.name}: {table.file}: column {name!r}: {reason[:200]}") from error
    return frame[wanted], notes


def _texts(values: pd.Series) -> pd.Series:
    """Identifiers as text. Raises `ValueError` where they are floating-point numbers that neighbours may share."""
    if pd.api.types.is_float_dtype(values) and (values.abs() >= EXACT).any():
        raise ValueError(
            "identifiers of 16 digits and more are floating-point numbers, which lose the last of them; "
            "write them as text or whole numbers"
        )
    return values.astype("string")


# --- keys -------------------------------------------------------------------------------------------


def clip_names(paths: pd.Series, folders: Iterable[str]) -> pd.Series:
    """The names by which a table's paths are compared: `folder/path` without `identity.SUFFIX`, percent-encoded.

    What stands before the first part that is a folder's name goes; where none is, the path stays whole. Names of
    MP4 files are percent-encoded already.
    """
    return stem(folder_paths(paths, folders))


def folder_paths(paths: pd.Series, folders: Iterable[str]) -> pd.Series:
    """The same, `identity.SUFFIX` kept."""
    known = frozenset(folders)
    return paths.map({path: _folder_path(path, known) for path in paths.dropna().unique()}).astype("string")


def _folder_path(path: str, folders: frozenset[str]) -> str:
    if path[-4:].lower() != ".mp4":
        path = encode_name(path)
    parts = path.split("/")
    at = next((i for i, part in enumerate(parts[:-1]) if part in folders), 0)
    return "/".join(parts[at:])


def _looked_up(frame: pd.DataFrame, divided: bool) -> list[pd.Series]:
    """The names under which files are looked up, the first that is found: with their folder, without, and alone.

    Tables of videos often hold names without directories. Such a name is looked up for the one video of a folder that
    has it, and for no DICOM: `IM_0001` is in every study.
    """
    folder, path = identity.places(frame, divided)
    name = path.str.replace(r"^.*/", "", regex=True)
    alone = ~pd.DataFrame({"folder": folder, "name": name}).duplicated(keep=False)
    is_video = frame["path"].str.lower().str.endswith(VIDEOS)
    return [folder + "/" + path, path, name.where(alone & is_video)]


# --- joining ----------------------------------------------------------------------------------------


def files_table(manifests: Mapping[str, Path]) -> pd.DataFrame:
    """Every file of every folder, one row each, in the order of the manifests.

    Columns: `folder`, `file_path` (the clip's key, as in the folder's embedding file), `subject_id` and `study_id`
    (numbers, or text where one has more than 18 digits), `dicom_id`, as the path says where it has MIMIC-IV-Echo's
    form, and those of the manifest. `join_tables` asks all other sources of identifiers too.
    """
    frames = []
    for folder, path in manifests.items():
        frame = read_manifest(path)
        frame.insert(0, "folder", pd.Series([folder] * len(frame), dtype="string"))
        frames.append(frame)
    frame = pd.concat(frames, ignore_index=True)
    frame.insert(1, "file_path", frame["mp4"])
    for at, (name, values) in enumerate(identity.of_paths(frame, Tables()).items()):
        frame.insert(2 + at, name, values)
    return frame


def listed_files(folders: Mapping[str, Unit]) -> pd.DataFrame:
    """Every file of the folders as it lies on the disk, with what of `files_table` its path says.

    For what is asked of the collection before all of it is converted; manifests also lack what `limit` leaves out.
    """
    paths = {unit.name: [*map(encode_name, found)] for unit, found in files_of(folders.values()).items()}
    frame = pd.DataFrame(
        {
            "folder": [name for name, found in paths.items() for _ in found],
            "path": [path for found in paths.values() for path in found],
        },
        dtype="string",
    )
    return frame.assign(**identity.of_paths(frame, Tables()))


def join_tables(frame: pd.DataFrame, tables: Tables, used: Iterable[str] = ()) -> tuple[pd.DataFrame, list[Join]]:
    """The files of `frame` (see `files_table`) with what the tables say of each, and how that went.

    The number of rows and their order stay: of a key that a table has more than once the first row counts. Whose each
    file is follows `identity.decide`. Rows without a `path` may be anything that has a `subject_id` and a `study_id`;
    these stay, and tables by path have nothing to do with them. Raises `UserError` on a table that is broken, or whose
    rows of one key differ in a column that is `used`.
    """
    selection.columns(tables)
    used = set(used)
    by_path, others = ([table for table in tables.all if (table.by == "path") is is_path] for is_path in (True, False))
    for table in others:
        if used & {*selection.taken(table)}:
            used |= {*IDENTITY} if table.by == "study" else {KEY_COLUMNS["patient"]}  # they are looked up by these
    contents, found, joins = {}, {}, {}
    for table in by_path:
        contents[table], found[table], joins[table] = _look_up(table, frame, used, tables.divided)
    if "path" in frame:
        answers, notes = identity.decide(frame, tables, found)
        frame = frame.assign(**answers)
        joins |= {table: replace(joins[table], notes=(*joins[table].notes, *notes[table])) for table in by_path}
    listed = [content for table, content in contents.items() if selection.identifying(table) == [*IDENTITY]]
    shared = identity.shared(frame)
    one_each = shared.empty and all(identity.shared(content).empty for content in listed)
    within = "{study}" in (tables.layout or "") or not one_each
    for table in others:
        whose = within and _says_whose(table, shared)
        _, found[table], joins[table] = _look_up(table, frame, used, tables.divided, whose=whose)
    joined = pd.concat([frame, *(found[table][selection.taken(table)] for table in tables.all)], axis=1)
    return joined, [joins[table] for table in tables.all]


def look_up(table: Table, frame: pd.DataFrame, tables: Tables) -> tuple[pd.DataFrame, Join]:
    """What one more table says of the files of `frame`, which `join_tables` made; and how that went.

    The columns are those that join; a file that the table has no row for has none. Raises `UserError` as `join_tables`.
    """
    names = selection.taken(table)
    shared = identity.shared(frame)
    within = "{study}" in (tables.layout or "") or not shared.empty
    whose = within and _says_whose(table, shared)
    _, found, join = _look_up(table, frame, names, tables.divided, whose=whose)
    return found[names], join


def _says_whose(table: Table, shared: pd.DataFrame) -> bool:
    """Whether a table by study names each row's patient, which it must where patients share studies' names."""
    if table.by != "study":
        return False
    whose = KEY_COLUMNS["patient"] in selection.header(table)
    if not shared.empty and not whose:
        (one, study), (other, _) = shared.head(2).to_numpy()
        raise UserError(
            f"config: {table.name}: {table.file}: the patients {one!r} and {other!r} both have a study {study!r}; "
            f"give the table a column {KEY_COLUMNS['patient']!r} that says whose study each row is of"
        )
    return whose


def _look_up(
    table: Table, frame: pd.DataFrame, used: Collection[str], divided: bool, *, whose: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame, Join]:
    """A table; of each file of `frame` its row; and how that went.

    A row holds the columns that join, and of a table by path identifiers. With `whose` a study is looked up by its
    patient too.
    """
    patient = [KEY_COLUMNS["patient"]] if whose else []
    names = [*selection.taken(table), *selection.identifying(table)]
    content, notes = read_table(table, [*names, *patient])
    content = content.dropna(subset=[table.key, *patient])
    if table.by == "path":
        keys = clip_names(content[table.key], identity.places(frame, divided)[0].unique())
        looked_up = _looked_up(frame, divided)
    else:
        keys = _joined_text(content, [*patient, table.key])
        looked_up = [_joined_text(frame, [*patient, KEY_COLUMNS[table.by]])]
    _check_repeated(table, content, keys, [name for name in names if name in {*used} - {table.key}])
    repeated = keys.duplicated()
    index = pd.Index(keys[~repeated].to_numpy(dtype=object))
    at = _places(index, looked_up)
    found = content[~repeated].reset_index(drop=True).reindex(pd.Index(at)).set_axis(frame.index)
    twice = sorted(set(content.loc[repeated, table.key]))
    like = next(filter(None, map(_first, reversed(looked_up))), None)  # the shortest that a file has
    join = Join(table, len(content), twice, at >= 0, tuple(notes), _first(content[table.key]), like)
    return content, found[names], join


def _joined_text(frame: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    """Identifiers as they compare; of several columns with a / between them."""
    first, *more = (comparable(frame[name]) for name in names)
    for values in more:
        first = first + "/" + values
    return first


def _check_repeated(table: Table, content: pd.DataFrame, keys: pd.Series, used: Sequence[str]) -> None:
    """Raise `UserError` if two rows of one key differ in what is `used` of them: none of them is to be believed.

    It is asked of the whole table, whatever files there are, so that every job says the same.
    """
    again = keys.duplicated(keep=False)
    shown = content.loc[again, list(used)].map(lambda value: repr(value) if isinstance(value, str) else str(value))
    for name in used:
        pairs = shown[[name]].assign(key=keys[again]).drop_duplicates()
        differ = pairs[pairs["key"].duplicated(keep=False)]
        if not differ.empty:
            first = differ.index[0]
            one, other = differ.loc[differ["key"] == differ["key"].iloc[0], name].iloc[:2]
            more = differ["key"].nunique() - 1
            others = f", and so do {more:,} other keys" if more else ""
            raise UserError(
                f"config: {table.name}: {table.file}: the rows of {content.loc[first, table.key]!r} contradict each "
                f"other: {name} is {one} and {other}{others}; keep one row of each key"
            )


def _first(values: pd.Series) -> str | None:
    there = values.dropna()
    return None if there.empty else str(there.iloc[0])


def _places(index: pd.Index, keys: Iterable[pd.Series]) -> npt.NDArray[np.intp]:
    """Where the keys stand in the index, -1 where they do not: those of the first series, or else of the next."""
    at: npt.NDArray[np.intp] | None = None
    for series in keys:
        more = index.get_indexer(pd.Index(series.to_numpy(dtype=object)))
        more[series.isna().to_numpy()] = -1
        at = more if at is None else np.where(at >= 0, at, more)
    assert at is not None
    return at


def studies_table(frame: pd.DataFrame, tables: Tables, everything: bool) -> pd.DataFrame:
    """The studies of the files of `frame`, one row each: `subject_id` and `study_id`, in order.

    With `everything` those of the record list and the study list too, whose files need not be there.
    """
    found = [frame[[*IDENTITY]].astype("string")]
    for table in (tables.record_list, tables.study_list) if everything else ():
        if table:
            content, _ = read_table(table, [name for name in IDENTITY if name in selection.header(table)])
            said = {name: identifier(content[name]) for name in IDENTITY if name in content}
            if table.by == "path":
                paths = clip_names(content[table.key], identity.places(frame, tables.divided)[0].unique())
                said = {
                    name: said[name].fillna(values) if name in said else values
                    for name, values in identity.of_names(paths, tables).items()
                }
            found.append(pd.DataFrame(said))
    every = pd.concat(found, ignore_index=True).dropna(subset="study_id")
    every = every[~every.apply(comparable).duplicated()]
    # The study list may not say whose a study is.
    owned = set(comparable(every.loc[every["subject_id"].notna(), "study_id"]))
    every = every[every["subject_id"].notna() | ~comparable(every["study_id"]).isin(owned)]
    return every.apply(as_numbers).sort_values([*IDENTITY], ignore_index=True)


# --- selecting --------------------------------------------------------------------------------------


def selected_mask(frame: pd.DataFrame, expression: str | None, key: str = "select") -> npt.NDArray[np.bool_]:
    """Which rows of `frame` the expression is true of, as `pandas.DataFrame.query` has it; all where there is none.

    Of a missing value `!=` and `not in` are true, all other comparisons false. Raises `UserError` on an expression
    that names no column, does not go with a column's type, or is neither true nor false. Whole numbers compare
    exactly, however long. `key` is what the configuration calls the expression.
    """
    if not expression:
        return np.ones(len(frame), bool)
    names = sorted(selection.parse(expression, list(frame.columns), key))
    selection.check_names(key, names, frame.columns)
    compared = list(selection.compared(expression))
    with_text = {name for name, value, _ in compared if isinstance(value, str)}
    plain = pd.DataFrame({name: _plain(frame[name], name in with_text) for name in names}, index=frame.index)
    try:
        result = plain.eval(expression.strip(), engine="python")
    except Exception as error:  # pandas has many words for an expression that makes no sense
        raise UserError(f"config: {key}: {expression!r} cannot be worked out: {one_line(error)[:200]}") from error
    for name, value, equal in compared:
        _check_comparison(expression, plain[name], value, equal, key)
    if not (isinstance(result, pd.Series) and result.dtype == bool and len(result) == len(frame)):
        raise UserError(
            f"config: {key}: {expression!r} is neither true nor false of each clip; compare something: frames >= 16"
        )
    return result.to_numpy()


def _check_comparison(expression: str, values: pd.Series, value: str | float, equal: bool, key: str) -> None:
    """Raise `UserError` if a column of these `values` can never be equal to `value`."""
    holds = pd.api.types.infer_dtype(values.dropna().astype(object))  # "empty" is none of those below
    if isinstance(value, str) and holds in ("integer", "floating", "mixed-integer-float", "decimal"):
        hint = "numbers: write it without quotes"
    elif not isinstance(value, str) and holds == "string":
        hint = "texts: write it in quotes"
    elif equal and holds in ("datetime64", "datetime"):
        hint = "times: say from when with >=, and until when with <"
    else:
        return
    raise UserError(f"config: {key}: {expression!r} cannot be worked out: {value!r}: {values.name!r} holds {hint}")


def _plain(values: pd.Series, with_text: bool) -> pd.Series:
    """A column whose missing values are NaN: they compare as the docstring of `selected_mask` says.

    Identifiers are texts where they are compared `with_text`, else numbers where all of them are such.
    """
    kinds = pd.api.types
    if values.name in ("subject_id", "study_id"):
        values = values.astype("string")
        if not with_text and values.dropna().str.fullmatch(r"0|[1-9]\d*").all():
            values = values.astype(object).map(int, na_action="ignore")
    elif kinds.is_bool_dtype(values) and not values.isna().any():
        return values.astype(bool)
    elif kinds.is_integer_dtype(values) and not values.between(-EXACT, EXACT).fillna(True).all():
        values = values.astype(object)  # Python's own, of any length
    elif kinds.is_numeric_dtype(values) and not kinds.is_bool_dtype(values):
        return pd.Series(values.to_numpy(np.float64, na_value=np.nan), index=values.index, name=values.name)
    elif kinds.infer_dtype(values) == "date":
        values = pd.to_datetime(values, errors="coerce")
    return values if kinds.is_datetime64_any_dtype(values) else values.astype(object).where(values.notna(), np.nan)


def check_joins(folders: Mapping[str, Unit], tables: Tables) -> None:
    """Raise `UserError` if a table that decides the selection has a row for no file of the `folders`."""
    for one in join_tables(listed_files(folders), selection.used(tables), selection.selecting(tables))[1]:
        if one.error:
            raise UserError(one.error)


def depends_on_others(tables: Tables) -> bool:
    """Whether what tables say of one unit's files depends on those of others: studies that patients may share."""
    by_study = [table for table in tables.all if table.by == "study"]
    return "{study}" in (tables.layout or "") and any(
        KEY_COLUMNS["patient"] not in selection.header(table) for table in by_study
    )


def wanted_keys(manifests: Mapping[str, Path], tables: Tables) -> tuple[dict[str, set[str]], list[Join]]:
    """Of each folder, the keys of those of its converted clips that the configuration selects.

    And how the tables that decide it went onto the folders' converted clips.
    """
    frame, joins = join_tables(files_table(manifests), selection.used(tables), selection.selecting(tables))
    for one in joins:
        print(one, flush=True)
    converted = frame["status"].isin(CLIPS).to_numpy()
    chosen = frame[selected_mask(frame, tables.select) & converted]
    keys: dict[str, set[str]] = {folder: set() for folder in manifests}
    keys |= {str(folder): set(group) for folder, group in chosen.groupby("folder")["mp4"]}
    return keys, [replace(join, found=join.found[converted]) for join in joins]
