"""What the stages left behind, read: manifests, run records, lists of failed clips."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..core import manifest
from ..core.errors import UserError
from ..core.layout import Layout
from ..core.names import one_line
from ..core.settings import Tables
from ..tables import identity, selection
from ..tables.join import Join, files_table, join_tables, selected_mask
from ..tables.selection import IDENTITY

NO_FOLDER = "(in no manifest)"
UNKNOWN = "unknown"
USED = ["path", "mp4", "status", "reason", "frames", "manufacturer", "manufacturer_model_name", "kind"]


@dataclass(frozen=True)
class FolderFiles:
    """What a folder left behind."""

    manifest: Path  # the ledger of its conversion
    tree: Path  # its MP4 files, or DICOM where none are made
    run: Path  # the run record of its embedding, JSON; may be absent
    failed: Path  # columns `key` and `reason`, tab-separated; absent means that no clip failed


def folder_files(layout: Layout, model: str, clips: str, trees: Mapping[str, Path]) -> dict[str, FolderFiles]:
    """What the folders left behind; `trees` are their clips, which lie as `clips` of `Layout` says."""
    return {
        folder: FolderFiles(
            manifest=layout.manifest(clips, folder),
            tree=tree,
            run=layout.run_record(model, folder),
            failed=layout.failed_clips(model, folder),
        )
        for folder, tree in trees.items()
    }


def read_files(
    folders: Mapping[str, FolderFiles], prefix_folder: bool, known: Tables
) -> tuple[pd.DataFrame, list[Join]]:
    """Every file of every folder, one row each; and how the tables that decide the selection went onto the clips.

    Columns: `folder`, `group` (see `clips`), those of `USED`, `fps`, `subject_id` and `study_id` (text, or missing),
    `key` (as in the merged file: empty unless a clip), `left_out` (a clip, and not selected) and `embed_reason` (why it
    was not embedded, NaN where it is not listed as failed).
    """
    if not folders:
        return pd.DataFrame(
            columns=["folder", "group", *USED, "fps", *IDENTITY, "key", "left_out", "embed_reason"], dtype=object
        ), []
    frame = files_table({folder: files.manifest for folder, files in folders.items()})
    deciding = {*selection.selecting(known), *IDENTITY}
    frame, joins = join_tables(frame, selection.used(known, identities=True), deciding)
    for join in joins:
        print(join, flush=True)
    frame["group"] = identity.places(frame, known.divided)[0]
    converted = frame["status"].isin(manifest.CLIPS).to_numpy()
    selecting = selection.used(known).all
    joins = [replace(join, found=join.found[converted]) for join in joins if join.table in selecting]
    for join in joins:
        if join.is_thin:
            print(f"note: {join.coverage('clips')}", flush=True)
    frame["left_out"] = converted & ~selected_mask(frame, known.select)
    tables = [
        _read_folder(folder, files, prefix_folder, frame[frame["folder"] == folder])
        for folder, files in folders.items()
    ]
    return pd.concat(tables, ignore_index=True), joins


def _read_folder(folder: str, files: FolderFiles, prefix_folder: bool, table: pd.DataFrame) -> pd.DataFrame:
    prefix = f"{folder}/" if prefix_folder else ""
    table = table[["folder", "group", *USED, "fps", *IDENTITY, "left_out"]].reset_index(drop=True)
    table["folder"] = folder
    table["frames"] = table["frames"].fillna(0).astype(int)
    table[USED] = table[USED].fillna("").astype({name: object for name in USED if name != "frames"})
    table[[*IDENTITY]] = table[[*IDENTITY]].astype("string").astype(object)
    # The other file of a collision is named in the manifest: here it would make a reason of its own of each, and tell a
    # name where names are to be hidden.
    table["reason"] = table["reason"].str.replace("^name collision with .*", "name collision", regex=True)
    table["key"] = np.where(table["mp4"] != "", prefix + table["mp4"], "")
    failed = {prefix + key: reason for key, reason in read_failed(files.failed).items()}
    table["embed_reason"] = table["key"].map(failed)
    strange = sorted(failed.keys() - set(table["key"]))
    if strange:  # listed as failed, but of no manifest row: it must not vanish from the sums
        lines = {"folder": folder, "key": strange, "embed_reason": [failed[key] for key in strange]}
        table = pd.concat([table, pd.DataFrame(lines)], ignore_index=True)
        table["frames"] = table["frames"].fillna(0)
        table["left_out"] = table["left_out"].eq(True)
        table[USED] = table[USED].fillna("")
    return table


def read_failed(path: Path) -> dict[str, str]:
    """Key -> reason, of the clips that could not be embedded. Raises `UserError` if it is no such table."""
    if not path.exists():
        return {}
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=3)
        return dict(zip(table["key"], table["reason"], strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a table with the columns key and reason: {one_line(error)}") from error


def clips(keys: list[str], files: pd.DataFrame) -> pd.DataFrame:
    """What is known of the N vectors, one row each, in the order of `keys`.

    Columns: `key`, `path`, `mp4` and `status` (as in the manifest), `folder` (`NO_FOLDER` where no manifest has it),
    `group` (the folder; of a divided collection the first directory), `patient` and `study` (`UNKNOWN` where nothing
    says it, see `identity.decide`; two patients' studies of one number are two), `device` (its maker and model name),
    `kind` (as in the manifest), `frames` (0 where not known) and `file` (its row in `files`, -1 for none). A key that
    two folders have belongs to the one where it did not fail.
    """
    converted = files[files["status"].isin(manifest.CLIPS)]
    if converted["key"].duplicated().any():
        converted = converted.sort_values("embed_reason", na_position="first", kind="stable", key=pd.Series.notna)
        converted = converted.drop_duplicates("key")
    found = converted.assign(file=converted.index).set_index("key").reindex(keys)
    table = pd.DataFrame({"key": pd.Series(keys, dtype=str), "folder": found["folder"].fillna(NO_FOLDER).to_numpy()})
    for name in ("path", "mp4", "status", "group"):
        table[name] = found[name].fillna("").to_numpy()
    table["patient"] = found["subject_id"].fillna(UNKNOWN).to_numpy()
    table["study"] = (found["subject_id"] + "/" + found["study_id"]).fillna(UNKNOWN).to_numpy()
    device = found["manufacturer"].fillna("") + " " + found["manufacturer_model_name"].fillna("")
    table["device"] = device.str.strip().replace("", UNKNOWN).to_numpy()
    table["kind"] = found["kind"].replace("", UNKNOWN).fillna(UNKNOWN).to_numpy()
    table["frames"] = found["frames"].fillna(0).astype(int).to_numpy()
    table["file"] = found["file"].fillna(-1).astype(int).to_numpy()
    return table
