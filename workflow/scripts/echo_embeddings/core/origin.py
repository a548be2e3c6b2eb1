"""How the vectors of an embedding file were made, as the `.json` file beside it says; of merged files too."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .files import atomic_write
from .fingerprint import prefix
from .recipe import Recipe
from .state import read_json, read_run_record

SHORT = "short_fingerprint"
# What recipes were before they had these keys.
NEUTRAL = {
    one.name: list(neutral) if isinstance(neutral := one.metadata["neutral"], tuple) else neutral  # as in a record
    for one in dataclasses.fields(Recipe)
    if "neutral" in one.metadata
}
# What decides a vector besides its MP4, in words; in the order in which differences matter most.
DECIDES = {
    "checkpoint_sha256": "checkpoint",
    "entry": "entry (checkpoint key)",
    "family": "family",
    "constructor": "constructor",
    "code": "file of the encoder",  # of family python
    "resolution": "size",
    "recipe": "recipe",
    "num_frames": "frames",
    "precision": "precision",
}


def short_fingerprint(fingerprint: str, digest: str) -> str:
    """16 hexadecimal digits that are equal for vectors of one model, its settings and checkpoint, and for no others.

    `fingerprint` is the model's, `digest` the SHA-256 of its checkpoint. The files of `results/state/` begin with it.
    """
    return prefix(f"{fingerprint} {digest}")


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a run record says of `DECIDES` and the short fingerprint, which records of earlier versions do not name."""
    found = {name: record[name] for name in (SHORT, "model", *DECIDES) if record.get(name) is not None}
    if isinstance(found.get("recipe"), Mapping):
        found["recipe"] = NEUTRAL | found["recipe"]
    if SHORT not in found and {"fingerprint", "checkpoint_sha256"} <= record.keys():
        found[SHORT] = short_fingerprint(record["fingerprint"], record["checkpoint_sha256"])
    return found


def of_records(records: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """What all the run records agree on; empty if one is absent (None), or there are none."""
    found = [of_record(record) if record is not None else {} for record in records]
    return {name: value for name, value in (found or [{}])[0].items() if all(one.get(name) == value for one in found)}


def write_merged(parts: Mapping[str, Path], merged: Path) -> None:
    """Write beside the file `merged` what the records beside its `parts` (folder -> file) agree on."""
    records = {folder: read_run_record(part.with_suffix(".json")) for folder, part in parts.items()}
    content = of_records(records.values()) | {"folders": list(parts)}
    with atomic_write(merged.with_suffix(".json")) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")


def beside(vectors: Path) -> dict[str, Any]:
    """What the file beside the embedding file `vectors` says; empty if there is none, or it says nothing of these."""
    try:
        return of_record(read_json(vectors.with_suffix(".json")))
    except (OSError, ValueError, RecursionError):  # vectors of others may lie beside any file
        return {}


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What two origins say differently: in words what it is, and both values. What one does not say is left out."""
    found = {}
    for name, words in DECIDES.items():
        if name in first and name in second and _comparable(first[name]) != _comparable(second[name]):
            both = (in_words(name, first[name]), in_words(name, second[name]))
            found[words] = both if both[0] != both[1] else _apart(first[name], second[name])
    return found


def _apart(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, str]:
    """Two recipes of one name, with what they say differently."""
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    said = (", ".join(f"{key}: {one.get(key, 'not said')}" for key in keys) for one in (first, second))
    a, b = (f"{one.get('name')} ({words})" for one, words in zip((first, second), said, strict=True))
    return a, b


def _comparable(value: Any) -> Any:
    """A value without the name of a recipe, which decides nothing."""
    if not isinstance(value, Mapping):
        return value
    return {key: part for key, part in value.items() if key != "name"}


def in_words(name: str, value: Any) -> str:
    """The value of `name`, one of `DECIDES`, as people tell it from another."""
    if isinstance(value, Mapping):
        return str(value.get("name", "without a name"))
    return f"{str(value)[:12]}.." if name in ("checkpoint_sha256", "code") else str(value)
