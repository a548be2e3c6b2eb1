"""Whose a file is: its patient (`subject_id`) and its study (`study_id`), from the first source that says it.

The sources are, in this order: the record list; other tables by path that have these columns; the configuration's
`layout`; names like MIMIC-IV-Echo's; and what the manifest keeps of the DICOM header, which are keyed hashes. Joins,
selections, exports, study vectors and quality pages all have their answer from `decide`, by way of `join_tables`.
"""

import functools
import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..collection.kinds import VIDEOS
from ..core.pattern import PathPattern
from ..core.settings import Table, Tables
from .selection import IDENTIFIERS, IDENTITY

# As MIMIC-IV-Echo names patient, study and file.
MIMIC_PATH = r"(?:^|/)p(?P<subject_id>\d+)/s(?P<study_id>\d+)/(?P<dicom_id>[^/]+)$"
SUFFIX = rf"\.(?:dcm|{'|'.join(suffix[1:] for suffix in VIDEOS)})$"  # in any case: by it no name differs
FIELDS = {"subject_id": "patient", "study_id": "study"}  # of a layout
HASHES = {"subject_id": "patient_id_hash", "study_id": "study_instance_uid_hash"}  # of a manifest


def decide(
    frame: pd.DataFrame, tables: Tables, said: Mapping[Table, pd.DataFrame]
) -> tuple[dict[str, pd.Series], dict[Table, list[str]]]:
    """`subject_id` and `study_id` of each file of `frame` (see `join.files_table`), missing where nothing says it.

    `said` are the answers of tables by path, those that count most first: of each file a row, with one of the columns
    or both. Also returns a sentence of each table that contradicts what would count without it. Numbers, where all
    are such of at most 18 digits, else text.
    """
    answers, notes = {}, {table: list[str]() for table in said}
    of_layout = _of_layout(below(frame, tables), tables)
    for name in IDENTITY:
        answer = of_layout[name].fillna(frame[name].astype("string"))
        for table in reversed([*said]):
            found = said[table]
            if name in found:
                theirs = identifier(found[name])
                differ = int((comparable(theirs) != comparable(answer)).fillna(False).sum())
                if differ:
                    notes[table].append(f"{differ:,} files have another {name} by path: that of the table counts")
                answer = theirs.fillna(answer)
        if HASHES[name] in frame:
            answer = answer.fillna(frame[HASHES[name]])
        answers[name] = _written_alike(answer)
    return answers, notes


def of_paths(frame: pd.DataFrame, tables: Tables) -> dict[str, pd.Series]:
    """`subject_id`, `study_id` and `dicom_id` of files by `folder` and `path` alone: missing where these do not say."""
    mimic = _of_mimic(below(frame, tables))
    of_layout = _of_layout(below(frame, tables), tables)
    found = {name: as_numbers(of_layout[name].fillna(mimic[name])) for name in IDENTITY}
    return found | {"dicom_id": mimic["dicom_id"]}


def laid_out(frame: pd.DataFrame, tables: Tables) -> npt.NDArray[np.bool_]:
    """For each file, whether the configuration's layout says its patient."""
    return _of_layout(below(frame, tables), tables)["subject_id"].notna().to_numpy()


def of_names(paths: pd.Series, tables: Tables) -> dict[str, pd.Series]:
    """`subject_id` and `study_id` by the names of files alone that need not be there (see `join.clip_names`)."""
    mimic, of_layout = _of_mimic(paths), _of_layout(paths, tables)
    return {name: of_layout[name].fillna(mimic[name]) for name in IDENTITY}


def fold_of(patient: str, seed: int, folds: int) -> int:
    """The fold of a patient, whatever others there are: a hash."""
    return int(hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()[:16], 16) % folds


def below(frame: pd.DataFrame, tables: Tables) -> pd.Series:
    """The paths of files below the collection's directory, without `SUFFIX`."""
    folder, path = places(frame, tables.divided)
    return path.where(folder == tables.direct, folder + "/" + path)


def places(frame: pd.DataFrame, divided: bool) -> tuple[pd.Series, pd.Series]:
    """The folder of each file, "" for none, and its path there, without `SUFFIX`.

    Where the collection is `divided`, the column `folder` holds units, and the folder is the first directory.
    """
    stems = stem(frame["path"])
    if not divided:
        return frame["folder"], stems
    parts = stems.str.extract(r"^(?:([^/]*)/)?(.*)$")
    return parts[0].fillna(""), parts[1]


def _of_layout(paths: pd.Series, tables: Tables) -> dict[str, pd.Series]:
    """What the configuration's layout finds in paths (see `below`), by column."""
    if not tables.layout:
        return {name: pd.Series(pd.NA, paths.index, "string") for name in IDENTITY}
    pattern = PathPattern(tables.layout)
    return {
        name: identifier(paths.map(functools.partial(pattern.value, field), na_action="ignore"))
        for name, field in FIELDS.items()
    }


def _of_mimic(paths: pd.Series) -> dict[str, pd.Series]:
    """What paths say that have MIMIC-IV-Echo's form, by column."""
    parts = paths.str.extract(MIMIC_PATH)
    return {name: parts[name] if name == "dicom_id" else comparable(parts[name]) for name in IDENTIFIERS}


def stem(paths: pd.Series) -> pd.Series:
    """Paths without `SUFFIX`."""
    return paths.str.replace(SUFFIX, "", regex=True, case=False)


# --- identifiers ------------------------------------------------------------------------------------


def identifier(values: pd.Series) -> pd.Series:
    """Patients or studies as text: numbers without the p or s of a path, or the .0 of a column with gaps."""
    return _replaced(values, r"^\s+|\s+$", r"^[ps](?=\d+$)", r"(?<=\d)\.0$")


def comparable(values: pd.Series) -> pd.Series:
    """Identifiers as they compare: without the zeros, too, that some programs put before a number."""
    return _replaced(identifier(values), r"^0+(?=\d+$)")


def _replaced(values: pd.Series, *patterns: str) -> pd.Series:
    """Values as text without what matches the patterns. Each is looked at once: a study has many files."""
    places, found = pd.factorize(values)
    text = pd.Series(found).astype("string")
    for pattern in patterns:
        text = text.str.replace(pattern, "", regex=True)
    return text.reindex(places).set_axis(values.index)


def as_numbers(values: pd.Series) -> pd.Series:
    """Int64 where every value is a whole number as one writes it, and Int64 holds it; else text."""
    found = pd.Series(values.dropna().unique()).astype("string")
    return values.astype("Int64") if found.str.fullmatch(r"0|[1-9]\d{0,17}").all() else values


def _written_alike(values: pd.Series) -> pd.Series:
    """Numbers, or text in which each identifier is written in one way: 007 of one source and 7 of another are one."""
    numbers = as_numbers(values)
    return numbers if numbers.dtype == "Int64" else values.groupby(comparable(values)).transform("first")


def shared(frame: pd.DataFrame) -> pd.DataFrame:
    """The pairs of `subject_id` and `study_id` whose study is that of another patient, too: each has a study 1, say."""
    pairs = frame[[*IDENTITY]].dropna().drop_duplicates().apply(comparable).drop_duplicates()
    return pairs[pairs["study_id"].duplicated(keep=False)].sort_values([*reversed(IDENTITY)])
