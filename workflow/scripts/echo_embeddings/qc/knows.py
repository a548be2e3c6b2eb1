"""What the vectors know: what of a clip can be told from those most like it that are of other patients."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from .base import MIN_PATIENTS, NEIGHBOURS, SEED, Floats, Integers
from .closest import closest, unit
from .columns import Column

DRAWS = 39  # of patients among each other: a figure above all of them is one in forty by chance
CLASS = 5  # patients that a value must have, and that must have another, to count
AUC, RHO = "AUC", "Spearman's rho"


@dataclass(frozen=True)
class Known:
    """How well one column is told by neighbours."""

    column: str
    measure: str
    value: float | None  # None where it is not tested
    chance: float | None  # the mean of the draws
    most: float | None  # the largest of them
    patients: int
    clips: int
    values: int  # different ones that count; 0 of numbers
    reason: str  # why it is not tested

    @property
    def above(self) -> bool:
        """Whether chance does not reach it."""
        return self.value is not None and self.most is not None and self.value > self.most


def examine(scores: Floats, patients: Integers, columns: Iterable[Column]) -> list[Known]:
    """Ask neighbours for each of the `columns` of P clips: those that tell most come first.

    `scores` [P, K] are those of the first components, `patients` [P] number the patients, below 0 unknown ones. The
    neighbours of a clip are the `NEIGHBOURS` nearest of other patients of which the column says something.
    """
    directions = unit(scores)
    cache: dict[bytes, Integers] = {}
    found = []
    for column in columns:
        rows = np.flatnonzero(column.known & (patients >= 0))
        owners = patients[rows]
        counts, tested, reason = _tested(column, rows, owners)
        measure = AUC if column.numbers is None else RHO
        value = chance = most = None
        if not reason:
            mask = rows.tobytes()
            if mask not in cache:
                cache[mask] = closest(directions[rows], NEIGHBOURS, owners)[0]
            value, chance, most = _figures(column, rows, owners, cache[mask], tested)
        found.append(Known(column.name, measure, value, chance, most, counts, len(rows), len(tested), reason))
    return sorted(found, key=lambda known: (known.value is None, -abs((known.value or 0) - (known.chance or 0))))


def _tested(column: Column, rows: Integers, owners: Integers) -> tuple[int, list[int], str]:
    """How many patients there are, the values that count, and why there is nothing to test."""
    patients = len(np.unique(owners))
    if not len(rows):
        return 0, [], "no patient is known" if column.known.any() else "nothing is known"
    if patients < MIN_PATIENTS:
        return patients, [], f"fewer than {MIN_PATIENTS} patients"
    if column.numbers is not None:
        return patients, [], ""
    pairs = np.unique(np.stack([column.codes[rows], owners]), axis=1)
    having = np.bincount(pairs[0], minlength=len(column.labels))
    clips = np.bincount(column.codes[rows], minlength=len(column.labels))
    # Patients who have it, and some clip of enough others who do not.
    tested = [
        code
        for code in np.flatnonzero(having >= CLASS).tolist()
        if clips[code] < len(rows) and len(np.unique(owners[column.codes[rows] != code])) >= CLASS
    ]
    return patients, tested, "" if tested else f"no two values that {CLASS} patients have"


def _figures(
    column: Column, rows: Integers, owners: Integers, near: Integers, tested: list[int]
) -> tuple[float, float, float]:
    """What neighbours reach, and the mean and the largest of what they reach where patients have others' values."""
    values: npt.NDArray[Any] = column.codes[rows] if column.numbers is None else column.numbers[rows]

    def reached(values: npt.NDArray[Any]) -> float:
        return _auc(values, near, tested) if column.numbers is None else _rho(values, near)

    generator = np.random.default_rng(SEED)
    draws = [reached(values[_others(owners, generator)]) for _ in range(DRAWS)]
    return reached(values), float(np.mean(draws)), float(np.max(draws))


def _others(owners: Integers, generator: np.random.Generator) -> Integers:
    """For each clip one of the patient whom a draw puts in its patient's place: patients stay together."""
    order = np.argsort(owners, kind="stable")
    _, starts, sizes = np.unique(owners[order], return_index=True, return_counts=True)
    patient = np.repeat(np.arange(len(starts)), sizes)
    rank = np.arange(len(owners)) - starts[patient]
    drawn = generator.permutation(len(starts))[patient]
    found = np.empty(len(owners), np.int64)
    found[order] = order[starts[drawn] + rank % sizes[drawn]]
    return found


def _auc(codes: Integers, near: Integers, tested: list[int]) -> float:
    """The mean over values of the chance that a clip which has it has more such neighbours than one which has not."""
    votes, k = codes[near], near.shape[1]
    found = []
    for code in tested:
        has, count = codes == code, (votes == code).sum(axis=1)
        yes = np.bincount(count[has], minlength=k + 1)
        no = np.bincount(count[~has], minlength=k + 1)
        if yes.sum() and no.sum():
            found.append(float((yes * (np.cumsum(no) - no / 2)).sum() / (yes.sum() * no.sum())))
    return float(np.mean(found)) if found else 0.5


def _rho(numbers: Floats, near: Integers) -> float:
    """The rank correlation of clips' numbers with the mean of their neighbours'."""
    ranks = np.stack([rankdata(numbers), rankdata(numbers[near].mean(axis=1))])
    return float(np.corrcoef(ranks)[0, 1]) if ranks.std(axis=1).all() else 0.0
