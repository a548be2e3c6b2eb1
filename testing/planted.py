"""A collection of drawn vectors with patients, studies and devices in it, and defects planted on purpose.

Each vector is a mean, plus what its patient, its study and the clip add in a space of 48 directions of falling
weight, plus a little noise in all dimensions; the device adds a shift of its own.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from echo_embeddings.core import manifest
from echo_embeddings.core.vectors import write_vectors
from echo_embeddings.qc.tables import FolderFiles

DIRECTIONS = 48
STUDIES, CLIPS = 2, 20  # of a patient, of a study
DEVICES = ("iE33", "EPIQ 7C", "Vivid E95")
KINDS = ("bmode", "bmode", "bmode", "colour", "spectral")


@dataclass
class Truth:
    """What was planted, by key."""

    nan: list[str] = field(default_factory=list)
    inf: list[str] = field(default_factory=list)
    zero: list[str] = field(default_factory=list)
    outliers: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    near: list[tuple[str, str]] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    drifted: list[str] = field(default_factory=list)


@dataclass
class Planted:
    """A collection on disk."""

    merged: Path
    folders: dict[str, FolderFiles]
    truth: Truth


def keys_of(clips: int, folders: int) -> list[tuple[str, str]]:
    """Folder and key of each clip, in order of key, as MIMIC-IV-Echo names them."""
    made = []
    for i in range(clips):
        study, patient = i // CLIPS, i // (CLIPS * STUDIES)
        folder = f"p{10 + patient * folders // (-(-clips // (CLIPS * STUDIES)))}"
        made.append((folder, f"{folder}{patient:06d}/s9{study:07d}/9{study:07d}_{i % CLIPS + 1:04d}.mp4"))
    return made


def draw(clips: int, dim: int, seed: int = 0) -> np.ndarray:
    """float32 [clips, dim]: patients and studies differ, and clips of a study do."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.sqrt(np.arange(1, DIRECTIONS + 1))
    directions = np.linalg.qr(rng.normal(size=(dim, min(dim, DIRECTIONS))))[0].T
    weights = weights[: len(directions)]
    mean = rng.normal(size=dim) * 0.1
    patients, studies = -(-clips // (CLIPS * STUDIES)), -(-clips // CLIPS)
    of_patient = rng.normal(size=(patients, len(weights))) * 0.6
    of_study = rng.normal(size=(studies, len(weights))) * 0.4
    shift = rng.normal(size=(len(DEVICES), len(weights))) * 0.15
    matrix = np.empty((clips, dim), np.float32)
    for start in range(0, clips, 8192):
        i = np.arange(start, min(start + 8192, clips))
        own = rng.normal(size=(len(i), len(weights))) * 0.7
        patient = i // (CLIPS * STUDIES)
        latent = of_patient[patient] + of_study[i // CLIPS] + shift[patient % len(DEVICES)] + own
        matrix[i] = mean + (latent * weights) @ directions + 0.01 * rng.standard_normal((len(i), dim), np.float32)
    return matrix


def plant(matrix: np.ndarray, names: list[tuple[str, str]], pairs: int, seed: int = 1) -> Truth:
    """Spoil the vectors in place; `pairs` are made equal, and as many nearly so."""
    rng = np.random.default_rng(seed)
    clips, dim = matrix.shape
    truth = Truth()
    folders = sorted({folder for folder, _ in names})
    drifted = folders[-1]
    truth.drifted = [drifted]
    inside = np.array([folder == drifted for folder, _ in names])
    matrix[inside] += (rng.normal(size=dim) / np.sqrt(dim) * 2.5).astype(np.float32)
    truth.dead = [dim // 2]
    matrix[:, dim // 2] = 0
    chosen = rng.permutation(clips)[: 4 * pairs + 9]
    left, right = chosen[:pairs], chosen[pairs : 2 * pairs]
    matrix[right] = matrix[left]
    truth.duplicates = [(names[a][1], names[b][1]) for a, b in zip(left, right, strict=True)]
    left, right = chosen[2 * pairs : 3 * pairs], chosen[3 * pairs : 4 * pairs]
    some = matrix[rng.choice(clips, (2, 2000))]
    typical = np.median(np.linalg.norm(some[0] - some[1], axis=1))
    steps = rng.normal(size=(pairs, dim))
    steps[:, dim // 2] = 0
    steps *= (typical * rng.uniform(0.001, 0.045, pairs) / np.linalg.norm(steps, axis=1))[:, None]
    matrix[right] = (matrix[left] + steps).astype(np.float32)
    truth.near = [(names[a][1], names[b][1]) for a, b in zip(left, right, strict=True)]
    nan, inf, zero, *outliers = chosen[4 * pairs :]
    matrix[nan, 3], matrix[inf, 4], matrix[zero] = np.nan, -np.inf, 0
    matrix[outliers] *= 12
    truth.nan, truth.inf, truth.zero = ([names[i][1]] for i in (nan, inf, zero))
    truth.outliers = [names[i][1] for i in outliers]
    return truth


def write(root: Path, clips: int, dim: int, *, folders: int = 10, pairs: int = 0, seed: int = 0) -> Planted:
    """Write a collection below `root`: merged file, manifests, run records. With `pairs` there are defects."""
    names = keys_of(clips, folders)
    matrix = draw(clips, dim, seed)
    truth = plant(matrix, names, pairs) if pairs else Truth()
    by_folder: dict[str, list[tuple[int, str]]] = {}
    for i, (folder, key) in enumerate(names):
        by_folder.setdefault(folder, []).append((i, key))
    found = {}
    for folder, members in by_folder.items():
        files = FolderFiles(
            manifest=root / f"mp4/{folder}.manifest.tsv",
            tree=root / f"mp4/{folder}",
            run=root / f"embeddings/{folder}.json",
            failed=root / f"embeddings/{folder}.failed.tsv",
        )
        manifest.write(files.manifest, (_row(i, key) for i, key in members))
        files.run.parent.mkdir(parents=True, exist_ok=True)
        files.run.write_text(json.dumps(_record(dim, len(members))))
        found[folder] = files
    merged = root / "embeddings/all.pt"
    write_vectors(merged, [key for _, key in names], torch.from_numpy(matrix))
    return Planted(merged, found, truth)


def _row(i: int, key: str) -> manifest.Row:
    return manifest.Row(
        path=key.removesuffix(".mp4") + ".dcm",
        mp4=key,
        status=manifest.CONVERTED,
        reason="",
        frames=43 + i % 137,
        manufacturer="Drawn",
        manufacturer_model_name=DEVICES[i // (CLIPS * STUDIES) % len(DEVICES)],
        kind=KINDS[i % len(KINDS)],
    )


def _record(dim: int, clips: int) -> dict[str, object]:
    return {
        "model": "vitl",
        "constructor": "vit_large",
        "embed_dim": dim,
        "resolution": 256,
        "entry": "encoder",
        "num_frames": 16,
        "precision": "bf16",
        "checkpoint": "resources/weights/vitl.pt",
        "checkpoint_sha256": "0" * 64,
        "weights": "none: the vectors are drawn, with defects planted, to try the report",
        "device": "none",
        "versions": {"torch": torch.__version__.partition("+")[0]},
        "finished": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "clips_per_second": float(clips),
        "counts": {"converted": clips, "embedded": clips, "reused": 0, "failed": 0, "short": 0},
    }
