"""The embedding of a folder as the tests have it."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert import video
from echo_embeddings.core import manifest
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.settings import Model
from echo_embeddings.embed import inference
from echo_embeddings.embed.folder import ComputeOptions, embed_folder
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES

from .conversion import SETTINGS

MODEL = Model("tiny", "vit_tiny", 64, 192, "encoder", 16, "fp32")


def write_weights(path: Path) -> None:
    """A drawn checkpoint of the small encoder."""
    state = checkpoint.draw(ARCHITECTURES["vit_tiny"], 0).state_dict()
    checkpoint.save(path, {"encoder": state}, "drawn for a test")


@dataclasses.dataclass(frozen=True)
class EmbedPaths:
    """What the embedding of the folder p10 reads, and where it writes, for tests that look at it."""

    tree: Path
    checkpoint: Path
    layout: Layout

    table = property(lambda self: self.layout.manifest(64, "p10"))
    state = property(lambda self: self.layout.state("embed", "tiny", "p10"))
    digests = property(lambda self: self.layout.checkpoint_digests())
    vectors = property(lambda self: self.layout.vectors("tiny", "p10"))
    run = property(lambda self: self.layout.run_record("tiny", "p10"))
    failed = property(lambda self: self.layout.failed_clips("tiny", "p10"))
    features = property(lambda self: self.layout.features("tokens").parent)


def run(paths, model=MODEL, max_failed_fraction=0.5, tables=None, pooling="mean", collection=None, **changes):
    """Embed the folder; returns its vectors. `changes` are those of the compute options."""
    options = ComputeOptions("cpu", batch_size=4, num_workers=0, threads=1, save_every=2)
    options = dataclasses.replace(options, **changes)
    embed_folder(
        Folder("p10", str(paths.tree)), model, paths.checkpoint, paths.tree, paths.layout, options,
        max_failed_fraction=max_failed_fraction, pooling=pooling, tables=tables, collection=collection,
    )  # fmt: skip
    return torch.load(paths.vectors)


def killed(monkeypatch, paths, **changes):
    """A run that dies at its second batch."""
    real, calls = inference.forward, []

    def dies_at_the_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(inference, "forward", dies_at_the_second)
        run(paths, batch_size=2, save_every=4, **changes)


# --- what a job to be killed embeds ------------------------------------------------------------------

CLIPS = 24
SAVE_EVERY = 2


def write_source(top: Path) -> None:
    """Clips, their manifest and a checkpoint."""
    settings = dataclasses.replace(SETTINGS, size=MODEL.resolution)
    rows = []
    (top / "mp4/p10").mkdir(parents=True)
    for i in range(CLIPS):
        shape = (18, MODEL.resolution, MODEL.resolution, 3)
        frames = np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)
        video.write(top / f"mp4/p10/{i:02d}.mp4", frames, settings, 30)
        size = (top / f"mp4/p10/{i:02d}.mp4").stat().st_size
        rows.append(Row(f"{i:02d}.dcm", f"{i:02d}.mp4", "converted", "", len(frames), mp4_bytes=size))
    manifest.write(top / "mp4/p10.manifest.tsv", rows)
    write_weights(top / "tiny.pt")


def paths_in(source: Path, top: Path) -> EmbedPaths:
    """What a job reads of `source`, and what it writes below `top`."""
    return EmbedPaths(source / "mp4/p10", source / "tiny.pt", Layout(top))


def run_job(source: Path, top: Path, pooling: str = "mean", **changes) -> None:
    """Embed the clips of `source`, with whatever is there already."""
    paths = paths_in(source, top)
    paths.table.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "mp4/p10.manifest.tsv", paths.table)
    changes = {"batch_size": 2, "save_every": SAVE_EVERY, "max_failed_fraction": 0} | changes
    run(paths, pooling=pooling, **changes)
