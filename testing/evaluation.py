"""A collection whose vectors hold planted signals, and evaluations of it.

A vector is a strong mean, plus what its study says in a few directions, plus what the clip and its device add.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from echo_embeddings.core import configuration, manifest, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.vectors import merge_vectors, write_vectors
from echo_embeddings.evaluate import clips, evaluation, tasks
from echo_embeddings.evaluate.predictions import Options
from echo_embeddings.tables import export

MODEL = "vitl"
MAKERS = ("GE", "Philips")
BLOCK = 10_000


@dataclass
class Collection:
    """A collection on disk, below the working directory `top`."""

    top: Path
    layout: Layout
    folders: Sequence[str]
    studies: pd.DataFrame  # `subject_id`, `study_id` and `manufacturer`, in order
    says: npt.NDArray[np.float64]  # [studies, rank]: what the vectors say of each
    keys: list[str]

    def label(self, name: str, values: Sequence[Any], **columns: Any) -> str:
        """Write a table of labels by study; a missing one is left out. Returns its path."""
        table = self.studies[["subject_id", "study_id"]].assign(**{name: values, **columns})
        table.dropna(subset=name).to_csv(self.top / f"{name}.csv", index=False)
        return f"{name}.csv"

    def evaluate(self, task: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """What `evaluation.evaluate` makes of a task; `options` are keys of the configuration."""
        keys = {name: options.pop(name) for name in ("folds", "bootstrap", "seed", "shots") if name in options}
        config = configuration.defaults() | options
        config["evaluate"] |= keys | {"tasks": {"task": task}}
        with contextlib.chdir(self.top), contextlib.redirect_stdout(io.StringIO()):
            asked, known = tasks.tasks(config), settings.tables(config)
            table = self.layout.evaluated_clips(MODEL)
            parts = export.parts(self.layout, MODEL, "256", self.folders)
            used = tasks.selecting(asked)
            clips.write(self.layout.merged(MODEL), parts, known, used, table, prefix_folder=False)
            return evaluation.evaluate(asked["task"], MODEL, known, Options.of(config), self.layout)


def plant(
    top: Path,
    patients: int,
    of_patient: int = 1,
    of_study: int = 3,
    dim: int = 24,
    *,
    rank: int = 8,
    noise: float = 0.1,
    shift: float = 0.0,
    folders: Sequence[str] = ("p10",),
    form: str = "p{subject_id}/s{study_id}/{clip:04d}.dcm",
    seed: int = 0,
) -> Collection:
    """Manifests, embedding files and merged file; `shift` is what a device adds, in standard deviations of studies."""
    generator = np.random.default_rng(seed)
    count = patients * of_patient
    of_whom = generator.normal(size=(patients, rank)).repeat(of_patient, axis=0)
    says = 0.8 * of_whom + 0.6 * generator.normal(size=(count, rank))
    directions = generator.normal(size=(rank, dim)) / np.sqrt(dim)
    makers = generator.integers(0, len(MAKERS), count)
    devices = shift * generator.normal(size=(len(MAKERS), dim)) / np.sqrt(dim)
    studies = pd.DataFrame(
        {
            "subject_id": 10000000 + np.arange(count) // of_patient,
            "study_id": 50000000 + np.arange(count),
            "manufacturer": np.array(MAKERS)[makers],
        }
    )
    matrix = np.empty((count * of_study, dim), np.float32)
    for start in range(0, len(matrix), BLOCK):
        block = matrix[start : start + BLOCK]
        study = np.arange(start, start + len(block)) // of_study
        block[:] = 30 / np.sqrt(dim) + (says[study] + 0.3 * generator.normal(size=(len(block), rank))) @ directions
        block += devices[makers[study]] + noise / np.sqrt(dim) * generator.normal(size=block.shape)
    layout = Layout(Path("results"))
    rows: dict[str, list[Row]] = {folder: [] for folder in folders}
    places: dict[str, list[int]] = {folder: [] for folder in folders}
    frames = generator.integers(20, 90, len(matrix))
    for i, study in enumerate(studies.itertuples(index=False)):
        folder = folders[study.subject_id % len(folders)]
        more = {"rows": 600, "columns": 800, "fps": 30.0, "manufacturer": study.manufacturer, "kind": "bmode"}
        for at in range(i * of_study, (i + 1) * of_study):
            path = form.format(**study._asdict(), clip=at % of_study)
            mp4 = path if path.endswith(".avi") else f"{path}.mp4"
            rows[folder].append(Row(path, mp4, "converted", "", frames=int(frames[at]), **more))
            places[folder].append(at)
    with contextlib.chdir(top):
        parts = {}
        for folder, own in rows.items():
            manifest.write(layout.manifest(256, folder), own)
            parts[folder] = layout.vectors(MODEL, folder)
            write_vectors(parts[folder], [row.mp4 for row in own], torch.from_numpy(matrix[places[folder]]))
        merge_vectors(parts, layout.merged(MODEL), dim, False)
    return Collection(top, layout, folders, studies, says, [row.mp4 for own in rows.values() for row in own])
