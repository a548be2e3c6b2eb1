"""Pairs of clips by what they share: counts of their cosine similarity, and how well it tells patients apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from sklearn.metrics import auc

from .base import SEED, Floats, Histogram, Integers, Vectors, blocks, sample, share_out

FINE = 20_000  # bins of cosine similarity, 0.0001 wide
DRAWN = 60  # bins of a picture
PAIRS = 50_000  # of each sort that a resampling of patients is reckoned on
RESAMPLES = 200
ROWS = 128  # of a product of similarities at a time
STUDY, PATIENT, BETWEEN = "same study", "same patient, other study", "different patients"
ONE_PATIENT = "same patient, study not known"
SORTS = (STUDY, PATIENT, ONE_PATIENT, BETWEEN)
OF_UNKNOWN = 9  # the class of pairs of which a patient is not known; see `_classes`
CLASSES = 10


@dataclass(frozen=True)
class Separation:
    """How much more alike clips of a sort are than clips of different patients."""

    sort: str  # `STUDY`, `PATIENT` or `ONE_PATIENT`
    pairs: int  # of that sort
    against: int  # pairs of different patients
    auc: float  # chance that a pair of that sort is more alike than one of different patients
    low: float  # 95 % interval of the AUC, from resampling patients
    high: float


@dataclass(frozen=True)
class Comparison:
    """Pairs of clips by what they share."""

    pairs: dict[str, int]  # sort -> how many
    mean: dict[str, float | None]  # sort -> mean cosine similarity; None of no pairs
    histograms: dict[str, Histogram]  # sort -> counts; empty ones left out
    separation: list[Separation]


@dataclass
class Pairs:
    """Pairs of some classes: counts of all, and a draw of them for the resampling."""

    counts: Integers  # [FINE]
    sum: float
    drawn: Integers  # [d, 3]: bin, and the two clips' patients

    @property
    def number(self) -> int:
        """How many."""
        return int(self.counts.sum())


@dataclass
class Tally:
    """Pairs of all classes."""

    counts: Integers = field(default_factory=lambda: np.zeros((CLASSES, FINE), np.int64))
    sums: Floats = field(default_factory=lambda: np.zeros(CLASSES))
    drawn: list[Integers] = field(default_factory=list)  # [d, 4]: class, bin, and the two clips' patients
    low: float = np.inf
    high: float = -np.inf

    def __iadd__(self, other: "Tally") -> "Tally":
        self.counts += other.counts
        self.sums += other.sums
        self.drawn += other.drawn
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        return self

    def of(self, classes: Sequence[int]) -> Pairs:
        """The pairs of these classes."""
        drawn = np.concatenate([np.empty((0, 4), np.int64), *self.drawn])
        chosen = drawn[np.isin(drawn[:, 0], classes), 1:]
        return Pairs(self.counts[classes].sum(axis=0), float(self.sums[classes].sum()), chosen)


def classes_of(sort: str, one_device: bool) -> list[int]:
    """The classes that a sort of pairs has, or only those made by one model of device; see `_classes`."""
    first = 1 + 2 * SORTS.index(sort)
    return [first + 1] if one_device else [first, first + 1]


def _classes(first: Integers, second: Integers) -> npt.NDArray[np.uint8]:
    """The class [a, b] of each pair of clips, whose patients, studies and devices are `first` [3, a] and `second`.

    1 + 2 times the place of its sort in `SORTS`, one more where one model of device made both; `OF_UNKNOWN`
    where a patient is not known. Numbers below 0 are unknown ones.
    """
    patient, study, device = first[:, :, None] == second[:, None, :]
    device &= (first[2] >= 0)[:, None]
    known, study_known = ((first[i] >= 0)[:, None] & (second[i] >= 0) for i in (0, 1))
    of_patient = np.where(study_known, np.where(study, np.uint8(0), np.uint8(1)), np.uint8(2))
    sort = np.where(patient, of_patient, np.uint8(3))
    return np.where(known, 1 + 2 * sort + device, np.uint8(OF_UNKNOWN))


def unit(vectors: Vectors, norms: Floats, places: Integers) -> Floats:
    """The vectors at `places`, of length one, float32."""
    return (vectors.take(places) / norms[places, None]).astype(np.float32)


def sampled(directions: Floats, codes: Integers) -> Tally:
    """All pairs of the `directions` [m, D]; `codes` [3, m] number patient, study and device, below 0 unknown ones."""
    m = len(directions)
    share = 2 * PAIRS / max(1, m * (m - 1) // 2)

    def count(places: Sequence[slice]) -> Tally:
        tally = Tally()
        for place in places:
            cosines = directions[place] @ directions[place.start :].T
            classes = _classes(codes[:, place], codes[:, place.start :])
            _add(tally, cosines, classes, codes[0, place], codes[0, place.start :], share, place.start)
        return tally

    return _sum(share_out(blocks(m, ROWS), count))


def within_patients(vectors: Vectors, norms: Floats, places: Integers, codes: Integers) -> Tally:
    """All pairs of clips of one patient, among those at `places` [m] with the `codes` [3, m]."""
    order = np.argsort(codes[0], kind="stable")
    order = order[codes[0, order] >= 0]
    places, codes = places[order], codes[:, order]
    ends = np.searchsorted(codes[0], codes[0], side="right")  # of each clip's patient
    share = 2 * PAIRS / max(1, int((ends - np.arange(len(ends)) - 1).sum()))

    def count(rows: Sequence[slice]) -> Tally:
        tally = Tally()
        for row in rows:
            columns = slice(row.start, int(ends[row.stop - 1]))
            directions = unit(vectors, norms, places[columns])
            cosines = directions[: row.stop - row.start] @ directions.T
            classes = _classes(codes[:, row], codes[:, columns])
            classes[codes[0, row, None] != codes[0, columns]] = 0
            _add(tally, cosines, classes, codes[0, row], codes[0, columns], share, row.start)
        return tally

    return _sum(share_out(blocks(len(order), ROWS), count))


def _sum(parts: Iterable[Tally]) -> Tally:
    total = Tally()
    for part in parts:
        total += part
    return total


def _add(
    tally: Tally,
    cosines: Floats,
    classes: npt.NDArray[np.uint8],
    first: Integers,
    second: Integers,
    share: float,
    seed: int,
) -> None:
    """Count the pairs above the diagonal of `cosines` [a, b] that have a class, and draw a `share` of them.

    `first` [a] and `second` [b] are the clips' patients.
    """
    chosen = np.flatnonzero(np.triu(classes, 1))
    if not len(chosen):
        return
    values, of = cosines.ravel()[chosen], classes.ravel()[chosen].astype(np.int64)
    bins = ((values + 1) * (FINE / 2)).astype(np.int64).clip(0, FINE - 1)
    tally.counts += np.bincount(of * FINE + bins, minlength=CLASSES * FINE).reshape(CLASSES, FINE)
    tally.sums += np.bincount(of, values, CLASSES)
    tally.low, tally.high = min(tally.low, float(values.min())), max(tally.high, float(values.max()))
    if share >= 1:
        drawn = np.arange(len(chosen))
    else:
        generator = np.random.default_rng([SEED, seed])
        drawn = generator.integers(0, len(chosen), generator.poisson(share * len(chosen)))
    row, column = np.divmod(chosen[drawn], cosines.shape[1])
    tally.drawn.append(np.column_stack([of[drawn], bins[drawn], first[row], second[column]]))


def compare(sorts: dict[str, Pairs], patients: int) -> Comparison | None:
    """Sort -> pairs, compared; `patients` are known. None where there is no pair."""
    found = {sort: pairs for sort, pairs in sorts.items() if pairs.number}
    if not found:
        return None
    sorts = {sort: pairs for sort, pairs in sorts.items() if pairs.number or sort != ONE_PATIENT}
    return Comparison(
        pairs={sort: pairs.number for sort, pairs in sorts.items()},
        mean={sort: pairs.sum / pairs.number if pairs.number else None for sort, pairs in sorts.items()},
        histograms=dict(zip(found, histograms(list(found.values())), strict=True)),
        separation=[
            _separation(sort, found[sort], found[BETWEEN], patients)
            for sort in (STUDY, PATIENT, ONE_PATIENT)
            if sort in found and BETWEEN in found
        ],
    )


def histograms(sorts: Sequence[Pairs]) -> list[Histogram]:
    """The fine counts in the bins of a picture, the same for all."""
    used = np.flatnonzero(np.sum([pairs.counts for pairs in sorts], axis=0))
    width = max(1, -(-(int(used[-1]) - int(used[0]) + 1) // DRAWN))
    starts = np.arange(int(used[0]), int(used[-1]) + 1, width)
    edges = np.append(starts, starts[-1] + width) * (2 / FINE) - 1
    return [Histogram(edges, np.add.reduceat(pairs.counts, starts)) for pairs in sorts]


def _separation(sort: str, alike: Pairs, between: Pairs, patients: int) -> Separation:
    """The AUC of all pairs, and its percentile interval.

    Each resample draws as many patients as there are, with replacement; a pair of one patient counts as
    often as the patient was drawn, a pair of two as often as the product of theirs. It is reckoned on a draw
    of the pairs, and its interval is moved by what that draw's AUC is off that of all.
    """
    everything = _auc(alike.counts, between.counts)
    (bins1, p1, _), (bins0, p0, q0) = (pairs.drawn[sample(len(pairs.drawn), PAIRS)].T for pairs in (alike, between))
    generator = np.random.default_rng(SEED)
    resampled = []
    for _ in range(RESAMPLES):
        times = np.bincount(generator.integers(0, patients, patients), minlength=patients)
        weighted = (
            np.bincount(bins1, weights=times[p1], minlength=FINE),
            np.bincount(bins0, weights=times[p0] * times[q0], minlength=FINE),
        )
        if all(counts.any() for counts in weighted):
            resampled.append(_auc(*weighted))
    if not resampled:
        return Separation(sort, alike.number, between.number, everything, 0.0, 1.0)
    shift = everything - _auc(np.bincount(bins1, minlength=FINE), np.bincount(bins0, minlength=FINE))
    low, high = np.quantile(resampled, [0.025, 0.975]) + shift
    return Separation(sort, alike.number, between.number, everything, float(max(0, low)), float(min(1, high)))


def _auc(alike: npt.NDArray[np.generic], between: npt.NDArray[np.generic]) -> float:
    """Of pairs counted in the fine bins: those in one bin are taken for ties."""
    rates = (np.cumsum(counts[::-1]) / counts.sum() for counts in (between, alike))
    return float(auc(*(np.concatenate([[0], rate]) for rate in rates)))
