"""One task on one model's vectors: probes, controls, and what comes of them."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core import origin
from ..core.errors import UserError
from ..core.settings import EVALUATE_VERSION, Tables
from ..core.vectors import read_vectors
from . import controls, leaks, linear, metrics, probes, ridge, summary, writing
from .intervals import Interval, intervals
from .linear import Head, Vectors
from .tasks import OF_EACH, REGRESSION, Task
from .units import Units, of_task

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MAIN = {"regression": "r2", "classification": "auroc"}  # the figure that counts


@dataclass(frozen=True)
class Options:
    """What the configuration says of all tasks."""

    folds: int
    bootstrap: int
    seed: int
    shots: Sequence[int]


@dataclass(frozen=True)
class Predictions:
    """What a probe or a control predicts of n units, each from groups that it is not in."""

    says: str
    values: Floats  # [n, 1], or probabilities [n, classes]; NaN where a unit was not predicted
    chosen: list[float] = dataclasses.field(default_factory=list)  # the penalties or numbers of neighbours, by group
    heads: Mapping[int | None, Head] = dataclasses.field(default_factory=dict)


def evaluate(
    task: Task, model: str, clips: Path, merged: Path, known: Tables, options: Options, output: Path
) -> dict[str, Any]:
    """Evaluate, and write the files of `writing`, the numbers to `output`; they are returned.

    `clips` is what `clips.write` made of the file `merged`. Raises `UserError` if labels, split or files are not what
    they must be.
    """
    started = time.monotonic()
    frame = pd.read_parquet(clips, dtype_backend="numpy_nullable")
    keys, tensor = read_vectors(merged)
    if len(keys) != len(frame):
        raise UserError(f"{clips}: {len(frame):,} clips, and {merged} has {len(keys):,} vectors; delete it, run again")
    units = of_task(task, frame, known, options.seed, options.folds)
    _say(task, model, f"{len(units.rows):,} clips, {len(units.names):,} units, {units.split.says}", started)
    found, baselines = _probes(task, units, tensor.numpy(), options, lambda words: _say(task, model, words, started))
    main = next(iter(found.values()))
    beyond = _against(task, units, main, baselines["metadata"], options)
    numbers = {
        "task": task.name,
        "model": model,
        **{name: getattr(task, name) for name in ("kind", "by", "target")},
        "table": task.file,
        "classes": units.classes,
        "counts": summary.counts(units),
        "split": units.split.says,
        "not_tested": leaks.not_tested(units),
        "told": leaks.told(units, task.target),
        "probes": {name: _numbers(task, units, one, options) for name, one in found.items()},
        "controls": {name: _numbers(task, units, one, options) for name, one in baselines.items()},
        "against_metadata": beyond,
        "beats_metadata": None,
        "shots": [] if not options.shots else _shots(task, units, tensor.numpy(), options),
        **summary.of(units, main.values),
        "vectors": origin.beside(merged),
        "seconds": time.monotonic() - started,
        "version": EVALUATE_VERSION,
    }
    low = beyond[MAIN[task.kind]].low
    if numbers["not_tested"] is None and np.isfinite(low):
        numbers["beats_metadata"] = bool(low > 0)
    writing.write(output, numbers, units, main.values, main.heads, options.seed)
    _say(task, model, "done", started)
    return numbers


def _say(task: Task, model: str, words: str, started: float) -> None:
    print(f"{task.name}, {model}: {words} ({time.monotonic() - started:.0f} s)", flush=True)


# --- probes -----------------------------------------------------------------------------------------


def _probes(
    task: Task, units: Units, matrix: npt.NDArray[np.float32], options: Options, say: Any
) -> tuple[dict[str, Predictions], dict[str, Predictions]]:
    """The probes, the one that counts first, and the controls."""
    clips = Vectors(matrix, units.rows)
    means = clips if task.by == "path" else linear.means(clips, units.of, len(units.names))
    shuffled = controls.shuffled(units.truth, units.patients, options.seed)
    fit = _ridge if task.kind == REGRESSION else _logistic
    name = "ridge" if task.kind == REGRESSION else "logistic"
    found: dict[str, Predictions] = {}
    random: Predictions | None = None
    for pool in task.pools:
        one, by_chance = fit(units, clips if pool == OF_EACH else means, shuffled, options.seed, task.by)
        found[name if not found else f"{name}, {pool} averaged"] = one
        random = random or by_chance
        say(f"{name} done")
    assert random is not None
    at = _sample(len(means), options.seed)
    values, chosen = probes.neighbours(means.matrix[means.rows[at]], summary.wide(units)[at], _part(units.split, at))
    every = np.full((len(means), values.shape[1]), np.nan)
    every[at] = values
    part = f" of a sample of {len(at):,}" if len(at) < len(means) else ""
    found["neighbours"] = Predictions(
        f"nearest neighbours{part} by cosine of standardised vectors, averaged a unit first",
        every,
        [float(one) for one in chosen.values()],
    )
    classes = len(units.classes) if units.classes else None
    baselines = {
        "mean" if classes is None else "majority": Predictions(
            "the mean of the labels" if classes is None else "the shares of the classes",
            controls.constant(summary.wide(units), units.split),
        ),
        "shuffled": random,
        "metadata": Predictions(
            "gradient boosted trees on what headers say: " + ", ".join(units.headers.columns),
            probes.trees(units.headers, units.truth, classes, units.split),
        ),
    }
    say("neighbours and controls done")
    return found, baselines


def _ridge(
    units: Units, vectors: Vectors, shuffled: npt.NDArray[np.generic], seed: int, by: str
) -> tuple[Predictions, Predictions]:
    """Ridge regression on vectors of clips or of units; and the same with shuffled labels, which costs nothing more."""
    of = units.of if len(vectors) == len(units.of) else np.arange(len(units.names))
    targets = np.stack([units.truth, shuffled], axis=1).astype(np.float64)
    split = dataclasses.replace(units.split, group=units.split.group[of])
    made = ridge.fit(vectors, targets[of], split)
    values = linear.predict(made.heads, vectors, split.group, split.tested)
    values = units.mean(values) if of is units.of else values
    says = "ridge regression on " + _of(by, of is units.of, "predictions")
    heads = {group: head.column(0) for group, head in made.heads.items()}
    penalties = [[float(made.penalties[group][i]) for group in split.tested] for i in (0, 1)]
    return (
        Predictions(says, values[:, :1], penalties[0], heads),
        Predictions("the same with labels shuffled between patients", values[:, 1:], penalties[1]),
    )


def _logistic(
    units: Units, vectors: Vectors, shuffled: npt.NDArray[np.generic], seed: int, by: str
) -> tuple[Predictions, Predictions]:
    """Logistic regression on vectors of clips or of units, or a sample of them; and the same with shuffled labels."""
    assert units.classes is not None
    of = units.of if len(vectors) == len(units.of) else np.arange(len(units.names))
    split = dataclasses.replace(units.split, group=units.split.group[of])
    at = _sample(len(vectors), seed)
    rows = vectors.matrix[vectors.rows[at]]
    says = "logistic regression on " + _of(by, of is units.of, "probabilities")
    if len(at) < len(vectors):
        says += f", fitted to a sample of {len(at):,} of {len(vectors):,}"
    made = []
    for truth, words in ((units.truth, says), (shuffled, "the same with labels shuffled between patients")):
        classes = len(units.classes)
        heads, penalties = probes.logistic(rows, truth[of[at]].astype(np.int64), classes, _part(split, at))
        values = probes.softmax(linear.predict(heads, vectors, split.group, split.tested))
        values = units.mean(values) if of is units.of else values
        made.append(Predictions(words, values, [penalties[group] for group in split.tested], heads))
    return made[0], made[1]


def _of(by: str, is_clips: bool, what: str) -> str:
    if by == "path":
        return "clips"
    return f"clips, {what} averaged a {by}" if is_clips else f"vectors averaged a {by}"


def _sample(count: int, seed: int) -> Integers:
    """At most `probes.SAMPLE` of so many, ascending."""
    if count <= probes.SAMPLE:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, probes.SAMPLE, replace=False))


def _part(split: Any, at: Integers) -> Any:
    """The split of some of its units."""
    return dataclasses.replace(split, group=split.group[at])


# --- learning curves --------------------------------------------------------------------------------


def _shots(task: Task, units: Units, matrix: npt.NDArray[np.float32], options: Options) -> list[dict[str, Any]]:
    """The figures of probes that were fitted to few patients, with vectors averaged a unit first."""
    clips = Vectors(matrix, units.rows)
    means = clips if task.by == "path" else linear.means(clips, units.of, len(units.names))
    order = np.random.default_rng(options.seed).permutation(int(units.patients.max()) + 1)
    made = []
    for count in options.shots:
        values = np.full(summary.wide(units).shape, np.nan)
        for tested in units.split.tested:
            training = np.isin(units.split.group, units.split.training(tested))
            there = [patient for patient in order if training[units.patients == patient].any()][:count]
            kept = np.flatnonzero((training & np.isin(units.patients, there)) | (units.split.group == tested))
            values[units.split.group == tested] = _few(units, means, kept, tested)
        one = Predictions(f"{count} patients", values)
        made.append({"patients": count, "figures": _numbers(task, units, one, options)["figures"]})
    return made


def _few(units: Units, means: Vectors, kept: Integers, tested: int) -> Floats:
    """What is predicted of the group `tested` by the other units among those `kept`."""
    split = dataclasses.replace(_part(units.split, kept), tested=(tested,), chosen_by=None)
    vectors = Vectors(means.matrix, means.rows[kept])
    if units.classes is None:
        made = ridge.fit(vectors, units.truth[kept].astype(np.float64)[:, None], split)
        values = linear.predict(made.heads, vectors, split.group, (tested,))
    else:
        truth = units.truth[kept].astype(np.int64)
        heads, _ = probes.logistic(means.matrix[vectors.rows], truth, len(units.classes), split)
        values = probes.softmax(linear.predict(heads, vectors, split.group, (tested,)))
    few: Floats = values[split.group == tested]
    return few


# --- figures ----------------------------------------------------------------------------------------


def figures_of(units: Units, values: Floats, at: Integers, weights: Floats) -> dict[str, Floats]:
    """The figures of the values of some units, each [B]."""
    if units.classes is None:
        return metrics.regression(units.truth[at].astype(np.float64), values[at, 0], weights)
    return metrics.classification(units.truth[at].astype(np.int64), values[at], weights)


def _numbers(task: Task, units: Units, one: Predictions, options: Options) -> dict[str, Any]:
    """The figures of predictions with their intervals."""
    at = np.flatnonzero(np.isfinite(one.values).all(axis=1))
    patients = pd.factorize(units.patients[at])[0].astype(np.int64)
    found = intervals(lambda w: figures_of(units, one.values, at, w), patients, options.bootstrap, options.seed)
    return {
        "says": one.says,
        "units": len(at),
        "patients": int(patients.max(initial=-1)) + 1,
        "chosen": one.chosen,
        "figures": found,
    }


def _against(
    task: Task, units: Units, main: Predictions, metadata: Predictions, options: Options
) -> dict[str, Interval]:
    """How much larger the figures of `main` are than those of `metadata`, of the same units."""
    at = np.flatnonzero(np.isfinite(main.values).all(axis=1) & np.isfinite(metadata.values).all(axis=1))
    patients = pd.factorize(units.patients[at])[0].astype(np.int64)

    def apart(weights: Floats) -> dict[str, Floats]:
        one, other = (figures_of(units, two.values, at, weights) for two in (main, metadata))
        return {name: one[name] - other[name] for name in one}

    return intervals(apart, patients, options.bootstrap, options.seed)
