"""Cosine similarity: between clips of a study, of a patient, of different patients; a heat map; neighbours."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import auc
from threadpoolctl import threadpool_limits

from .base import MIN_PATIENTS, PICTURE, SAMPLE, SEED, Check, Floats, Histogram, Integers, Level, Vectors, sample
from .tables import UNKNOWN

HEAT_MAP = 200  # clips
FINE = 20_000  # bins of cosine similarity, 0.0001 wide
DRAWN = 60  # bins of a picture
PAIRS = 50_000  # of each sort that a resampling of patients is reckoned on
RESAMPLES = 200
ROWS = 512  # of a product of similarities at a time
SIGNAL = 0.6  # the interval of the AUC must begin above it
NO_SIGNAL = 0.55  # an AUC of at most this is a fault
STUDY, PATIENT, BETWEEN = "same study", "same patient, other study", "different patients"
SORTS = (STUDY, PATIENT, BETWEEN)


@dataclass(frozen=True)
class HeatMap:
    """Cosine similarity of a few clips, those next to each other that are alike."""

    matrix: Floats  # [P, P]
    folders: list[str]  # [P]
    patients: list[str]  # [P]


@dataclass(frozen=True)
class Separation:
    """How much more alike clips of a sort are than clips of different patients."""

    sort: str  # `STUDY` or `PATIENT`
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


@dataclass(frozen=True)
class Similarity:
    """Cosine similarity between clips. Vectors of zeros have no direction and are left out."""

    clips: int  # with a direction
    patients: int  # known ones
    sampled: int  # clips whose pairs between patients were looked at
    mean: float  # of all pairs of the sample, as are min and max
    min: float
    max: float
    everything: Histogram  # all pairs of the sample
    all_devices: Comparison | None  # None where patients are not known
    one_device: Comparison | None  # pairs of clips made by one model of device
    heat_map: HeatMap = field(metadata=PICTURE)

    @property
    def tells(self) -> bool:
        """Whether there are enough patients to say anything about them."""
        return self.patients >= MIN_PATIENTS


@dataclass
class _Pairs:
    """Pairs of one sort: counts of all, and a draw of them for the resampling."""

    counts: Integers
    sum: float
    drawn: list[tuple[Integers, Integers, Integers]]  # bin, and the two clips' patients

    @property
    def number(self) -> int:
        return int(self.counts.sum())


def _pairs() -> _Pairs:
    return _Pairs(np.zeros(FINE, np.int64), 0.0, [])


def compare(vectors: Vectors, norms: Floats, clips: pd.DataFrame) -> Similarity | None:
    """Compare the n vectors of L2 `norms` [n], whose `clips` say patient, study and device.

    Pairs within a patient are all there are; pairs of different patients are those of a seeded sample.
    None of fewer than two vectors other than zero.
    """
    directed = np.flatnonzero(norms > 0)
    if len(directed) < 2:
        return None
    patient, study, device = (_codes(clips[name].iloc[directed]) for name in ("patient", "study", "device"))
    chosen = sample(len(directed), SAMPLE)
    unit = _unit(vectors, norms, directed[chosen])
    everything = _pairs()
    low, high = np.inf, -np.inf
    found = {(sort, same): _pairs() for sort in SORTS for same in (False, True)}
    generator = np.random.default_rng(SEED)
    share = 2 * PAIRS / max(1, len(chosen) * (len(chosen) - 1) // 2)
    for i, j, cosines in _products(unit):
        _add(everything, cosines)
        low, high = min(low, cosines.min()), max(high, cosines.max())
        a, b = chosen[i], chosen[j]
        other = (patient[a] != patient[b]) & (patient[a] >= 0) & (patient[b] >= 0)
        same = (device[a] == device[b]) & (device[a] >= 0)
        for flag in (False, True):
            mask = other & (same == flag)
            _add(found[BETWEEN, flag], cosines[mask], patient[a[mask]], patient[b[mask]], share, generator)
    with threadpool_limits(1, "blas"):  # many small products: threads would wait for each other more than work
        _within_patients(vectors, norms, directed, (patient, study, device), found, generator)
    known = int(clips["patient"].iloc[directed][patient >= 0].nunique())
    return Similarity(
        clips=len(directed),
        patients=known,
        sampled=len(chosen),
        mean=everything.sum / everything.number,
        min=float(low),
        max=float(high),
        everything=_drawn([everything])[0],
        all_devices=_comparison({s: [found[s, False], found[s, True]] for s in SORTS}, known) if known else None,
        one_device=_comparison({s: [found[s, True]] for s in SORTS}, known) if known else None,
        heat_map=_heat_map(vectors, norms, directed, clips),
    )


def _codes(names: pd.Series) -> Integers:
    """A number for each name, -1 for an unknown one."""
    codes, _ = pd.factorize(names.where(names != UNKNOWN))
    return codes.astype(np.int64)


def _unit(vectors: Vectors, norms: Floats, places: Integers) -> Floats:
    """The vectors at `places`, of length one, float32."""
    return (vectors.take(places) / norms[places, None]).astype(np.float32)


def _products(unit: Floats) -> Iterator[tuple[Integers, Integers, Floats]]:
    """Yield all pairs of vectors [m, D] of length one: their places i < j, and their cosine similarity."""
    for start in range(0, len(unit), ROWS):
        block = unit[start : start + ROWS]
        cosines = block @ unit[start:].T
        i, j = np.triu_indices(n=len(block), k=1, m=cosines.shape[1])
        yield i + start, j + start, cosines[i, j]


def _add(
    pairs: _Pairs,
    cosines: Floats,
    first: Integers | None = None,
    second: Integers | None = None,
    share: float = 0.0,
    generator: np.random.Generator | None = None,
) -> None:
    """Count pairs, and draw a `share` of them with their two patients."""
    if not len(cosines):
        return
    bins = ((cosines + 1) * (FINE / 2)).astype(np.int64).clip(0, FINE - 1)
    pairs.counts += np.bincount(bins, minlength=FINE)
    pairs.sum += float(cosines.sum(dtype=np.float64))
    if first is not None and second is not None and generator is not None:
        drawn = slice(None) if share >= 1 else np.flatnonzero(generator.random(len(cosines), np.float32) < share)
        pairs.drawn.append((bins[drawn], first[drawn], second[drawn]))


def _within_patients(
    vectors: Vectors,
    norms: Floats,
    directed: Integers,
    codes: tuple[Integers, Integers, Integers],
    found: dict[tuple[str, bool], _Pairs],
    generator: np.random.Generator,
) -> None:
    """Count all pairs of clips of one patient; `codes` number patient, study and device of the clips `directed`."""
    patient, study, device = codes
    order = np.argsort(patient, kind="stable")
    order = order[patient[order] >= 0]
    sizes = np.bincount(patient[order]) if len(order) else np.zeros(0, np.int64)
    expected = int((sizes * (sizes - 1) // 2).sum())
    share = 2 * PAIRS / max(1, expected)
    for places in np.split(order, np.cumsum(sizes)[:-1]) if len(sizes) else []:
        if len(places) < 2:
            continue
        for i, j, cosines in _products(_unit(vectors, norms, directed[places])):
            a, b = places[i], places[j]
            in_study = study[a] == study[b]
            same = (device[a] == device[b]) & (device[a] >= 0)
            for sort, belongs in ((STUDY, in_study), (PATIENT, ~in_study)):
                for flag in (False, True):
                    mask = belongs & (same == flag)
                    part = patient[a[mask]]
                    _add(found[sort, flag], cosines[mask], part, part, share, generator)


def _comparison(sorts: dict[str, list[_Pairs]], patients: int) -> Comparison | None:
    """None where no two clips belong to it."""
    merged = {sort: _sum(parts) for sort, parts in sorts.items()}
    merged = {sort: pairs for sort, pairs in merged.items() if pairs.number}
    if not merged:
        return None
    return Comparison(
        pairs={sort: merged[sort].number if sort in merged else 0 for sort in SORTS},
        mean={sort: merged[sort].sum / merged[sort].number if sort in merged else None for sort in SORTS},
        histograms=dict(zip(merged, _drawn(list(merged.values())), strict=True)),
        separation=[
            _separation(sort, merged[sort], merged[BETWEEN], patients)
            for sort in (STUDY, PATIENT)
            if sort in merged and BETWEEN in merged
        ],
    )


def _sum(parts: list[_Pairs]) -> _Pairs:
    total = _pairs()
    for part in parts:
        total.counts += part.counts
        total.sum += part.sum
        total.drawn += part.drawn
    return total


def _drawn(sorts: list[_Pairs]) -> list[Histogram]:
    """The fine counts in the bins of a picture, the same for all."""
    used = np.flatnonzero(np.sum([pairs.counts for pairs in sorts], axis=0))
    width = max(1, -(-(int(used[-1]) - int(used[0]) + 1) // DRAWN))
    starts = np.arange(int(used[0]), int(used[-1]) + 1, width)
    edges = np.append(starts, starts[-1] + width) * (2 / FINE) - 1
    return [Histogram(edges, np.add.reduceat(pairs.counts, starts)) for pairs in sorts]


def _separation(sort: str, alike: _Pairs, between: _Pairs, patients: int) -> Separation:
    """The AUC of all pairs, and its percentile interval.

    Each resample draws as many patients as there are, with replacement; a pair of one patient counts as
    often as the patient was drawn, a pair of two as often as the product of theirs. It is reckoned on a draw
    of the pairs, and its interval is moved by what that draw's AUC is off that of all.
    """
    everything = _auc(alike.counts, between.counts)
    (bins1, p1, _), (bins0, p0, q0) = (_join(pairs) for pairs in (alike, between))
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
    shift = everything - _auc(np.bincount(bins1, minlength=FINE), np.bincount(bins0, minlength=FINE))
    low, high = np.quantile(resampled, [0.025, 0.975]) + shift if resampled else (0.0, 1.0)
    return Separation(sort, alike.number, between.number, everything, float(max(0, low)), float(min(1, high)))


def _auc(alike: npt.NDArray[Any], between: npt.NDArray[Any]) -> float:
    """Of pairs counted in the fine bins: those in one bin are taken for ties."""
    rates = (np.cumsum(counts[::-1]) / counts.sum() for counts in (between, alike))
    return float(auc(*(np.concatenate([[0], rate]) for rate in rates)))


def _join(pairs: _Pairs) -> tuple[Integers, Integers, Integers]:
    bins, first, second = (np.concatenate(parts) for parts in zip(*pairs.drawn, strict=True))
    kept = sample(len(bins), PAIRS)
    return bins[kept], first[kept], second[kept]


def _heat_map(vectors: Vectors, norms: Floats, directed: Integers, clips: pd.DataFrame) -> HeatMap:
    """Of at most `HEAT_MAP` clips, in the order of leaves of an average-linkage clustering."""
    places = directed[sample(len(directed), HEAT_MAP)]
    unit = _unit(vectors, norms, places)
    matrix = (unit @ unit.T).clip(-1, 1)
    apart = 1 - (matrix + matrix.T) / 2
    np.fill_diagonal(apart, 0)
    order: npt.NDArray[np.intp] = leaves_list(
        linkage(squareform(apart, checks=False), "average", optimal_ordering=True)
    )
    found = clips.iloc[places[order]]
    return HeatMap(matrix[np.ix_(order, order)], list(found["folder"]), list(found["patient"]))


def nearest(vectors: Vectors, norms: Floats, queries: Integers, k: int) -> tuple[Integers, Floats]:
    """The `k` nearest of all vectors to each of `queries` [q], by cosine similarity, itself left out.

    Returns places among the n [q, k] and similarities [q, k], nearest first; fewer where there are fewer.
    """
    targets = _unit(vectors, norms, queries)
    cosines = np.empty((len(vectors), len(queries)), np.float32)
    scale = np.where(norms > 0, norms, 1)
    for place, block in vectors.blocks():
        cosines[place] = (block / scale[place, None]).astype(np.float32) @ targets.T
    cosines[queries, range(len(queries))] = -np.inf
    cosines[norms == 0] = -np.inf
    k = min(k, len(vectors) - 1)
    found = np.argsort(-cosines, axis=0, kind="stable")[:k].T if len(vectors) <= ROWS else _top(cosines, k)
    return found, np.take_along_axis(cosines.T, found, axis=1)


def _top(cosines: Floats, k: int) -> Integers:
    places = np.argpartition(-cosines, k, axis=0)[:k].T
    values = np.take_along_axis(cosines.T, places, axis=1)
    return np.take_along_axis(places, np.argsort(-values, axis=1, kind="stable"), axis=1)


def judge(similarity: Similarity | None) -> list[Check]:
    """The check that clips of a patient are more alike than clips of different patients."""
    if similarity is None:
        return []
    name, section = "Signal", "similarity"
    if not similarity.patients:
        sentence = "Patients are not known from the files' names, so whether the vectors tell them apart is not known."
        return [Check(name, "warn", sentence, section)]
    if not similarity.tells:
        people = "1 patient" if similarity.patients == 1 else f"{similarity.patients} patients"
        sentence = f"There are only {people}: that says nothing about patients (at least {MIN_PATIENTS} are needed)."
        return [Check(name, "warn", sentence, section)]
    separation = similarity.all_devices.separation if similarity.all_devices else []
    if not separation:
        return [Check(name, "warn", "No patient has two clips, so there is nothing to compare.", section)]
    best = separation[0]
    sentence = (
        f"Two clips of the {best.sort} are more alike than two of different patients with a chance of "
        f"{best.auc:.3f} (95\u00a0% interval {best.low:.3f} to {best.high:.3f}; 0.5 is no signal)."
    )
    level: Level = "good" if best.low > SIGNAL else "warn" if best.auc > NO_SIGNAL else "bad"
    return [Check(name, level, sentence, section)]
