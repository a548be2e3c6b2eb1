"""Ridge regression on more vectors than fit into memory, its penalty chosen within the training groups.

One pass over the vectors sums, for each group of patients, what a fit needs of them: number, sum, Gram matrix, and the
products with the targets. The moments of any training set are then sums of those of its groups, standardisation
included; all penalties of a training set come from one eigendecomposition, and the squared error of each on a group
that was left out comes from that group's moments. Five folds with nested choice take one pass and sixteen
decompositions, whatever the number of penalties and targets; nothing is fitted again.

The penalty is that of a clip: of n clips, standardised, ||y - Xw||^2 + n penalty ||w||^2 is minimised.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..qc.base import Vectors
from .linear import BLOCK, Head, finite
from .splits import Split

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PENALTIES = 10.0 ** np.arange(-4, 4.5, 0.5)


@dataclass
class _Moments:
    """Sums over n vectors x [D], measured from a point that lies among them, and targets y [T]."""

    n: float
    x: Floats  # [D]
    xx: Floats  # [D, D]
    xy: Floats  # [D, T]
    y: Floats  # [T]
    yy: Floats  # [T]

    @classmethod
    def zero(cls, dim: int, targets: int) -> "_Moments":
        return cls(0, np.zeros(dim), np.zeros((dim, dim)), np.zeros((dim, targets)), *np.zeros((2, targets)))

    def add(self, block: npt.NDArray[np.float32], y: Floats) -> None:
        self.n += len(block)
        self.x += block.sum(axis=0, dtype=np.float64)
        self.xx += block.T @ block  # in float32, of one block: its rounding is that of the vectors themselves
        self.xy += block.T.astype(np.float64) @ y
        self.y += y.sum(axis=0)
        self.yy += (y**2).sum(axis=0)

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(*(getattr(self, name) + getattr(other, name) for name in ("n", "x", "xx", "xy", "y", "yy")))


@dataclass(frozen=True)
class _Fits:
    """The solutions [P, D, T] of all penalties for one training set, in terms of vectors as they are measured."""

    mean: Floats  # [D]
    scale: Floats  # [D]
    weights: Floats  # [P, D, T], of standardised vectors
    bias: Floats  # [T]

    def errors(self, group: _Moments) -> Floats:
        """The sums of squared errors [P, T] on the vectors of a group."""
        w = self.weights / self.scale[:, None]
        b = self.bias - np.einsum("d,pdt->pt", self.mean, w)
        through = np.einsum("pdt,pdt->pt", w, np.tensordot(w, group.xx, axes=([1], [0])).transpose(0, 2, 1))
        cross = np.einsum("pdt,dt->pt", w, group.xy) + b * group.y
        alone = 2 * b * np.einsum("pdt,d->pt", w, group.x) + group.n * b**2
        errors: Floats = group.yy - 2 * cross + through + alone
        return errors


@dataclass(frozen=True)
class Ridge:
    """What was fitted: for each tested group, and for all that may be trained with (None), a head and its penalties."""

    heads: dict[int | None, Head]
    penalties: dict[int | None, Floats]  # [T]


def fit(vectors: Vectors, targets: Floats, split: Split) -> Ridge:
    """Fit targets [n, T], each for itself, to n vectors; `split` has their groups."""
    offset = targets.mean(axis=0)
    centre, moments = _measure(vectors, targets - offset, split.group)
    solved: dict[tuple[int, ...], _Fits] = {}

    def fits(groups: Sequence[int]) -> _Fits:
        key = tuple(sorted(groups))
        if key not in solved:
            solved[key] = _solve(_sum_of(moments, key))
        return solved[key]

    heads, penalties = {}, {}
    for tested in (*split.tested, None):
        training = [one for one in split.training(tested) if one in moments]
        errors = np.zeros((len(PENALTIES), targets.shape[1]))
        for out in split.choosing(training):
            rest = [one for one in training if one != out]
            if rest and out in moments:
                errors += fits(rest).errors(moments[out])
        # A lone group leaves nothing to choose by.
        best = errors.argmin(axis=0) if errors.any() else np.full(targets.shape[1], len(PENALTIES) // 2)
        found = fits(training)
        weights = np.stack([found.weights[p, :, t] for t, p in enumerate(best)], axis=1)
        heads[tested] = Head(found.mean + centre, found.scale, weights, found.bias + offset)
        penalties[tested] = PENALTIES[best]
    return Ridge(heads, penalties)


def _sum_of(moments: dict[int, _Moments], groups: Sequence[int]) -> _Moments:
    """Those of all of the groups together."""
    total = moments[groups[0]]
    for one in groups[1:]:
        total = total + moments[one]
    return total


def _measure(vectors: Vectors, targets: Floats, group: Integers) -> tuple[Floats, dict[int, _Moments]]:
    """The point that is measured from, the mean of a part of the vectors; and each group's moments."""
    first = vectors.take(np.arange(len(vectors))[:: max(1, len(vectors) // BLOCK)][:BLOCK])
    centre = first.mean(axis=0, dtype=np.float64).astype(np.float32)
    dim, count = vectors.matrix.shape[1], targets.shape[1]
    moments = {int(one): _Moments.zero(dim, count) for one in np.unique(group)}
    for place, block in finite(vectors):
        apart = block - centre
        for one in np.unique(group[place]):
            mine = group[place] == one
            moments[int(one)].add(apart[mine], targets[place][mine])
    return centre.astype(np.float64), moments


def _solve(total: _Moments) -> _Fits:
    """All penalties for the training set of these moments."""
    mean, bias = total.x / total.n, total.y / total.n
    covariance = total.xx - total.n * np.outer(mean, mean)
    variance = np.diag(covariance) / total.n
    # What does not vary but for rounding has nothing to say, and must not be blown up to unit variance.
    varies = variance > 1e-10 * np.maximum(mean**2, variance.max(initial=0))
    scale = np.where(varies, np.sqrt(np.where(varies, variance, 1)), 1)
    covariance *= np.outer(varies / scale, varies / scale)
    product = (total.xy - np.outer(mean, total.y)) * (varies / scale)[:, None]
    values, basis = np.linalg.eigh(covariance)
    turned = basis.T @ product
    damped = 1 / (np.maximum(values, 0)[None] + total.n * PENALTIES[:, None])
    weights = np.stack([basis @ (row[:, None] * turned) for row in damped])
    return _Fits(mean, scale, weights, bias)
