"""95 % intervals of figures by a bootstrap over patients, bias-corrected and accelerated.

Patients are drawn, with all their units; predictions are drawn along and nothing is fitted again. The interval is BCa
(Efron, Better Bootstrap Confidence Intervals, JASA 82, 1987): of the plain percentiles, those of R2 and of AUROC of 50
patients cover less than they say.

In a cross-validation each patient is tested, and teaches what tests the others. Where predictions are all noise of the
fits, both have the same part in a figure's variance, of which the drawn predictions show the first alone: it is twice
as large. Where they are all signal there is nothing to add. In between the quantiles are stretched by
sqrt(1 + the share of noise), see `linear.noise_share`; docs/evaluate.md has what such intervals cover.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Key = TypeVar("Key", bound=Hashable)
Figures = Callable[[Floats], dict[Key, Floats]]  # of weights [B, n] the figures, each [B], by name or more

LEVEL = 0.95
GROUPS = 200  # parts of the patients that the jackknife leaves out one by one, where there are more patients
BLOCK = 10_000_000  # weights that are in memory at a time


@dataclass(frozen=True)
class Interval:
    """A figure, and the interval that holds it."""

    value: float
    low: float  # NaN where more than a tenth of the samples do not define the figure
    high: float

    def moved(self, value: float) -> "Interval":
        """The same around another value."""
        return Interval(value, self.low + value - self.value, self.high + value - self.value)


def intervals(
    figures: Figures[Key], patients: Integers, number: int, seed: int, noise: Callable[[Key], float] = lambda _: 0.0
) -> dict[Key, Interval]:
    """The figures of n units with their intervals, from `number` samples of patients.

    `patients` [n] is the patient of each unit, 0 to m - 1. Equal seeds draw the same patients, so that the figures of
    two models of the same units can be subtracted: `figures` may do that. `noise` is the share of noise in what a
    figure is of, by its key.
    """
    point = figures(np.ones((1, len(patients))))
    drawn = _collect(figures, _samples(patients, number, seed))
    left_out = _collect(figures, _without_each(patients))
    count = int(patients.max()) + 1
    return {
        name: _bca(float(value[0]), drawn[name], left_out[name], count, np.sqrt(1 + noise(name)))
        for name, value in point.items()
    }


def _collect(figures: Figures[Key], weights: Iterator[Floats]) -> dict[Key, Floats]:
    """The figures of all blocks of weights."""
    found = [figures(block) for block in weights]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _samples(patients: Integers, number: int, seed: int) -> Iterator[Floats]:
    """Weights [b, n]: how often the patient of each unit was drawn."""
    count = int(patients.max()) + 1
    generator = np.random.default_rng(seed)
    step = max(1, BLOCK // len(patients))
    for start in range(0, number, step):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=min(step, number - start))
        yield drawn[:, patients].astype(np.float64)


def _without_each(patients: Integers) -> Iterator[Floats]:
    """Weights [b, n] that leave out one patient, or one of `GROUPS` parts of them, at a time."""
    count = int(patients.max()) + 1
    parts = min(GROUPS, count)
    part = np.random.default_rng(0).permutation(count) % parts
    step = max(1, BLOCK // len(patients))
    for start in range(0, parts, step):
        out = np.arange(start, min(start + step, parts))
        yield (part[patients][None, :] != out[:, None]).astype(np.float64)


def _bca(value: float, drawn: Floats, left_out: Floats, count: int, stretch: float) -> Interval:
    """The interval of a figure of `count` patients from its samples and its jackknife, stretched."""
    defined = np.sort(drawn[np.isfinite(drawn)])
    if not np.isfinite(value) or len(defined) < 0.9 * len(drawn):
        return Interval(value, np.nan, np.nan)
    if defined[0] == defined[-1]:
        return Interval(value, float(defined[0]), float(defined[-1]))
    below = ((defined < value).sum() + 0.5 * (defined == value).sum()) / len(defined)
    bias = ndtri(np.clip(below, 1 / (len(defined) + 1), 1 - 1 / (len(defined) + 1)))
    apart = left_out[np.isfinite(left_out)]
    apart = apart.mean() - apart
    squares = (apart**2).sum()
    acceleration = (apart**3).sum() / (6 * squares**1.5) if squares > 0 else 0.0
    # Samples spread too little, by a factor of sqrt((m - 1) / m), and few patients ask for Student's quantiles.
    wide = np.sqrt(count / (count - 1)) * stdtrit(count - 1, (1 + LEVEL) / 2) if count > 1 else np.nan
    ends = bias + stretch * np.array([-wide, wide])
    low, high = np.quantile(defined, ndtr(bias + ends / np.maximum(1 - acceleration * ends, 0.1)))
    return Interval(value, float(low), float(high))
