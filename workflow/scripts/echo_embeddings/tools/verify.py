"""One known clip through the whole way, before a full run: its vector against the one that the registry records.

The clip is the cine that the PyPI package pydicom-data carries. A checkpoint that is not the recorded one, and a
recipe, checkpoint key or resolution that is not the one it was recorded with, give another vector. A checkpoint has one
recorded vector, by way of an MP4; straight from the DICOM where the recipe cannot be fed with our MP4 files.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydicom.data import get_testdata_file

from ..collection.kinds import mp4_name
from ..collection.units import Folder
from ..convert.folder import convert_file, read_row
from ..core import manifest, settings
from ..core.errors import UserError
from ..core.layout import DICOM, Layout
from ..core.registry import DIRECT, place
from ..core.settings import Model
from ..embed.folder import ComputeOptions, embed_folder
from ..encoders import checkpoint

FOLDER = "verify"  # the name of the folder that the clip is embedded in
CLIP = "color3d_jpeg_baseline.dcm"  # 120 frames, 480 x 640; in pydicom-data
NUMBERS = 16  # of a vector that are recorded: enough to distinguish vectors, and few enough to read
TOLERANCE = 0.005  # relative; a GPU and a CPU are 1e-5 apart in float32, two recipes several per cent


def verify(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]], name: str, device: str | None) -> str:
    """What is to be said of model `name`; `device` is "cuda", "cpu", or None for a GPU where there is one.

    Raises `UserError` if there is no such model, or its vector is another than the one recorded.
    """
    config = settings.unmasked(config)  # as the vectors were recorded
    if name not in registry:
        raise UserError(f"no model {name!r} in the registry: {', '.join(registry)}")
    model = dataclasses.replace(_by_its_way(config, registry, name.removesuffix(DIRECT)), precision="fp32")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    path = place(config, registry[name])
    digest, found = vector(model, path, config, device, os.cpu_count() or 1)
    unlike = checkpoint.unlike_registry(path, digest, registry[name]["sha256"])
    said = judge(model, digest, found.tolist(), registry[name]["known_vectors"])
    return f"{unlike}\n{said}" if unlike else said


def _by_its_way(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]], usual: str) -> Model:
    """The model, or its `-direct` twin, whichever can be fed with a DICOM that is converted where it is to be."""
    model = settings.model(config, registry, usual)
    return settings.model(config, registry, usual + DIRECT) if settings.unfit(usual, model.recipe, False) else model


def vector(model: Model, weights: Path, config: Mapping[str, Any], device: str, threads: int) -> tuple[str, Any]:
    """The SHA-256 of the checkpoint `weights`, and the clip's vector, float32 [embed_dim]; computed in float32.

    Raises `UserError` if the clip is not there, or for what is wrong with the checkpoint.
    """
    source = get_testdata_file(CLIP, download=False)
    if source is None:
        raise UserError(f"verify: {CLIP} is not there; install pydicom-data (requirements/)")
    with tempfile.TemporaryDirectory() as directory:
        layout, how = _Scratch(Path(directory)), settings.convert_settings(config, model.resolution)
        if model.clips == DICOM:
            tree, made = Path(source).parent, read_row(str(source), CLIP, how.modalities)
        else:
            tree = layout.mp4(model.resolution, FOLDER)
            made = convert_file(str(source), CLIP, tree / mp4_name(CLIP), how)
        manifest.write(layout.manifest(model.clips, FOLDER), [made])
        options = ComputeOptions(device, batch_size=1, num_workers=0, threads=threads, save_every=10)
        embed_folder(Folder(FOLDER, str(tree)), model, weights, tree, layout, options, max_failed_fraction=0)
        record = json.loads(layout.run_record(model.name, FOLDER).read_text())
        vector = torch.load(layout.vectors(model.name, FOLDER))[made.mp4]
        return str(record["checkpoint_sha256"]), vector


class _Scratch(Layout):
    """Results in a directory of their own, except that the digests of checkpoints are those that all jobs share."""

    def checkpoint_digests(self) -> Path:
        return Layout().checkpoint_digests()


def judge(model: Model, digest: str, found: Sequence[float], recorded: Mapping[str, Sequence[float]]) -> str:
    """What is to be said of the vector `found` of the checkpoint `digest`, against those `recorded` by digest.

    Raises `UserError` if it is another than the one recorded for this checkpoint.
    """
    numbers = [float(f"{number:.6g}") for number in found[:NUMBERS]]
    entry = f"  known_vectors:\n    {digest}: {json.dumps(numbers)}"
    if digest not in recorded:
        others = f" (it has {len(recorded)} of other files)" if recorded else ""
        return (
            f"model {model.name}: the checkpoint fits and gives a finite vector; the registry records none for its "
            f"SHA-256{others}, so whether it is the right one is not known. "
            f"If you know it is, add to its entry:\n{entry}"
        )
    known = np.array(recorded[digest])
    if len(known) != NUMBERS:
        raise UserError(f"model {model.name}: known_vectors.{digest} has {len(known)} numbers, not {NUMBERS}")
    apart = float(np.linalg.norm(np.array(numbers) - known) / np.linalg.norm(known))
    if apart > TOLERANCE:
        raise UserError(
            f"model {model.name}: the vector of the known clip is {apart:.1%} off the one recorded for this "
            f"checkpoint ({TOLERANCE:.1%} is allowed): recipe {model.recipe.name}, entry {model.entry}, "
            f"{model.resolution} pixels, {model.num_frames} frames or convert.* are not what it was recorded with"
        )
    return f"model {model.name}: right: the vector of the known clip is {apart:.2%} off the recorded one"
