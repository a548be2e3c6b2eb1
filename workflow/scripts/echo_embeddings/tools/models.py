"""The model registry as a table: which checkpoints are there, which are missing, and what each costs a clip."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core import settings
from ..core.registry import origin, place
from ..encoders import contract, kinds

HEADER = (
    "model",
    "family",
    "size",
    "pixels",
    "vector",
    "recipe",
    "TFLOP/clip",
    "pretrained on",
    "licence",
    "commercial use",
    "checkpoint",
)


def table(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a model of `registry`; a missing checkpoint says where it comes from."""
    rows = [HEADER, *(_row(config, registry, name) for name in registry)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER) - 1)]
    lines = ["  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in rows]
    there = sum(not kinds.refusal(place(config, entry)) for entry in registry.values())
    return "\n".join([*lines, f"{there} of {len(registry)} checkpoints are there"])


def _row(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]], name: str) -> tuple[str, ...]:
    entry, model = registry[name], settings.model(config, registry, name)
    size = contract.size(model)
    path = place(config, entry)
    return (
        name,
        contract.FAMILIES[model.family].title,
        entry["constructor"] or "-",
        str(entry["resolution"]),
        str(entry["embed_dim"]),
        entry["recipe"],
        f"{model.recipe.clips_per_video * size.flop / 1e12:.2f}" if size else "unknown",
        ", ".join(entry["pretrained_on"]) or "not stated",
        entry["license"] or "not stated",
        allows(entry),
        _there(path, entry),
    )


def allows(entry: Mapping[str, Any]) -> str:
    """Whether the licence of an entry's weights allows commercial use, in a word or two."""
    return {True: "yes", False: "no", None: "not stated"}[entry["commercial"]]


def _there(path: Path, entry: Mapping[str, Any]) -> str:
    """The checkpoint and its size; or where it comes from, or why what lies there is none."""
    if kinds.absent(path):
        return f"missing: {origin(entry)}"
    reason = kinds.refusal(path)
    return f"{path}: {reason}" if reason else f"{path} ({path.stat().st_size / 1e9:.1f} GB)"
