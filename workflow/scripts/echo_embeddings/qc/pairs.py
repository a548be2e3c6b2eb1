"""Pairs of clips by what they share, and how well their cosine similarity tells patients apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from .base import SEED, Bools, Floats, Histogram, Integers, spread

DRAWN = 60  # bins of a picture
PAIRS = 100_000  # of a sort that are looked at: all of them, or a seeded draw
STUDY, PATIENT, BETWEEN = "same study", "same patient, other study", "different patients"
ONE_PATIENT = "same patient, study not known"
SORTS = (STUDY, PATIENT, ONE_PATIENT, BETWEEN)

Cosines = Callable[[Integers, Integers], Floats]  # numbers [p] of clips, twice -> their cosine similarities [p]


@dataclass(frozen=True)
class Separation:
    """How much closer clips of a sort are than clips of different patients."""

    sort: str  # `STUDY`, `PATIENT` or `ONE_PATIENT`
    pairs: int  # of that sort
    against: int  # pairs of different patients
    patients: int  # that have pairs of that sort
    auc: float  # chance that a pair of that sort is closer than one of different patients
    low: float  # 95 % interval of the AUC, over patients
    high: float


@dataclass(frozen=True)
class Comparison:
    """Pairs of clips by what they share."""

    pairs: dict[str, int]  # sort -> how many there are
    mean: dict[str, float | None]  # sort -> mean cosine similarity; None of no pairs
    histograms: dict[str, Histogram]  # sort -> counts; empty ones left out
    separation: list[Separation]


@dataclass(frozen=True)
class Pairs:
    """Pairs of a sort: how many there are, and those that are looked at."""

    number: int
    patients: Integers  # [2, p]
    cosines: Floats  # [p]


def draw(group: Integers, patient: Integers, study: Integers, cosines: Cosines, most: int = PAIRS) -> dict[str, Pairs]:
    """Sort -> its pairs, of n clips whose `group`, `patient` and `study` [n] are numbered; below 0 are unknown.

    The two clips of a pair are of one group. Clips of an unknown group or patient are in no pair. Of each sort `most`
    pairs are looked at.
    """
    # Clips of a patient lie side by side, those of a study within them, and those of no known study last: so the
    # other clips of each sort of pairs lie side by side as well, and a pair is a number.
    order = np.lexsort((study, study < 0, patient, group))
    order = order[(group[order] >= 0) & (patient[order] >= 0)]
    group, patient, study = group[order], patient[order], study[order]
    known, here = study >= 0, np.arange(len(order))
    of_group, of_patient = _ends(group), _ends(group, patient)
    of_known, of_study = _ends(group, patient, known), _ends(group, patient, known, study)
    of_known = np.where(known, of_known, here)
    ranges = {
        STUDY: (here + 1, np.where(known, of_study, 0)),
        PATIENT: (of_study, np.where(known, of_known, 0)),
        ONE_PATIENT: (np.maximum(here + 1, of_known), of_patient),
        BETWEEN: (of_patient, of_group),
    }
    found = {}
    for sort, (starts, ends) in ranges.items():
        number, first, second = _pairs(starts, ends, most)
        both = order[first], order[second]
        found[sort] = Pairs(number, patient[np.stack([first, second])], cosines(*both))
    return found


def _ends(*columns: Integers | Bools) -> Integers:
    """For each of n rows, sorted by the `columns` [n], where the run of rows ends that are equal to it."""
    changes = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    ends = np.append(np.flatnonzero(changes) + 1, len(columns[0]))
    return ends[np.concatenate([[0], np.cumsum(changes)])] if len(columns[0]) else ends[:0]


def _pairs(starts: Integers, ends: Integers, most: int) -> tuple[int, Integers, Integers]:
    """How many pairs there are of row k and a row from `starts[k]` to before `ends[k]`; at most `most` of them."""
    lengths = (ends - starts).clip(0)
    up_to = np.cumsum(lengths)
    number = int(lengths.sum())
    drawn = np.random.default_rng(SEED).integers(0, number, most) if number > most else None
    numbers = np.arange(number) if drawn is None else np.sort(drawn)
    first = np.searchsorted(up_to, numbers, side="right")
    return number, first, starts[first] + numbers - (up_to - lengths)[first]


def compare(sorts: dict[str, Pairs]) -> Comparison | None:
    """The sorts of pairs, compared; None where there is no pair."""
    found = {sort: pairs for sort, pairs in sorts.items() if pairs.number}
    if not found:
        return None
    sorts = {sort: pairs for sort, pairs in sorts.items() if pairs.number or sort != ONE_PATIENT}
    everything = np.concatenate([pairs.cosines for pairs in found.values()])
    edges = np.linspace(*spread(float(everything.min()), float(everything.max())), DRAWN + 1)
    return Comparison(
        pairs={sort: pairs.number for sort, pairs in sorts.items()},
        mean={sort: float(pairs.cosines.mean()) if pairs.number else None for sort, pairs in sorts.items()},
        histograms={sort: Histogram(edges, np.histogram(pairs.cosines, edges)[0]) for sort, pairs in found.items()},
        separation=separations(sorts),
    )


def judged(separation: Sequence[Separation], least: int) -> Separation | None:
    """What says most of a patient: other studies, else one study, else those not known; of `least` patients or more."""
    order = (PATIENT, STUDY, ONE_PATIENT)
    found = [of for of in separation if of.patients >= least]
    return min(found, key=lambda of: order.index(of.sort), default=None)


def separations(sorts: dict[str, Pairs]) -> list[Separation]:
    """Each sort of pairs of one patient against pairs of different ones, closest relatives first."""
    between = sorts[BETWEEN]
    return [
        separate(sort, pairs, between)
        for sort, pairs in sorts.items()
        if sort != BETWEEN and pairs.number and between.number
    ]


def separate(sort: str, alike: Pairs, between: Pairs) -> Separation:
    """The AUC of the pairs `alike` against those `between`, with an interval over patients.

    The AUC is a U-statistic. Its variance is the sum of the squares of what each patient's pairs of either kind
    add to it (placement values, DeLong and others, Biometrics 1988; by cluster, Obuchowski, Biometrics 1997). The
    interval is symmetric on the logit scale, by Student's t with as many degrees of freedom as the patients would
    give, were all of their shares of pairs equal, less one.
    """
    above = _placements(alike.cosines, between.cosines)
    below = 1 - _placements(between.cosines, alike.cosines)
    auc = float(above.mean())
    n = int(max(alike.patients.max(), between.patients.max())) + 1
    share = np.bincount(alike.patients[0], minlength=n) / len(above)
    added = np.bincount(alike.patients[0], above - auc, n) / len(above)
    for patients in between.patients:
        added += np.bincount(patients, below - auc, n) / len(below)
    effective = 1 / np.square(share).sum()
    freedom = max(effective - 1, 1)
    error = np.sqrt(np.square(added).sum() * effective / freedom)
    low, high = _interval(auc, float(error * student.ppf(0.975, freedom)), 0.5 / (effective + 1))
    return Separation(sort, alike.number, between.number, int((share > 0).sum()), auc, low, high)


def _placements(values: Floats, others: Floats) -> Floats:
    """For each of the `values`, the share of the `others` that it is above; ties count half."""
    others = np.sort(others)
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * len(others))


def _interval(auc: float, reach: float, edge: float) -> tuple[float, float]:
    """What lies `reach` around the `auc` on the logit scale, where it is taken to be `edge` from 0 and 1 at least."""
    inside = min(max(auc, edge), 1 - edge)
    middle, reach = np.log(inside / (1 - inside)), reach / (inside * (1 - inside))
    low, high = (1 / (1 + np.exp(-np.clip(middle + side, -700, 700))) for side in (-reach, reach))
    return float(min(low, auc)), float(max(high, auc))
