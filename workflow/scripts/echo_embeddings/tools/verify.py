"""One known clip through the whole way, before a full run: its vector against the one that the registry records.

The clip is the cine that the PyPI package pydicom-data carries. A checkpoint that is not the recorded one, and a
recipe, entry or resolution that is not the one it was recorded with, give another vector.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydicom.data import get_testdata_file

from ..convert.folder import convert_file
from ..core import manifest, settings
from ..core.errors import UserError
from ..core.settings import Model
from ..embed.folder import EmbedPaths, Means, embed_folder

CLIP = "color3d_jpeg_baseline.dcm"  # 120 frames, 480 x 640; in pydicom-data
NUMBERS = 16  # of a vector that are recorded: enough to tell vectors apart, and few enough to read
TOLERANCE = 0.005  # relative; a GPU and a CPU are 1e-5 apart in float32, two recipes several per cent


def vector(model: Model, checkpoint: Path, config: Mapping[str, Any], device: str, threads: int) -> tuple[str, Any]:
    """The SHA-256 of the checkpoint, and the clip's vector, float32 [embed_dim]; computed in float32.

    Raises `UserError` if the clip is not there, or for what is wrong with the checkpoint.
    """
    source = get_testdata_file(CLIP, download=False)
    if source is None:
        raise UserError(f"verify: {CLIP} is not there; install pydicom-data (requirements/)")
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        made = convert_file(
            str(source), "clip.dcm", top / "clip.mp4", settings.convert_settings(config, model.resolution)
        )
        manifest.write(top / "clips.tsv", [made])
        places = EmbedPaths(
            tree=top,
            table=top / "clips.tsv",
            checkpoint=checkpoint,
            state=top / "state",
            digests=Path("results/state/checkpoints"),
            vectors=top / "vectors.pt",
        )
        means = Means(device, batch_size=1, auto=False, num_workers=0, threads=threads, save_every=10)
        embed_folder("verify", places, model, means, max_failed_fraction=0)
        digest = json.loads(places.run.read_text())["checkpoint_sha256"]
        return str(digest), torch.load(places.vectors)[made.mp4]


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
