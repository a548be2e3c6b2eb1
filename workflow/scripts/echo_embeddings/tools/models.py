"""The model registry as a table: which checkpoints are there, which are missing, and what each costs a clip."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core import settings
from ..core.registry import origin, place
from ..encoders import kinds
from ..encoders.architectures import architecture

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
    size = architecture(model.constructor, model.family)
    tflop = model.recipe.clips_per_video * size.flop(model.num_frames, model.resolution) / 1e12
    path = place(config, entry)
    return (
        name,
        size.family.name,
        entry["constructor"],
        str(entry["resolution"]),
        str(entry["embed_dim"]),
        entry["recipe"],
        f"{tflop:.2f}",
        ", ".join(entry["pretrained_on"]) or "not stated",
        entry["license"] or "not stated",
        _there(path, entry),
    )


def _there(path: Path, entry: Mapping[str, Any]) -> str:
    """The checkpoint and its size; or where it comes from, or why what lies there is none."""
    if kinds.absent(path):
        return f"missing: {origin(entry)}"
    reason = kinds.refusal(path)
    return f"{path}: {reason}" if reason else f"{path} ({path.stat().st_size / 1e9:.1f} GB)"
