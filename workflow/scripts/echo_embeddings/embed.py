"""An MP4 tree and an encoder to embeddings: one vector a clip, or one row that says why not.

Work in progress is kept in shards that no rule declares: a job that is killed and started again computes
only what is missing, and a vector is used again only if everything that makes it is the same.
"""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from . import checkpoint, clip, manifest, store, video
from .files import UserError, alone, one_line, whole
from .manifest import CONVERTED, Row
from .progress import Progress
from .settings import REPOSITORY, Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PACKAGES = ("torch", "numpy", "opencv-python-headless", "imageio-ffmpeg", "pydicom", "imagecodecs", "snakemake")


@dataclass(frozen=True)
class Places:
    """Where one folder's extraction reads and writes."""

    tree: Path  # of MP4 files
    table: Path  # their manifest
    checkpoint: Path
    state: Path  # what the job remembers; no rule declares it
    digests: Path  # digests of checkpoints, shared by all jobs
    vectors: Path  # the embedding file; `run` and `failed` lie beside it

    @property
    def run(self) -> Path:
        """The record of how the vectors were made."""
        return self.vectors.with_suffix(".json")

    @property
    def failed(self) -> Path:
        """The table of clips without a vector; no rule declares it, so it outlives the failure it explains."""
        return self.vectors.with_suffix(".failed.tsv")


# --- clips ----------------------------------------------------------------------------------------


class Clips(Dataset[tuple[int, NDArray[np.uint8] | str]]):
    """The sampled frames of MP4 files: item i is (i, uint8 [num_frames, height, width, 3]) or (i, why not)."""

    def __init__(self, tree: Path, rows: list[Row], num_frames: int) -> None:
        self.tree, self.rows, self.num_frames = tree, rows, num_frames

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[int, NDArray[np.uint8] | str]:
        row = self.rows[i]
        frames = row.frames or 0
        try:
            return i, video.read(self.tree / row.mp4, clip.frame_indices(frames, self.num_frames).tolist(), frames)
        except (video.VideoError, OSError) as error:
            return i, one_line(error)


def _as_list(items: list[Any]) -> list[Any]:
    return items


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


@torch.inference_mode()
def vectors(encoder: nn.Module, clips: Tensor, resolution: int, dtype: torch.dtype) -> Tensor:
    """One vector a clip: uint8 RGB [B, T, height, width, 3] to float32 [B, embed_dim].

    Preprocessing runs in float32, the encoder in `dtype`, and the mean over all tokens in float32, on the
    device of `clips`.
    """
    tokens: Tensor = encoder(clip.preprocess(clips, resolution).to(dtype))
    return tokens.float().mean(dim=1)


# --- one folder -----------------------------------------------------------------------------------


def embed_folder(
    name: str,
    places: Places,
    model: Model,
    *,
    device: str,
    batch_size: int,
    num_workers: int,
    save_every: int,
    max_failed_fraction: float,
    threads: int,
    terminal: TextIO | None = None,
) -> None:
    """Embed every clip that the manifest at `places.table` has as converted.

    At most `save_every` vectors are lost by a kill. Raises `UserError` if another run has the folder, there is no
    such device, the checkpoint does not fit, or more than `max_failed_fraction` of the clips have no vector.
    """
    started = time.monotonic()
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{name}: embed.device is cuda and torch sees no GPU here; set embed.device: cpu to do without")
    torch.set_num_threads(threads)
    with alone(places.state, name):
        rows = [row for row in manifest.read(places.table) if row.status == CONVERTED]
        digest = checkpoint.sha256(places.checkpoint, places.digests)
        shards = Shards(places.state, f"{model.fingerprint()} {digest}")
        identities = {row.mp4: _identity(places.tree, row) for row in rows}
        have = shards.vectors(identities)
        todo = [row for row in rows if row.mp4 not in have]
        print(f"{name}: {len(rows)} clips, {len(todo)} to do", flush=True)
        failed: dict[str, str] = {}
        if todo:
            encoder = checkpoint.load(
                places.checkpoint, model.name, model.constructor, model.embed_dim, model.entry
            ).to(device, DTYPES[model.precision])
            batch_size = min(batch_size, save_every)
            loader = _loader(places.tree, todo, model.num_frames, batch_size, num_workers)
            fresh: dict[str, Tensor] = {}
            with Progress(name, len(todo), "clips", terminal, state=places.state, before=len(have)) as progress:
                for made, unreadable in _embed_batches(loader, todo, encoder, model, device):
                    fresh |= made
                    failed |= unreadable
                    if len(fresh) + batch_size > save_every:
                        shards.add(fresh, identities)
                        fresh = {}
                    progress.step(len(made) + len(unreadable), failed=len(unreadable))
            shards.add(fresh, identities)
            have = shards.vectors(identities)
        if len(have) + len(failed) != len(rows):
            raise RuntimeError(f"{name}: {len(rows)} clips became {len(have)} vectors and {len(failed)} failures")
        shards.compact()
        seconds = time.monotonic() - started
        _write_failed(places.failed, failed)
        _judge(name, places, len(rows), failed, max_failed_fraction)
        counts = {
            "converted": len(rows),
            "embedded": len(have),
            "reused": len(rows) - len(todo),
            "failed": len(failed),
            "short": sum((row.frames or 0) < model.num_frames for row in rows),
        }
        _write_run(places, model, digest, device, counts, seconds, len(todo) - len(failed))
        keys = sorted(have)
        matrix = torch.stack([have[key] for key in keys]) if keys else torch.empty(0, model.embed_dim)
        store.write(places.vectors, keys, matrix)
        print(f"{name}: {len(have)} vectors, {len(failed)} failed, in {seconds:.0f} s", flush=True)


def _identity(tree: Path, row: Row) -> str:
    """What the vector of a clip depends on besides model and settings: the MP4, and what it was made of."""
    try:
        status = (tree / row.mp4).stat()
        mp4 = (status.st_size, status.st_mtime_ns)
    except OSError:  # the reader says why when it comes to it
        mp4 = (-1, -1)
    text = json.dumps([*mp4, row.path, row.mp4, row.frames, row.bytes, row.mtime_ns, row.mp4_bytes])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _loader(tree: Path, rows: list[Row], num_frames: int, batch_size: int, num_workers: int) -> DataLoader[Any]:
    """Batches of `Clips`, as lists, in the order of `rows`."""
    return DataLoader(
        Clips(tree, rows, num_frames),
        batch_size=batch_size,
        num_workers=num_workers,
        # Spawned, not forked: an orphan of a killed job must not inherit the folder's lock.
        multiprocessing_context=get_context("spawn") if num_workers else None,
        worker_init_fn=_one_thread,
        collate_fn=_as_list,
    )


def _embed_batches(
    loader: DataLoader[Any], rows: list[Row], encoder: nn.Module, model: Model, device: str
) -> Iterator[tuple[dict[str, Tensor], dict[str, str]]]:
    """Yield, batch by batch and by key, vectors, float32 [embed_dim] on the CPU, and why others have none."""
    for batch in loader:
        made: dict[str, Tensor] = {}
        failed: dict[str, str] = {}
        readable: dict[tuple[int, ...], list[tuple[str, NDArray[np.uint8]]]] = {}
        for i, frames in batch:
            if isinstance(frames, str):
                failed[rows[i].mp4] = frames
            else:
                readable.setdefault(frames.shape, []).append((rows[i].mp4, frames))
        for clips in readable.values():
            stacked = torch.from_numpy(np.stack([frames for _, frames in clips])).to(device)
            matrix = vectors(encoder, stacked, model.resolution, DTYPES[model.precision]).cpu()
            for (key, _), vector in zip(clips, matrix, strict=True):
                if torch.isfinite(vector).all():
                    made[key] = vector
                else:
                    failed[key] = "the encoder gave NaN or Inf"
        yield made, failed


class Shards:
    """Vectors made so far, in files of the state directory; each file appears whole or not at all.

    Only those made under one fingerprint are seen. Others stay: going back to an earlier setting, or to
    clips that `limit` hides for a while, costs nothing.
    """

    def __init__(self, state: Path, fingerprint: str) -> None:
        self._state = state
        self._prefix = hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
        self._made: dict[str, tuple[str, Tensor]] = {}  # key -> identity of the clip, vector
        self._paths = sorted(state.glob(f"{self._prefix}-*.pt"))
        for path in self._paths:
            shard = torch.load(path, map_location="cpu", weights_only=True)
            made = zip(shard["identities"], shard["vectors"], strict=True)
            self._made |= dict(zip(shard["keys"], made, strict=True))

    def vectors(self, identities: dict[str, str]) -> dict[str, Tensor]:
        """The vectors, float32 [embed_dim] by key, of those clips that are what they were."""
        return {
            key: self._made[key][1]
            for key, identity in identities.items()
            if key in self._made and self._made[key][0] == identity
        }

    def add(self, fresh: dict[str, Tensor], identities: dict[str, str]) -> None:
        """Save vectors, float32 [embed_dim] by key, in a shard of their own."""
        if fresh:
            made = {key: (identities[key], vector) for key, vector in fresh.items()}
            self._made |= made
            self._write(made)

    def _write(self, made: dict[str, tuple[str, Tensor]]) -> None:
        path = self._state / f"{self._prefix}-{time.time_ns():020d}.pt"
        content = {
            "keys": list(made),
            "identities": [identity for identity, _ in made.values()],
            "vectors": torch.stack([vector for _, vector in made.values()]),
        }
        with whole(path) as part:
            torch.save(content, part)
        self._paths.append(path)

    def compact(self) -> None:
        """Put all shards into one."""
        if len(self._paths) > 1:
            old, self._paths = self._paths, []
            self._write(self._made)
            for path in old:
                path.unlink()


def _write_failed(path: Path, failed: dict[str, str]) -> None:
    with whole(path) as part:
        lines = [f"{key}\t{reason}" for key, reason in sorted(failed.items())]
        part.write_text("\n".join(["key\treason", *lines, ""]), encoding="utf-8")


def _judge(name: str, places: Places, clips: int, failed: dict[str, str], max_failed_fraction: float) -> None:
    if clips and len(failed) / clips > max_failed_fraction:
        gone = "; MP4 files are gone: --forcerun convert makes them again" if video.GONE in failed.values() else ""
        raise UserError(
            f"{name}: {len(failed)} of {clips} clips have no vector, more than embed.max_failed_fraction "
            f"({max_failed_fraction:g}) allows; the reasons stand in {places.failed}{gone}"
        )


def _write_run(
    places: Places, model: Model, digest: str, device: str, counts: dict[str, int], seconds: float, made: int
) -> None:
    """Write the record of how the vectors were made, beside them."""
    record = {
        **{key: value for key, value in dataclasses.asdict(model).items() if key != "name"},
        "model": model.name,
        "checkpoint": str(places.checkpoint),
        "checkpoint_sha256": digest,
        "weights": checkpoint.note(places.checkpoint),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu",
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in PACKAGES}},
        "commit": _commit(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "clips_per_second": round(made / seconds, 2),
        "counts": counts,
    }
    with whole(places.run) as part:
        part.write_text(json.dumps(record, indent=2) + "\n")


def _commit() -> str | None:
    """The commit of the workflow, None where it is no git checkout or there is no git."""
    try:
        result = subprocess.run(
            ["git", "-C", os.fspath(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
