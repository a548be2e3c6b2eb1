"""What an evaluation leaves behind, of predictions that are drawn: figures and intervals are computed of them."""

import functools
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from echo_embeddings.core.layout import Layout
from echo_embeddings.evaluate import intervals, metrics
from echo_embeddings.evaluate.page import Options, write_pages
from echo_embeddings.qc.tables import FolderFiles
from echo_embeddings.qc.writing import plain

BOOTSTRAP = 60  # samples: the pages are tested, not the intervals
MAKERS = ("GE Vingmed Ultrasound", "Philips Medical Systems", "TOMTEC")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Task:
    """A task whose truth is drawn by name: equal names are equal tasks."""

    name: str
    patients: int = 60
    classes: tuple[str, ...] = ()  # none: the truth is a number

    @property
    def kind(self) -> str:
        return "classification" if self.classes else "regression"

    def draw(self) -> pd.DataFrame:
        """Units: `key`, `subject_id`, `patient` `fold`, `maker`, `truth` (that of a class is its number)."""
        generator = _generator(self.name)
        per = generator.integers(1, 4, self.patients)
        patient = np.repeat(np.arange(self.patients), per)
        truth = 55 + 8 * generator.normal(size=self.patients)[patient] + 4 * generator.normal(size=len(patient))
        if self.classes:
            truth = generator.permutation(np.arange(len(patient)) % len(self.classes))
        subject = [f"{10000000 + number}" for number in patient]
        keys = [f"p10/p{subject[i]}/s{50000000 + i}" for i in range(len(patient))]
        makers = generator.choice(MAKERS, len(patient))
        columns = {"key": keys, "subject_id": subject, "patient": patient, "fold": patient % 5, "maker": makers}
        return pd.DataFrame(columns | {"truth": truth})


def _generator(*names: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(names).encode()))


def _predict(task: Task, units: pd.DataFrame, skill: float, *names: object) -> Array:
    """Predictions [n], or probabilities [n, classes], that know the truth as well as `skill` says, 0 to 1."""
    generator = _generator(task.name, *names)
    truth = units["truth"].to_numpy()
    if not task.classes:
        return 55 + skill * (truth - 55) + 8 * np.sqrt(skill * (1 - skill)) * generator.normal(size=len(truth))
    scores = generator.normal(size=(len(truth), len(task.classes))) + 2.5 * skill * np.eye(len(task.classes))[truth]
    odds = np.exp(scores)
    return odds / odds.sum(axis=1, keepdims=True)


def _figures_of(task: Task, units: pd.DataFrame, predicted: Array, weights: Array) -> dict[str, Array]:
    truth = units["truth"].to_numpy()
    return (metrics.classification if task.classes else metrics.regression)(truth, predicted, weights)


def _interval(task: Task, units: pd.DataFrame, predicted: Array, less: Array | None = None) -> dict[str, Any]:
    """The figures of predictions, or what they are more than those of others, with intervals."""

    def figures(weights: Array) -> dict[str, Array]:
        mine = _figures_of(task, units, predicted, weights)
        if less is None:
            return mine
        its = _figures_of(task, units, less, weights)
        return {name: mine[name] - its[name] for name in mine}

    patients = pd.factorize(units["patient"])[0].astype(np.int64)
    return {name: asdict(found) for name, found in intervals.intervals(figures, patients, BOOTSTRAP, 0).items()}


def write(root: Path, task: Task, model: str, skill: float = 0.7, units: slice = slice(None), **changes: Any) -> Path:
    """Write the figures and predictions of a model that is as good as `skill`; returns the JSON file's path.

    `units` are those that it predicts; `changes` take the place of what the JSON file would say.
    """
    layout, table = Layout(root), task.draw().iloc[units].reset_index(drop=True)
    predict = functools.partial(_predict, task, table)
    main, metadata = predict(skill, model), predict(0.25, "metadata")

    def probe(says: str, predicted: Array) -> dict[str, Any]:
        counts = {"units": len(table), "patients": table["patient"].nunique()}
        return {"says": says, **counts, "noise": 0.0, "figures": _interval(task, table, predicted)}

    plain_one = np.eye(len(task.classes))[[0] * len(table)] if task.classes else _mean_of_others(table)
    against = _interval(task, table, main, metadata)
    name = next(iter(against))
    numbers = {
        **{"task": task.name, "model": model, "kind": task.kind, "by": "study"},
        **{"target": "value", "table": f"results/labels/{task.name}.csv", "classes": list(task.classes) or None},
        "counts": _counts(task, table),
        "split": "5 folds by a hash of patient and seed 0, not stratified",
        "not_tested": None,
        "told": [],
        "probes": {
            "logistic" if task.classes else "ridge": probe("linear, predictions averaged a study", main),
            "knn": probe("k nearest neighbours of study means", predict(0.8 * skill, model, "knn")),
        },
        "controls": {
            "majority" if task.classes else "mean": probe("what the training folds say without vectors", plain_one),
            "shuffled": probe("the same probe, labels shuffled between patients", predict(0.0, "shuffled")),
            "metadata": probe("the same probe on frames, fps, maker and heart rate", metadata),
        },
        "against_metadata": against,
        "beats_metadata": against[name]["low"] > 0,
        "shots": [
            {"patients": n, "figures": _interval(task, table, predict(skill * n / 32, model, n))} for n in (8, 16, 32)
        ],
        "strata": _strata(task, table, main),
        "worst": _worst(task, table, main),
        "calibration": _calibration(task, table, main),
        "confusion": _confusion(task, table, main) if task.classes else None,
        "scatter": None if task.classes else np.stack([table["truth"], main], axis=1),
        **{"vectors": {"fingerprint": "f" * 64}, "seconds": 1.5, "version": 1},
    } | changes
    path = layout.evaluation(task.name, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(numbers)))
    _predictions(task, table, main).to_parquet(layout.evaluation_predictions(task.name, model), index=False)
    return path


def _mean_of_others(table: pd.DataFrame) -> Array:
    truth, fold = table["truth"].to_numpy(), table["fold"].to_numpy()
    return np.array([truth[fold != one].mean() for one in fold])


def _predictions(task: Task, table: pd.DataFrame, predicted: Array) -> pd.DataFrame:
    made = table[["key", "subject_id", "fold", "truth"]]
    if not task.classes:
        return made.assign(prediction=predicted)
    names = np.array(task.classes)
    columns = {f"p_{name}": predicted[:, i] for i, name in enumerate(task.classes)}
    return made.assign(truth=names[table["truth"]], prediction=names[predicted.argmax(axis=1)], **columns)


def _counts(task: Task, table: pd.DataFrame) -> dict[str, Any]:
    of_class = {
        name: {"units": int((mine := table["truth"] == i).sum()), "patients": table["patient"][mine].nunique()}
        for i, name in enumerate(task.classes)
    }
    counts = {"clips": 12 * len(table), "units": len(table), "tested": len(table), "unlabelled": 7}
    return counts | {"patients": table["patient"].nunique(), "of_class": of_class or None}


def _strata(task: Task, table: pd.DataFrame, predicted: Array) -> list[dict[str, Any]]:
    shown = metrics.CLASSIFICATION[2:] if task.classes else metrics.REGRESSION[:2]
    made = []
    for maker in MAKERS:
        mine = (table["maker"] == maker).to_numpy()
        found = _figures_of(task, table[mine], predicted[mine], np.ones((1, mine.sum())))
        figures = {name: float(found[name][0]) for name in shown}
        made.append({"column": "manufacturer", "value": maker, "units": int(mine.sum()), "figures": figures})
    return made


def _worst(task: Task, table: pd.DataFrame, predicted: Array) -> list[dict[str, Any]]:
    truth = table["truth"].to_numpy()
    error = 1 - predicted[np.arange(len(truth)), truth] if task.classes else np.abs(predicted - truth)
    rows = _predictions(task, table, predicted).iloc[np.argsort(-error)[:10]]
    return [
        {
            **{"key": row["key"], "truth": row["truth"], "prediction": row["prediction"]},
            "clips": _clips(row["key"]),
        }
        for row in rows.to_dict("records")
    ]


def _clips(key: str) -> list[tuple[str, str]]:
    """Folder and MP4 of the six clips of a study."""
    folder, study = key.split("/", 1)
    number = study.rsplit("/s", 1)[1]
    return [(folder, f"{study}/{number}_{i:04d}.mp4") for i in range(1, 7)]


def _calibration(task: Task, table: pd.DataFrame, predicted: Array) -> list[dict[str, Any]]:
    truth = table["truth"].to_numpy()
    said = predicted.max(axis=1) if task.classes else predicted
    seen = (predicted.argmax(axis=1) == truth).astype(float) if task.classes else truth
    bins = np.array_split(np.argsort(said), 10)
    return [{"predicted": said[b].mean(), "observed": seen[b].mean(), "units": len(b)} for b in bins if len(b)]


def _confusion(task: Task, table: pd.DataFrame, predicted: Array) -> Array:
    counts = np.zeros((len(task.classes), len(task.classes)), int)
    np.add.at(counts, (table["truth"].to_numpy(), predicted.argmax(axis=1)), 1)
    return counts


def pages(
    root: Path,
    tasks: Sequence[str],
    models: Sequence[str],
    folders: dict[str, dict[str, FolderFiles]] | None = None,
    **options: Any,
) -> str:
    """Write the pages of what `write` has left of these tasks and models; returns that of all tasks."""
    layout = Layout(root)
    chosen = {"pictures": False, "hash_names": False, "prefix_folder": False, "bootstrap": BOOTSTRAP, "seed": 0}
    results = {task: {model: layout.evaluation(task, model) for model in models} for task in tasks}
    write_pages(results, layout.evaluation_index(), folders or {}, Options(**(chosen | options)))
    return layout.evaluation_index().read_text()
