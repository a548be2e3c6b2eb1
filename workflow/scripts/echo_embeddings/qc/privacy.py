"""A report that names nothing and nobody: folders by short hashes, as files are; no paths, no host."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import pandas as pd

from .base import hashed
from .provenance import SHARED, Provenance
from .tables import NO_FOLDER, FolderFiles

HIDDEN = "hidden (qc.hash_names)"
# What a run record may say: neither where it was made nor from which files.
SAID = (*SHARED, "weights", "finished", "seconds", "clips_per_second", "counts")
WORD = re.compile(r"[^\s'\"(),;]+")


def hide(
    folders: Mapping[str, FolderFiles],
    files: pd.DataFrame,
    clips: pd.DataFrame,
    origin: Provenance,
    tables: Sequence[str],
) -> tuple[dict[str, FolderFiles], pd.DataFrame, pd.DataFrame, Provenance, list[str]]:
    """What a report is made of, with folders called by their hashes and sentences without names.

    Files and clips keep their names: whatever shows one calls it by `Options.naming`.
    """
    names = {part for path in files["path"].unique() for part in PurePath(path).parts} | {*folders}
    names |= {PurePath(name).stem for name in names}
    files, clips = files.copy(), clips.copy()
    files["folder"] = files["folder"].map(hashed)
    for column in ("reason", "embed_reason"):
        quiet = {text: without_names(text, names) for text in files[column].dropna().unique()}
        files[column] = files[column].map(quiet)
    clips["folder"] = clips["folder"].map(lambda name: name if name == NO_FOLDER else hashed(name))
    clips["group"] = clips["group"].map(hashed)
    runs = {hashed(folder): _record(run, names) for folder, run in origin.runs.items()}
    shared = {
        field: {_value(field, value, names): [hashed(n) for n in of] for value, of in values.items()}
        for field, values in origin.shared.items()
    }
    notes = [without_names(note, names) for note in origin.notes]
    hidden = replace(origin, runs=runs, shared=shared, notes=notes)
    said = [without_names(sentence, names) for sentence in tables]
    return {hashed(name): of for name, of in folders.items()}, files, clips, hidden, said


def without_names(text: str, names: Collection[str] = ()) -> str:
    """The text with a hash in place of each path, and of each of the `names` of files and directories."""
    return WORD.sub(lambda m: hashed(m[0]) if "/" in m[0] or m[0].rstrip(":.") in names else m[0], text)


def _record(run: Mapping[str, Any] | None, names: set[str]) -> dict[str, Any] | None:
    if run is None:
        return None
    return {field: _value(field, run[field], names) for field in SAID if field in run}


def _value(field: str, value: Any, names: set[str]) -> Any:
    if field == "checkpoint" and isinstance(value, str):
        return PurePath(value).name
    return without_names(value, names) if isinstance(value, str) else value
