"""A report that names nothing and nobody: folders by short hashes, as files are; no paths, no host."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import pandas as pd
from pydicom.datadict import tag_for_keyword

from .base import hashed
from .provenance import SHARED, Provenance
from .tables import NO_FOLDER, FolderFiles

HIDDEN = "hidden (qc.hash_names)"
# What a run record may say: neither where it was made nor from which files.
SAID = (*SHARED, "weights", "finished", "seconds", "clips_per_second", "counts")
CUT = "…"
# Words that reasons are made of, besides DICOM keywords and plain lower-case ones; all others may be names.
WORDS = {
    "DICOM",
    "MP4",
    "JPEG",
    "JPEG-LS",
    "JPEG-2000",
    "RLE",
    "RGB",
    "MPEG-2",
    "MPEG-4",
    "H.264",
    "HEVC",
    "NaN",
    "Inf",
}


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
    paths = [*files["path"].unique(), *files["mp4"].unique(), *folders]
    names = {word.lower() for path in paths for word in re.findall(r"[^\W\d_]+", str(path))}
    files, clips = files.copy(), clips.copy()
    files["folder"] = files["folder"].map(hashed)
    for column in ("reason", "embed_reason"):
        files[column] = files[column].map(
            {text: without_names(text, names) for text in files[column].dropna().unique()}
        )
    clips["folder"] = clips["folder"].map(lambda name: name if name == NO_FOLDER else hashed(name))
    clips["group"] = clips["group"].map(hashed)
    runs = {
        hashed(folder): run and {field: _value(field, run[field]) for field in SAID if field in run}
        for folder, run in origin.runs.items()
    }
    shared: dict[str, dict[str, list[str]]] = {field: {} for field in origin.shared}
    for field, values in origin.shared.items():
        for value, of in values.items():
            shared[field].setdefault(_value(field, value), []).extend(map(hashed, of))
    notes = [without_names(note, names) for note in origin.notes]
    hidden = replace(origin, runs=runs, shared=shared, notes=notes)
    said = [re.sub(r" \([^)]*\)", "", sentence) for sentence in tables]  # the table's file
    return {hashed(name): of for name, of in folders.items()}, files, clips, hidden, said


def without_names(text: str, names: Set[str] = frozenset()) -> str:
    """The text with `CUT` in place of whatever may name somebody: what is neither a plain word nor a short number.

    `names` are words, in lower case, of paths and folders.
    """
    return " ".join(part if _is_plain(part, names) else CUT for part in text.split())


def _is_plain(part: str, names: Set[str]) -> bool:
    word = part.strip(".,;:()")
    if re.fullmatch(r"[a-z]+(-[a-z]+)*", word):
        return names.isdisjoint(word.split("-"))
    return bool(re.fullmatch(r"[0-9.,]{0,6}%?", word)) or word in WORDS or tag_for_keyword(word) is not None


def _value(field: str, value: Any) -> Any:
    """What a run record says in `field`, with a hash in place of each path."""
    if isinstance(value, dict):
        return {name: _value(str(name), of) for name, of in value.items()}
    if isinstance(value, list):
        return [_value(field, of) for of in value]
    if isinstance(value, str) and field != "weights":
        return re.sub(r"\S*[/\\]\S*", lambda found: hashed(found[0]), value)
    return without_names(value) if isinstance(value, str) else value
