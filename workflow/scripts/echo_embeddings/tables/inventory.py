"""The record list against the disk: which files are listed and not there, and the reverse."""

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..collection.units import Share, Unit, files_of, owner
from ..core.errors import UserError
from ..core.files import atomic_write
from ..core.names import decode_name, encode_name
from ..core.settings import Table
from ..dicom.mark import has_dicom_mark
from .identity import places
from .join import clip_names, read_table

NO_FOLDER = "(in no folder)"
NOT_FOUND, NOT_LISTED, REPEATED = "listed, not on the disk", "on the disk, not listed", "listed more than once"
COUNTS = ["listed", "listed_unseen", "seen_unlisted", "repeated"]


def differences_of(summary: Path) -> Path:
    """The table of names beside the counts; no rule declares it, so it outlives the failure it explains."""
    return summary.with_name("differences.tsv")


def check(
    record_list: Table, folders: Mapping[str, Unit], summary: Path, *, everything: bool, require_complete: bool
) -> None:
    """Compare the record list with the files of the folders, and write counts by folder at `summary`, and names.

    A file is listed if a path of the list names it (see `join.clip_names`). Of the disk only DICOM count. Unless
    the folders are `everything` there is, files listed below none of them are not missed. Raises `UserError` if the
    list cannot be read, or where they differ and `require_complete`.
    """
    differences, listed = compare(record_list, folders, everything)
    counts = pd.DataFrame(
        {
            "listed": listed,
            **{
                name: differences.loc[differences["what"] == what, "folder"].value_counts()
                for name, what in zip(COUNTS[1:], (NOT_FOUND, NOT_LISTED, REPEATED), strict=True)
            },
        },
        index=[*folders, *([NO_FOLDER] if NO_FOLDER in {*listed.index, *differences["folder"]} else [])],
        columns=COUNTS,
    )
    counts = counts.fillna(0).astype(int).rename_axis("folder")
    names = differences_of(summary)
    with atomic_write(names) as part:
        differences.to_csv(part, sep="\t", index=False)
    total = counts.sum()
    sentence = (
        f"{record_list.file} lists {total['listed']:,} files: {total['listed_unseen']:,} of them are not on the disk, "
        f"{total['seen_unlisted']:,} files of the disk are not listed"
    )
    print(f"{sentence}; {total['repeated']:,} are listed more than once; their names: {names}", flush=True)
    print(counts.to_string(), flush=True)
    if require_complete and (total["listed_unseen"] or total["seen_unlisted"]):
        raise UserError(f"{sentence}; their names are in {names}. Fetch what is missing, or unset require_complete")
    with atomic_write(summary) as part:
        counts.to_csv(part, sep="\t")


def compare(record_list: Table, folders: Mapping[str, Unit], everything: bool) -> tuple[pd.DataFrame, pd.Series]:
    """The files that differ (columns `folder`, `path`, `what`), and how many are listed, by folder."""
    content, _ = read_table(record_list, [])
    paths = content[record_list.key].dropna()
    found = pd.DataFrame(
        [(unit.name, encode_name(path)) for unit, paths in files_of(folders.values()).items() for path in paths],
        columns=["folder", "path"],
    )
    divided = any(isinstance(unit, Share) for unit in folders.values())
    folder, in_folder = places(found, divided)
    full = in_folder.where(folder == "", folder + "/" + in_folder)
    rows = pd.DataFrame({"path": paths, "key": clip_names(paths, folder.unique() if divided else folders)})
    # A path that names no folder counts for every file that it fits.
    units = dict(zip([*in_folder, *full], [*found["folder"]] * 2, strict=True))
    rows["folder"] = [units.get(key) or owner(folders, key) or NO_FOLDER for key in rows["key"]]
    if not everything:
        rows = rows[rows["folder"] != NO_FOLDER]
    twice = rows["key"].duplicated()
    once, known = rows[~twice], set(rows["key"])
    unlisted = found[~full.isin(known).to_numpy() & ~in_folder.isin(known).to_numpy()]
    dicom = [
        _is_dicom(folders[folder], path) for folder, path in zip(unlisted["folder"], unlisted["path"], strict=True)
    ]
    there = set(full) | set(in_folder)
    differences = pd.concat(
        [
            once[~once["key"].isin(there)].assign(what=NOT_FOUND),
            unlisted[dicom].assign(what=NOT_LISTED),
            rows[twice].assign(what=REPEATED),
        ]
    )
    return differences[["folder", "path", "what"]], once["folder"].value_counts()


def _is_dicom(folder: Unit, path: str) -> bool:
    try:
        return has_dicom_mark(os.path.join(folder.path, decode_name(path)))
    except OSError:  # its row in the manifest says why
        return True
