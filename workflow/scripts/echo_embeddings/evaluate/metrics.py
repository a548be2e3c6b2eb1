"""Figures of predictions, for many weightings of their units at once: a bootstrap asks for thousands.

Units (studies, clips or patients) are n; `weights` [B, n] says how often each stands in each of B samples. All of it is
float64. A figure that a sample does not define (one class alone, one value alone) is NaN there.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

REGRESSION = ("r2", "mae", "rmse", "pearson", "spearman")
CLASSIFICATION = ("auroc", "average_precision", "balanced_accuracy", "macro_f1")
OF_KIND = {"regression": REGRESSION, "classification": CLASSIFICATION}  # of a task; the first one counts
SMALLER_IS_BETTER = ("mae", "rmse")


def regression(truth: Floats, predicted: Floats, weights: Floats) -> dict[str, Floats]:
    """The figures `REGRESSION`, each [B], of predictions [n] of `truth` [n]."""
    total = weights.sum(axis=1)
    error = predicted - truth
    truth, predicted = truth - truth.mean(), predicted - predicted.mean()
    squares = weights @ error**2
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = weights @ truth / total
        spread = weights @ truth**2 - total * mean**2
        return {
            "r2": 1 - squares / np.where(spread > 1e-12 * (weights @ truth**2), spread, np.nan),
            "mae": weights @ np.abs(error) / total,
            "rmse": np.sqrt(squares / total),
            "pearson": _correlation(truth[None], predicted[None], weights),
            "spearman": _correlation(_ranks(truth, weights), _ranks(predicted, weights), weights),
        }


def classification(truth: Integers, scores: Floats, weights: Floats) -> dict[str, Floats]:
    """The figures `CLASSIFICATION`, each [B], of class probabilities `scores` [n, classes]; `truth` [n] are classes.

    AUROC and average precision are one class against the rest, the mean over classes; of two classes, that of the
    second. Predicted is the class of the largest probability. As scikit-learn defines them.
    """
    classes = range(scores.shape[1])
    asked = [1] if len(classes) == 2 else list(classes)
    areas = [_ranking(truth == c, scores[:, c], weights) for c in asked]
    chosen = scores.argmax(axis=1)
    hit = {c: weights @ ((truth == c) & (chosen == c)) for c in classes}
    there = {c: weights @ (truth == c) for c in classes}
    said = {c: weights @ (chosen == c) for c in classes}
    with np.errstate(invalid="ignore", divide="ignore"):
        recalls = np.stack([hit[c] / np.where(there[c] > 0, there[c], np.nan) for c in classes])
        f1 = np.stack([2 * hit[c] / np.where(there[c] + said[c] > 0, there[c] + said[c], np.nan) for c in classes])
    several = np.isfinite(recalls).sum(axis=0) > 1
    return {
        "auroc": np.mean([auroc for auroc, _ in areas], axis=0),
        "average_precision": np.mean([precision for _, precision in areas], axis=0),
        "balanced_accuracy": np.where(several, _mean(recalls), np.nan),
        "macro_f1": np.where(several, _mean(f1), np.nan),
    }


def _mean(values: Floats) -> Floats:
    """The mean over the first axis of what is no NaN."""
    finite = np.isfinite(values)
    mean: Floats = np.where(finite, values, 0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    return mean


def _correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's correlation [B] of `x` and `y`, each [1 or B, n] and about 0."""
    total = weights.sum(axis=1)
    of_x, of_y = weights * x, weights * y
    mean_x, mean_y = of_x.sum(axis=1) / total, of_y.sum(axis=1) / total
    product = np.einsum("bn,bn->b", of_x, y) - total * mean_x * mean_y
    raw = np.einsum("bn,bn->b", of_x, x), np.einsum("bn,bn->b", of_y, y)
    spread = [one - total * mean**2 for one, mean in zip(raw, (mean_x, mean_y), strict=True)]
    varies = (spread[0] > 1e-12 * raw[0]) & (spread[1] > 1e-12 * raw[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation: Floats = product / np.sqrt(np.where(varies, spread[0] * spread[1], np.nan))
    return correlation


def _ranks(values: Floats, weights: Floats) -> Floats:
    """The rank [B, n] of each value in each sample, where it stands as often as its weight; ties share theirs.

    Counted from the middle.
    """
    order, starts, back = _groups(values)
    grouped = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks: Floats = (np.cumsum(grouped, axis=1) - grouped / 2 - grouped.sum(axis=1, keepdims=True) / 2)[:, back]
    return ranks


def _ranking(positive: npt.NDArray[np.bool_], score: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """AUROC and average precision, each [B], of a `score` [n] that ought to be higher where `positive` [n]."""
    order, starts, _ = _groups(-score)
    sums = np.add.reduceat(weights[:, order], starts, axis=1)
    hits = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    found, passed = np.cumsum(hits, axis=1), np.cumsum(sums, axis=1)
    positives, negatives = found[:, -1], passed[:, -1] - found[:, -1]
    misses = sums - hits
    behind = negatives[:, None] - np.cumsum(misses, axis=1) + misses / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = (hits * behind).sum(axis=1) / np.where(positives * negatives > 0, positives * negatives, np.nan)
        precision = found / np.where(passed > 0, passed, 1)
        average = (hits * precision).sum(axis=1) / np.where(positives * negatives > 0, positives, np.nan)
    return auroc, average


def _groups(values: Floats) -> tuple[Integers, Integers, Integers]:
    """The order of values [n], where each group of equal ones begins in it, and the group of each value."""
    order = np.argsort(values, kind="stable")
    sorted_ = values[order]
    new = np.concatenate([[True], sorted_[1:] != sorted_[:-1]])
    back = np.empty(len(values), np.int64)
    back[order] = np.cumsum(new) - 1
    return order, np.flatnonzero(new), back
