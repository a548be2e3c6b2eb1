"""The model registry as a table: which checkpoints are there, which are missing, and what each costs a clip.

What it says of a model the index page and the data set card repeat.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core import settings
from ..core.registry import origin, place
from ..encoders import contract, kinds

FACTS = ("family", "input", "licence", "commercial use")
HEADER = ("model", "family", "size", "input", "vector", "TFLOP/clip", "pretrained on", *FACTS[2:], "checkpoint")


def table(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a model of `registry`; a missing checkpoint says where it comes from."""
    rows = [HEADER, *(_row(config, registry, name) for name in registry)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER) - 1)]
    lines = ["  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in rows]
    there = sum(not kinds.refusal(place(config, entry)) for entry in registry.values())
    return "\n".join([*lines, f"{there} of {len(registry)} checkpoints are there"])


def facts(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, str]:
    """What is to be known of a model before its vectors are used: `FACTS`, in a few words each."""
    entry, model = registry[name], settings.model(config, registry, name)
    said = (
        contract.FAMILIES[model.family].title,
        f"{model.num_frames} x {model.resolution} x {model.resolution}, {model.recipe.name}",
        entry["license"] or "not stated",
        {True: "yes", False: "no", None: "not stated"}[entry["commercial"]],
    )
    return dict(zip(FACTS, said, strict=True))


def _row(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]], name: str) -> tuple[str, ...]:
    entry, model = registry[name], settings.model(config, registry, name)
    size, known = contract.size(model), facts(config, registry, name)
    cells = {
        "model": name,
        "size": entry["constructor"] or "-",
        "vector": str(entry["embed_dim"]),
        "TFLOP/clip": f"{model.recipe.clips_per_video * size.flop / 1e12:.2f}" if size else "unknown",
        "pretrained on": ", ".join(entry["pretrained_on"]) or "not stated",
        "checkpoint": _there(place(config, entry), entry),
    }
    return tuple((cells | known)[column] for column in HEADER)


def _there(path: Path, entry: Mapping[str, Any]) -> str:
    """The checkpoint and its size; or where it comes from, or why what lies there is none."""
    if kinds.absent(path):
        return f"missing: {origin(entry)}"
    reason = kinds.refusal(path)
    return f"{path}: {reason}" if reason else f"{path} ({path.stat().st_size / 1e9:.1f} GB)"
