"""The record of how a folder's vectors were made, which lies beside them."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..core import fingerprint, origin, state
from ..core.files import atomic_write
from ..core.manifest import Row
from ..core.package import repository
from ..core.recipe import NOMINAL_FPS, Recipe
from ..core.settings import Model
from ..encoders import checkpoint, contract
from .sampling import rate_of

# Keys of the record that say where and how fast the vectors were made.
SPEED = ("device", "batch_size", "compiled", "clips_per_second", "seconds_waiting_for_clips")
SIZES = 10  # of frames, or rates, that a record names
PACKAGES = (
    *("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "imageio-ffmpeg", "pydicom", "imagecodecs"),
    "snakemake",
)


def write(
    path: Path,
    model: Model,
    weights: Path,
    digest: str,
    rows: Sequence[Row],
    counts: Mapping[str, int],
    seconds: float,
    speed: Mapping[str, object],
    features: Mapping[str, object] | None,
) -> None:
    """Write the record to `path`.

    `weights` is the checkpoint and `digest` its SHA-256. `rows` are those of the clips that have vectors. `speed` has
    the keys `SPEED`; it is empty if all vectors were there already. `features` describes what is kept besides the
    vectors; None if nothing is.
    """
    record = {
        **{key: value for key, value in dataclasses.asdict(model).items() if key != "name"},
        "fingerprint": model.fingerprint(),
        origin.SHORT: origin.short_fingerprint(model.fingerprint(), digest),
        "model": model.name,
        "checkpoint_sha256": digest,
        "checkpoint": str(weights),
        "weights": checkpoint.note(weights),
        "preprocessing": contract.says(model),
        "features": features,
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        **(speed or _speed_before(path, model, digest)),
        "read": sizes(rows, model),
        "rates": rates(rows, model.recipe),
        "counts": counts,
    }
    with atomic_write(path) as part:
        part.write_text(json.dumps(record, indent=2) + "\n")


def sizes(rows: Iterable[Row], model: Model) -> dict[str, int]:
    """How many of the clips have frames of which size, height x width in pixels; the most frequent ones by name."""
    made, own = f"{model.resolution} x {model.resolution}", model.recipe.own_pixels and model.recipe.source == "dicom"
    return _most(Counter(f"{row.rows} x {row.columns}" if row.is_video or own else made for row in rows))


def rates(rows: Iterable[Row], recipe: Recipe) -> dict[str, int]:
    """How many of the clips were sampled by which rate, frames a second; empty where `recipe` goes by none."""
    if not recipe.by_rate:
        return {}
    found = (rate_of(row, recipe) for row in rows)
    return _most(Counter(f"{rate:.6g}" if rate else f"{NOMINAL_FPS}, assumed: none is stated" for rate in found))


def _most(found: Counter[str]) -> dict[str, int]:
    """The most frequent ones by name, and how many others there are."""
    named = dict(found.most_common(SIZES))
    others = found.total() - sum(named.values())
    return named | ({"others": others} if others else {})


def _speed_before(path: Path, model: Model, digest: str) -> dict[str, object]:
    """Device and speed from an earlier record, if that is about the same vectors."""
    before = state.load(path, state.read_json)
    if before is None:
        return {}
    of = before["fingerprint"] if "fingerprint" in before else fingerprint.record_0_1_0(before)
    same = of in {model.fingerprint(), *fingerprint.model_0_1_0(model)} and before.get("checkpoint_sha256") == digest
    return {key: before[key] for key in SPEED if key in before} if same else {}


def _versions() -> dict[str, str]:
    """The versions of the packages that make a vector, where they are installed under their usual names."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _commit() -> str | None:
    """The commit of the workflow; None where it is no git checkout or git is not installed."""
    clone = repository()
    if clone is None:
        return None
    # The clone may be another user's, root's say, of which git says nothing unless told that it is safe. It is as safe
    # as the code that runs here, which comes from there.
    git = ["git", "-c", "safe.directory=*", "-C", os.fspath(clone)]
    try:
        result = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
