"""Probes that scikit-learn fits: logistic regression, nearest neighbours, and trees on what headers say.

All of them predict each tested group from the others. They are fitted to few enough vectors for the memory: those of
units, or a sample of clips.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_softmax
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from .linear import Head
from .splits import Split

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SAMPLE = 20_000  # vectors that these probes are fitted to, at most
PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)  # of a vector, as `ridge` has it
NEIGHBOURS = (5, 10, 20, 50)
ITERATIONS = 300
# Small steps of small trees: larger ones fit the noise of a few hundred units.
TREES: dict[str, Any] = {
    **{"categorical_features": "from_dtype", "early_stopping": False, "random_state": 0},
    **{"learning_rate": 0.05, "max_leaf_nodes": 8, "min_samples_leaf": 20, "max_iter": 100},
}
CERTAIN = 30.0  # the logit of the only class that a training set has


# --- logistic regression ----------------------------------------------------------------------------


def logistic(
    matrix: npt.NDArray[np.float32], truth: Integers, classes: int, split: Split
) -> tuple[dict[int | None, Head], dict[int | None, float]]:
    """Heads to logits of `classes`, and the penalties that were chosen, of vectors [n, D] of classes `truth` [n].

    One of the groups to choose by is left out for the choice, the next after the tested one; it is trained with then.
    """
    heads: dict[int | None, Head] = {}
    penalties: dict[int | None, float] = {}
    for tested in (*split.tested, None):
        training = split.training(tested)
        after = [one for one in split.choosing(training) if tested is None or one > tested]
        out = (after or split.choosing(training))[0]
        rest = [one for one in training if one != out]
        best = PENALTIES[len(PENALTIES) // 2]
        held = np.isin(split.group, out)
        if held.any() and np.isin(split.group, rest).any():
            of_held = np.arange(held.sum()), truth[held]
            path = _path(matrix, truth, classes, split, rest)
            losses = [-log_softmax(head(matrix[held]), axis=1)[of_held].mean() for head in path]
            best = PENALTIES[int(np.argmin(losses))]
        wanted = PENALTIES[: PENALTIES.index(best) + 1]
        heads[tested] = _path(matrix, truth, classes, split, training, wanted)[-1]
        penalties[tested] = best
    return heads, penalties


def _path(
    matrix: npt.NDArray[np.float32],
    truth: Integers,
    classes: int,
    split: Split,
    training: Sequence[int],
    penalties: Sequence[float] = PENALTIES,
) -> list[Head]:
    """The heads of all penalties, largest first: each fit begins where the one before ended."""
    mine = np.isin(split.group, training)
    rows, y = matrix[mine], truth[mine]
    mean = rows.mean(axis=0, dtype=np.float64)
    scale = rows.std(axis=0, dtype=np.float64)
    scale[scale <= 1e-5 * np.maximum(np.abs(mean), scale.max(initial=0))] = np.inf
    there = np.unique(y)
    if len(there) < 2:
        bias = np.where(np.isin(np.arange(classes), there), CERTAIN, 0.0)
        return [Head(mean, np.ones_like(mean), np.zeros((len(mean), classes)), bias)] * len(penalties)
    standard = ((rows - mean) / scale).astype(np.float32)
    model = LogisticRegression(warm_start=True, max_iter=ITERATIONS)
    heads = []
    for penalty in penalties:
        model.set_params(C=1 / (penalty * len(y)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of a weak penalty, which the choice then judges
            model.fit(standard, y)
        weights, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
        if len(there) == 2:  # scikit-learn has one logit then, that of the second
            weights, bias = np.concatenate([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
        full, constant = np.zeros((len(mean), classes)), np.full(classes, -CERTAIN)
        full[:, there], constant[there] = weights.T, bias
        heads.append(Head(mean, np.where(np.isinf(scale), 1, scale), full * np.isfinite(scale)[:, None], constant))
    return heads


# --- nearest neighbours -----------------------------------------------------------------------------


def neighbours(matrix: npt.NDArray[np.float32], targets: Floats, split: Split) -> tuple[Floats, dict[int, int]]:
    """The mean of the targets [n, T] of each vector's nearest others [n, T], and how many of them each group asks.

    Nearest by cosine after standardisation; only training groups are asked, and of those that choose not their own.
    """
    made = np.full(targets.shape, np.nan)
    chosen: dict[int, int] = {}
    for tested in split.tested:
        training = split.training(tested)
        mine = np.flatnonzero(np.isin(split.group, training))
        mean, scale = matrix[mine].mean(axis=0), matrix[mine].std(axis=0)
        standard = (matrix - mean) / np.where(scale > 1e-5 * scale.max(initial=0), scale, np.inf)
        standard /= np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), 1e-30)
        errors = np.zeros(len(NEIGHBOURS))
        for out in split.choosing(training):
            asked = np.flatnonzero(split.group == out)
            others = mine[split.group[mine] != out]
            if len(asked) and len(others):
                for i, found in enumerate(_means(standard, targets, asked, others)):
                    errors[i] += ((found - targets[asked]) ** 2).sum()
        at = int(errors.argmin()) if errors.any() else len(NEIGHBOURS) // 2
        asked = np.flatnonzero(split.group == tested)
        made[asked] = _means(standard, targets, asked, mine)[at]
        chosen[tested] = NEIGHBOURS[at]
    return made, chosen


def _means(standard: npt.NDArray[np.float32], targets: Floats, asked: Integers, others: Integers) -> list[Floats]:
    """For each of `NEIGHBOURS` the mean targets [a, T] of the nearest of the `others` to the `asked` [a]."""
    most = min(NEIGHBOURS[-1], len(others))
    made = [np.empty((len(asked), targets.shape[1])) for _ in NEIGHBOURS]
    for start in range(0, len(asked), 1024):
        alike = standard[asked[start : start + 1024]] @ standard[others].T
        near = np.argpartition(-alike, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(alike, near, axis=1), axis=1, kind="stable")
        values = targets[others[np.take_along_axis(near, order, axis=1)]]
        for place, count in zip(made, NEIGHBOURS, strict=True):
            place[start : start + 1024] = values[:, : min(count, most)].mean(axis=1)
    return made


# --- what headers say -------------------------------------------------------------------------------


def trees(table: pd.DataFrame, truth: npt.NDArray[np.generic], classes: int | None, split: Split) -> Floats:
    """Values [n, 1], or probabilities [n, classes], of units by columns of numbers and categories [n].

    Gradient boosted trees, which need no scaling, take missing values and find steps and interactions. How many, none
    among them, is chosen by a group that is left out.
    """
    wide: Floats = truth[:, None].astype(np.float64) if classes is None else np.eye(classes)[truth.astype(np.int64)]
    made = np.full(wide.shape, np.nan)
    for tested in split.tested:
        training, asked = split.training(tested), split.group == tested
        mine = np.isin(split.group, training)
        made[asked] = wide[mine].mean(axis=0)
        out = next((one for one in split.choosing(training) if (split.group == one).any()), None)
        held = split.group == out
        useful = table[[name for name in table if table[name][mine].nunique() > 1]]
        if useful.empty or not held.any() or len(np.unique(truth[mine & ~held])) < 2:
            continue
        guesses = [wide[mine & ~held].mean(axis=0), *_staged(useful, truth, classes, mine & ~held, held)]
        count = int(np.argmin([((wide[held] - guess) ** 2).sum() for guess in guesses]))
        if count:
            made[asked] = _staged(useful, truth, classes, mine, asked)[count - 1]
    return made


def _staged(
    table: pd.DataFrame,
    truth: npt.NDArray[np.generic],
    classes: int | None,
    mine: npt.NDArray[np.bool_],
    asked: npt.NDArray[np.bool_],
) -> list[Floats]:
    """What one, two and more trees fitted to the units `mine` say of those `asked`, each [a, 1 or classes]."""
    if classes is None:
        of_numbers = HistGradientBoostingRegressor(**TREES).fit(table[mine], truth[mine])
        return [values[:, None] for values in of_numbers.staged_predict(table[asked])]
    model = HistGradientBoostingClassifier(**TREES).fit(table[mine], truth[mine])
    names = np.eye(classes)[model.classes_]
    return [shares @ names for shares in model.staged_predict_proba(table[asked])]
