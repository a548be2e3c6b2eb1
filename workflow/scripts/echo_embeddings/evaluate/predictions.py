"""What each probe and control predicts of a task's units, never of a group that it was fitted to."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from ..qc.base import Vectors, sample
from . import controls, linear, probes, ridge, summary
from .controls import METADATA
from .linear import Head
from .probes import SAMPLE
from .splits import INNER, Split
from .tasks import OF_EACH, REGRESSION, Task
from .units import Units

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Labels = npt.NDArray[np.generic]

BY_CHANCE = "the same with labels shuffled between patients"


@dataclass(frozen=True)
class Options:
    """What the configuration says of all tasks."""

    folds: int
    bootstrap: int
    seed: int
    shots: Sequence[int]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Options":
        """Those of a configuration."""
        return cls(**{field.name: config["evaluate"][field.name] for field in dataclasses.fields(cls)})


@dataclass(frozen=True)
class Predictions:
    """What is predicted of n units."""

    says: str
    values: Floats  # [n, 1], or probabilities [n, classes]; NaN where a unit was not predicted
    chosen: list[float] = dataclasses.field(default_factory=list)  # penalties or numbers of neighbours, by group
    heads: Mapping[int | None, Head] = dataclasses.field(default_factory=dict)
    noise: float = 0.0  # the share of its variation that is of the fits, see `linear.noise_share`


def of_task(
    task: Task, units: Units, clips: Vectors, options: Options, say: Callable[[str], None]
) -> tuple[dict[str, Predictions], dict[str, Predictions]]:
    """The probes, the one that counts first, and the controls. `say` is told what is done."""
    means = _means(task, units, clips)
    at = sample(len(means), SAMPLE, options.seed)
    rows = means.take(at)
    shuffled = controls.shuffled(units.truth, units.patients, options.seed)
    fit, name = (_ridge, "ridge") if task.kind == REGRESSION else (_logistic, "logistic")
    found: dict[str, Predictions] = {}
    for pool in task.pools:
        if pool == OF_EACH:
            words = "clips" if task.by == "path" else f"clips, {{}} averaged a {task.by}"
            both = fit(units, clips, units.of, shuffled, words, options.seed)
        else:
            every = np.arange(len(units.names))
            both = fit(units, means, every, shuffled, f"vectors averaged a {task.by}", options.seed)
        both = [dataclasses.replace(one, noise=linear.noise_share(one.heads, rows, units.split.tested)) for one in both]
        found[name if not found else f"{name}, {pool} averaged"] = both[0]
        if len(found) == 1:
            main, by_chance = both
        say(f"{name} done")
    found["neighbours"] = _neighbours(units, rows, at, main.noise)
    wide = summary.wide(units)
    trees = probes.trees(units.headers, units.truth, len(units.classes) if units.classes else None, units.split)
    headers = "gradient boosted trees on what headers say: " + ", ".join(units.headers.columns)
    baselines = {
        "majority" if units.classes else "mean": Predictions(
            "the shares of the classes" if units.classes else "the mean of the labels",
            controls.constant(wide, units.split),
        ),
        "shuffled": by_chance,
        METADATA: Predictions(headers, trees, noise=main.noise),
    }
    say("neighbours and controls done")
    return found, baselines


def few(task: Task, units: Units, clips: Vectors, options: Options) -> dict[int, Predictions]:
    """By number of patients, what is predicted after so few, with vectors averaged a unit first.

    Numbers that a training set does not have are left out.
    """
    if not options.shots:
        return {}
    means, tested = _means(task, units, clips), units.split.tested
    rows = means.take(sample(len(means), SAMPLE, options.seed))
    order = np.random.default_rng(options.seed).permutation(int(units.patients.max()) + 1)
    there = {
        one: order[np.isin(order, units.patients[np.isin(units.split.group, units.split.training(one))])]
        for one in tested
    }
    made = {}
    for count in options.shots:
        if count > min(map(len, there.values())):
            print(f"evaluate.shots: {count}: there are fewer patients to train with, left out", flush=True)
            continue
        values = np.full(summary.wide(units).shape, np.nan)
        heads: dict[int | None, Head] = {}
        for one in tested:
            asked = np.flatnonzero(units.split.group == one)
            heads[one] = _by_few(units, means, there[one][:count], one)
            values[asked] = heads[one](means.take(asked))
        values = softmax(values, axis=1) if units.classes else values
        noise = linear.noise_share(heads, rows, tested)
        made[count] = Predictions(f"{count} patients", values, noise=noise)
    return made


def _means(task: Task, units: Units, clips: Vectors) -> Vectors:
    """The mean vector of each unit; a clip's is its own."""
    return clips if task.by == "path" else linear.means(clips, units.of, len(units.names))


def _part(split: Split, at: Integers) -> Split:
    """The split of some of its units, or of clips by their units."""
    return dataclasses.replace(split, group=split.group[at])


# --- probes -----------------------------------------------------------------------------------------
# Each with labels as they are and shuffled, on vectors [c, D] that are `of` these units [c].


def _ridge(
    units: Units, vectors: Vectors, of: Integers, shuffled: Labels, words: str, seed: int
) -> Sequence[Predictions]:
    targets = np.stack([units.truth, shuffled], axis=1).astype(np.float64)
    split = _part(units.split, of)
    made = ridge.fit(vectors, targets[of], split)
    values = units.mean(linear.predict(made.heads, vectors, split.group, split.tested), of)
    return [
        Predictions(
            said,
            values[:, i : i + 1],
            [float(made.penalties[group][i]) for group in split.tested],
            {group: head.column(i) for group, head in made.heads.items()},
        )
        for i, said in enumerate(("ridge regression on " + words.format("predictions"), BY_CHANCE))
    ]


def _logistic(
    units: Units, vectors: Vectors, of: Integers, shuffled: Labels, words: str, seed: int
) -> Sequence[Predictions]:
    split, at = _part(units.split, of), sample(len(vectors), SAMPLE, seed)
    said = "logistic regression on " + words.format("probabilities")
    if len(at) < len(vectors):
        said += f", fitted to a sample of {len(at):,} of {len(vectors):,}"
    rows, made = vectors.take(at), []
    for truth, says in ((units.truth, said), (shuffled, BY_CHANCE)):
        heads, penalties = probes.logistic(
            rows, truth[of[at]].astype(np.int64), len(units.classes or ()), _part(split, at)
        )
        values = units.mean(softmax(linear.predict(heads, vectors, split.group, split.tested), axis=1), of)
        made.append(Predictions(says, values, [penalties[group] for group in split.tested], heads))
    return made


def _neighbours(units: Units, rows: npt.NDArray[np.float32], at: Integers, noise: float) -> Predictions:
    """Of the units `at`, whose mean vectors are `rows`."""
    values, chosen = probes.neighbours(rows, summary.wide(units)[at], _part(units.split, at))
    every = np.full((len(units.names), values.shape[1]), np.nan)
    every[at] = values
    part = f" of a sample of {len(at):,}" if len(at) < len(every) else ""
    says = f"nearest neighbours{part} by cosine of standardised vectors, averaged a unit first"
    return Predictions(says, every, [float(one) for one in chosen.values()], noise=noise)


def _by_few(units: Units, means: Vectors, patients: Integers, tested: int) -> Head:
    """A head for the group `tested`, fitted to these patients' units; they choose by groups of their own."""
    kept = np.flatnonzero(np.isin(units.patients, patients) & (units.split.group != tested))
    kept = kept[sample(len(kept), SAMPLE)]
    group = np.searchsorted(np.sort(patients), units.patients[kept]) % INNER
    split = Split(group, (INNER,), None, "")
    vectors = Vectors(means.matrix, means.rows[kept])
    if units.classes is None:
        return ridge.fit(vectors, units.truth[kept].astype(np.float64)[:, None], split).heads[INNER]
    truth = units.truth[kept].astype(np.int64)
    return probes.logistic(means.take(kept), truth, len(units.classes), split)[0][INNER]
