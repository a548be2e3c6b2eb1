"""How results are recognised: by a digest of what decides them, whatever that is called.

Settings are frozen dataclasses. Each of their fields enters the digest by its name and value, unless its metadata say

    {"term": None}       nothing: the field is a label, which results do not depend on
    {"term": "entry"}    under this name: the field was renamed
    {"neutral": value}   not while it has this value, which stands for what was computed before there was the field.
                         It is written down with the field and never changed, even when the field's default is.

Results of version 0.1.0 are recognised too, by its own digests; the algorithm stands here as it was.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def terms(settings: Any) -> dict[str, Any]:
    """What of the dataclass `settings` decides results, by term; those within it likewise."""
    found = {}
    for field in dataclasses.fields(settings):
        term, value = field.metadata.get("term", field.name), getattr(settings, field.name)
        neutral = "neutral" in field.metadata and value == field.metadata["neutral"]
        if term is not None and not neutral:
            found[term] = terms(value) if dataclasses.is_dataclass(value) else value
    return found


def fingerprint(settings: Any) -> str:
    """The SHA-256 of the terms of the dataclass `settings`: if it is equal, results are interchangeable."""
    return _digest(_plain(terms(settings)))


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """`value` with 30.0 as 30: which of the two a configuration says makes no difference."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# --- files named by what they were made under -----------------------------------------------------------


def prefix(made_by: str) -> str:
    """What the names of files begin with that were made under `made_by`."""
    return hashlib.sha256(made_by.encode()).hexdigest()[:16]


def adopt(directory: Path, made_by: str, earlier: Iterable[str]) -> None:
    """Rename the files in `directory` that were made under one of `earlier`, which means the same as `made_by`."""
    for other in map(prefix, earlier):
        for path in directory.glob(f"{other}-*"):
            path.rename(path.with_name(prefix(made_by) + path.name.removeprefix(other)))


# --- version 0.1.0 --------------------------------------------------------------------------------------

CONVERT_0_1_0 = frozenset({
    "size", "fps", "codec", "quality", "gop", "pixel_format", "scaler_flags", "encoder_options", "modalities",
    "version",
})  # fmt: skip
MODEL_0_1_0 = frozenset({
    "constructor", "resolution", "embed_dim", "entry", "num_frames", "precision", "family", "recipe", "version",
})  # fmt: skip
RECIPE_0_1_0 = frozenset({
    "sampling", "stride", "rate", "clips_per_video", "padding", "mask", "aspect", "crop",
})  # fmt: skip


def convert_0_1_0(settings: Any) -> set[str]:
    """The digests that version 0.1.0 gave these settings of the conversion; none if it could not have done so."""
    found = terms(settings)
    return _digests_0_1_0(found) if found.keys() == CONVERT_0_1_0 else set()


def model_0_1_0(model: Any) -> set[str]:
    """The digests that version 0.1.0 gave this model, its name and its recipe's included; none if it could not."""
    found = terms(model)
    if found.keys() != MODEL_0_1_0 or found["recipe"].keys() != RECIPE_0_1_0:
        return set()
    return _digests_0_1_0(found | {"name": model.name, "recipe": found["recipe"] | {"name": model.recipe.name}})


def record_0_1_0(record: Mapping[str, Any]) -> str:
    """The digest of the model that a run record of version 0.1.0 speaks of."""
    return _digest({term: record.get(term) for term in MODEL_0_1_0} | {"name": record.get("model")})


def _digests_0_1_0(values: dict[str, Any]) -> set[str]:
    """Of 30 and of 30.0, which were told apart."""
    return {_digest(values), _digest(_plain(values))}
