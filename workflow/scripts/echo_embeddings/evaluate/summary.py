"""Predictions looked at closely: figures, by stratum too, calibration, confusion, and the largest errors."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from . import leaks, metrics
from .units import CATEGORIES, N_CLIPS, Units

Floats = npt.NDArray[np.float64]

WORST, OF_UNIT = 12, 4  # units with the largest errors, and clips shown of each
POINTS = 2000  # of a scatter
STRATUM = 20  # units that a stratum has at least
BINS = 10


def wide(units: Units) -> Floats:
    """The truth as probes predict it: [n, 1], or one column a class."""
    if units.classes is None:
        return units.truth.astype(np.float64)[:, None]
    return np.eye(len(units.classes))[units.truth.astype(np.int64)]


def figures(units: Units, values: Floats, at: npt.NDArray[np.int64], weights: Floats) -> dict[str, Floats]:
    """The figures of the values of the units `at`, each [B], see `metrics`."""
    if units.classes is None:
        return metrics.regression(units.truth[at].astype(np.float64), values[at, 0], weights)
    return metrics.classification(units.truth[at].astype(np.int64), values[at], weights)


def counts(units: Units) -> dict[str, Any]:
    """How many there are of what."""
    of_class = None
    if units.classes:
        patients = leaks.class_patients(units, np.ones(len(units.names), bool))
        of_class = {
            name: {"units": int((units.truth == i).sum()), "patients": patients[name]}
            for i, name in enumerate(units.classes)
        }
    return {
        "clips": len(units.rows),
        "units": len(units.names),
        "tested": int(np.isin(units.split.group, units.split.tested).sum()),
        "patients": int(units.patients.max()) + 1,
        "unlabelled": units.unlabelled,
        "of_class": of_class,
    }


def of(units: Units, values: Floats) -> dict[str, Any]:
    """`strata`, `worst`, `calibration`, `confusion` and `scatter` of the values of the probe that counts."""
    at = np.flatnonzero(np.isfinite(values).all(axis=1))
    truth = units.truth[at]
    error = _error(units, values)[at]
    confusion = scatter = None
    if units.classes:
        size = len(units.classes)
        cells = truth.astype(np.int64) * size + values[at].argmax(axis=1)
        confusion = np.bincount(cells, minlength=size**2).reshape(size, size).tolist()
    else:
        shown = at if len(at) <= POINTS else np.sort(np.random.default_rng(0).choice(at, POINTS, replace=False))
        scatter = [[float(units.truth[i]), float(values[i, 0])] for i in shown]
    worst = at[np.argsort(-error, kind="stable")[:WORST]]
    return {
        "strata": [*_strata(units, values, at)],
        "worst": [_unit(units, values, int(i)) for i in worst],
        "calibration": _calibration(units, values, at),
        "confusion": confusion,
        "scatter": scatter,
    }


def predicted(units: Units, values: Floats) -> list[Any]:
    """The value, or the name of the likeliest class, of each unit."""
    if units.classes is None:
        return [float(value) for value in values[:, 0]]
    return [units.classes[i] for i in values.argmax(axis=1)]


def truths(units: Units) -> list[Any]:
    """The label of each unit as people read it."""
    return [units.classes[int(i)] for i in units.truth] if units.classes else [float(value) for value in units.truth]


def _error(units: Units, values: Floats) -> Floats:
    """How far off each prediction is: in the label's unit, or the probability that the truth lacks."""
    if units.classes is None:
        return np.abs(values[:, 0] - units.truth.astype(np.float64))
    missing: Floats = 1 - values[np.arange(len(values)), units.truth.astype(np.int64)]
    return missing


def _unit(units: Units, values: Floats, i: int) -> dict[str, Any]:
    mine = units.clips[units.of == i][:OF_UNIT]
    return {
        "key": units.names["key"].iloc[i],
        "truth": truths(units)[i],
        "prediction": predicted(units, values)[i],
        "clips": [[str(folder), str(name)] for folder, name in zip(mine["folder"], mine["file_path"], strict=True)],
    }


def _strata(units: Units, values: Floats, at: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Plain figures of parts of the units."""
    parts = {name: units.headers[name].astype("string").fillna("not known") for name in CATEGORIES}
    for name in ("frames", N_CLIPS):
        parts[name] = _thirds(units.headers[name])
    found = []
    for name, part in parts.items():
        for value in sorted(set(part.iloc[at])):
            mine = at[(part.iloc[at] == value).to_numpy()]
            if len(mine) < STRATUM or len(mine) == len(at):
                continue
            found_here = figures(units, values, mine, np.ones((1, len(mine))))
            plain = {figure: float(one[0]) for figure, one in found_here.items()}
            found.append({"column": name, "value": value or "not known", "units": len(mine), "figures": plain})
    return found


def _thirds(values: pd.Series) -> pd.Series:
    """Numbers as three ranges, in words."""
    known = values.dropna()
    edges = sorted(set(known.quantile([0, 1 / 3, 2 / 3, 1]))) if len(known) else []
    if len(edges) < 3:
        return pd.Series("all", values.index, dtype="string")
    names = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    return pd.cut(values, edges, labels=names, include_lowest=True).astype("string").fillna("not known")


def _calibration(units: Units, values: Floats, at: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """What was predicted against what was: by tenths of the units, or of the probability of the likeliest class."""
    if not len(at):
        return []
    if units.classes is None:
        said, was = values[at, 0], units.truth[at].astype(np.float64)
        order = np.argsort(said, kind="stable")
        groups = np.array_split(order, min(BINS, len(order)))
    else:
        said, was = values[at].max(axis=1), values[at].argmax(axis=1) == units.truth[at]
        bins = np.minimum((said * BINS).astype(int), BINS - 1)
        groups = [np.flatnonzero(bins == i) for i in range(BINS)]
    return [
        {"predicted": float(said[group].mean()), "observed": float(was[group].mean()), "units": len(group)}
        for group in groups
        if len(group)
    ]
