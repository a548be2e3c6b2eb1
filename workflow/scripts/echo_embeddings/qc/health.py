"""Vectors and dimensions with a defect: each with the threshold that makes it one."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist
from scipy.stats import median_abs_deviation
from threadpoolctl import threadpool_limits

from .base import PICTURE, SEED, THREADS, Bools, Check, Floats, Integers, Naming, Vectors, count, named, sample
from .components import Components, Dimensions
from .moments import Rows
from .tables import UNKNOWN

DEAD = 1e-6  # of the median standard deviation of all dimensions: less is dead
OUTLIER = 12.0  # robust standard deviations from the median: beyond is an outlier
FARTHEST = 12  # clips that are told whether outliers or not
MIN_VECTORS = 20  # of fewer, none is called an outlier
NEAR = 0.05  # of the median distance between two clips: closer is a near duplicate
TREES, LEAF, CLOSEST = 6, 256, 4
PAIRS = 4096  # compared at a time


@dataclass(frozen=True)
class Group:
    """Clips whose vectors are equal, or nearly."""

    clips: list[str]
    patients: int  # how many patients they are of; 0 where that is not known
    places: list[int] = field(metadata=PICTURE)  # of the clips in the file


@dataclass(frozen=True)
class Outlier:
    """A clip whose vector is unusually long or short, or far from the others."""

    clip: str
    norm: float
    norm_deviation: float  # from the median, robust standard deviations
    distance: float  # to the mean vector
    distance_deviation: float
    place: int = field(metadata=PICTURE)  # in the file

    @property
    def deviation(self) -> float:
        """By how much it is off in either."""
        return max(abs(self.norm_deviation), self.distance_deviation)


@dataclass(frozen=True)
class Health:
    """What is wrong with vectors and dimensions."""

    nan: list[str]  # vectors with a NaN
    inf: list[str]  # vectors with an infinity
    zero: list[str]  # vectors of zeros only
    constant: list[str]  # vectors of one value other than zero
    duplicates: list[Group]  # equal in every value, largest group first
    near: list[Group]  # nearer to each other than `near_distance`, and not all equal
    near_distance: float | None
    dead: list[int] | None  # dimensions that do not vary; None of fewer than two vectors
    outliers: list[Outlier]  # farthest first
    farthest: list[Outlier]  # the first `FARTHEST`, whether outliers or not

    @property
    def duplicated(self) -> int:
        """How many vectors equal another one."""
        return sum(len(group.clips) for group in self.duplicates)


def examine(
    clips: pd.DataFrame,
    rows: Rows,
    vectors: Vectors,
    dimensions: Dimensions | None,
    components: Components | None,
    naming: Naming,
) -> Health:
    """Look for defects in the N vectors of `clips`; `vectors` are the finite ones that the others are of."""
    names = [naming(key) for key in clips["key"]]
    patients = clips["patient"].to_numpy()
    equal, labels = _equal(rows)
    flat = rows.finite & (rows.low == rows.high)
    zero = flat & (rows.low == 0)
    near: list[Integers] = []
    radius = None
    if components is not None:
        radius = NEAR * _typical_distance(vectors)
        near = _near(vectors, components, labels[vectors.rows], radius)
    far = _farthest(names, rows, vectors, components) if components is not None else []
    return Health(
        nan=_of(names, rows.nan),
        inf=_of(names, rows.inf),
        zero=_of(names, zero),
        constant=_of(names, flat & ~zero) if vectors.matrix.shape[1] > 1 else [],
        duplicates=[_group(places, names, patients) for places in equal],
        near=[_group(vectors.rows[places], names, patients) for places in near],
        near_distance=radius,
        dead=_dead(dimensions) if dimensions is not None and len(vectors) > 1 else None,
        outliers=[clip for clip in far if clip.deviation > OUTLIER] if len(vectors) >= MIN_VECTORS else [],
        farthest=far[:FARTHEST],
    )


def _of(names: Sequence[str], mask: Bools) -> list[str]:
    return [names[i] for i in np.flatnonzero(mask).tolist()]


def _group(places: Integers, names: Sequence[str], patients: npt.NDArray[Any]) -> Group:
    found = set(patients[places])
    return Group([names[i] for i in places.tolist()], 0 if UNKNOWN in found else len(found), places.tolist())


def _equal(rows: Rows) -> tuple[list[Integers], Integers]:
    """Groups of equal vectors, as places in the file, largest first; and a number [N] that equal ones share."""
    _, labels, sizes = np.unique(rows.digest.view("u8,u8"), return_inverse=True, return_counts=True)
    return _groups(labels, sizes), labels


def _groups(labels: Integers, sizes: Integers) -> list[Integers]:
    """The places of each label that stands more than once, largest group first."""
    often = np.flatnonzero(sizes[labels] > 1)
    often = often[np.argsort(labels[often], kind="stable")]
    parts = np.split(often, np.flatnonzero(np.diff(labels[often])) + 1) if len(often) else []
    return sorted(parts, key=lambda places: (-len(places), places[0]))


def _typical_distance(vectors: Vectors) -> float:
    """The median distance between two of the vectors, of a seeded sample of 1,000."""
    return float(np.median(pdist(vectors.take(sample(len(vectors), 1000)).astype(np.float64))))


def _dead(dimensions: Dimensions) -> list[int]:
    std = np.sqrt(dimensions.variance)
    return np.flatnonzero(std <= DEAD * np.median(std)).tolist()


def _deviation(values: Floats) -> Floats:
    """How far each value lies from the median, in standard deviations of a normal distribution of the same MAD."""
    robust = float(median_abs_deviation(values, scale="normal"))
    away = values - np.median(values)
    return away / robust if robust > 1e-9 * float(np.abs(values).max()) else np.zeros_like(away)


def _farthest(names: Sequence[str], rows: Rows, vectors: Vectors, components: Components) -> list[Outlier]:
    """The outliers, and in any case `FARTHEST` clips, farthest first."""
    norm, distance = rows.norm[vectors.rows], components.distance
    by_norm, by_distance = _deviation(norm), _deviation(distance)
    far = np.maximum(np.abs(by_norm), by_distance)
    told = max(FARTHEST, int((far > OUTLIER).sum()))
    return [
        Outlier(
            *(names[vectors.rows[i]], float(norm[i]), float(by_norm[i]), float(distance[i]), float(by_distance[i])),
            place=int(vectors.rows[i]),
        )
        for i in np.argsort(-far, kind="stable")[:told]
    ]


# --- near duplicates ------------------------------------------------------------------------------


def _near(vectors: Vectors, components: Components, equal: Integers, radius: float) -> list[Integers]:
    """Groups of vectors that a chain of distances of at most `radius` connects, as places among the n.

    Candidates come from the scores of the first components, which are never farther apart than the vectors
    are: `TREES` random rotations of them are each cut at medians into buckets of at most `LEAF`, and close
    pairs of a bucket are measured in full. One vector stands for all that are equal to it.
    """
    _, first, back = np.unique(equal, return_index=True, return_inverse=True)
    n = len(first)
    found: list[Integers] = []
    label = np.arange(n)
    generator = np.random.default_rng(SEED)
    scores = components.scores[first]
    for _ in range(TREES):
        rotation = np.linalg.qr(generator.normal(size=(scores.shape[1], scores.shape[1])))[0].astype(np.float32)
        turned = scores @ rotation
        for bucket, close in _close_of(turned, radius):
            pairs = bucket[close]
            pairs = pairs[label[pairs[:, 0]] != label[pairs[:, 1]]]
            found.append(pairs[_within(vectors, first[pairs], radius)])
        joined = np.concatenate(found)
        edges = coo_array((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), shape=(n, n))
        label = connected_components(edges, directed=False)[1]
    of_all = label[back]
    sizes = np.bincount(label)  # of different vectors: equal ones alone are no near duplicates
    return _groups(of_all, sizes)


def _close_of(points: Floats, radius: float) -> Iterator[tuple[Integers, Integers]]:
    """Yield each bucket of the points [n, k] with its pairs that may lie within `radius`, see `_close_pairs`."""
    buckets = list(_buckets(points))
    # The products are small: threads of the linear algebra library would wait for each other more than they work.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(THREADS) as pool:
        yield from zip(buckets, pool.map(lambda bucket: _close_pairs(points[bucket], radius), buckets), strict=True)


def _buckets(points: Floats) -> Iterator[Integers]:
    """Cut points [n, k] at the median of one coordinate after the other until at most `LEAF` are together."""
    pending = [(np.arange(len(points)), 0)]
    while pending:
        places, depth = pending.pop()
        if len(places) <= LEAF:
            yield places
            continue
        half = len(places) // 2
        order = np.argpartition(points[places, depth % points.shape[1]], half)
        pending += [(places[order[:half]], depth + 1), (places[order[half:]], depth + 1)]


def _close_pairs(points: Floats, radius: float) -> Integers:
    """Pairs [p, 2] of the points [m, k] that may lie within `radius`; of each point its `CLOSEST` at most."""
    points = (points - points.mean(axis=0)) / radius  # so that squares of large or small values stay in range
    squares = np.einsum("ij,ij->i", points, points)
    distances = squares[:, None] + squares - 2 * (points @ points.T)
    rounding = 1e-5 * float(squares.max(initial=0))
    np.fill_diagonal(distances, np.inf)
    near = distances <= 1.01 + rounding
    if not near.any():
        return np.empty((0, 2), np.int64)
    rows = np.flatnonzero(near.any(axis=1))
    nearest = np.argsort(distances[rows], axis=1)[:, :CLOSEST]
    pairs = np.column_stack([np.repeat(rows, nearest.shape[1]), nearest.ravel()])
    pairs = pairs[near[pairs[:, 0], pairs[:, 1]]]
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _within(vectors: Vectors, pairs: Integers, radius: float) -> Bools:
    """Which of the pairs [p, 2] of places among the n lie within `radius`."""
    near = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), PAIRS):
        part = slice(start, start + PAIRS)
        apart = vectors.take(pairs[part, 0]).astype(np.float64) - vectors.take(pairs[part, 1])
        near[part] = np.sqrt(np.einsum("ij,ij->i", apart, apart)) <= radius
    return near


# --- checks ---------------------------------------------------------------------------------------


def judge(shape: tuple[int, ...], found: Health) -> list[Check]:
    """The checks of vectors of `shape` [N, D]."""
    n, d = shape
    if not n:
        return [Check("Vectors", "bad", "The embedding file holds no vectors.", "health")]
    few = n < 3
    sentence = f"{count(n, 'vector')} of {count(d, 'dimension')}" + (": too few for most statistics." if few else ".")
    return [
        Check("Vectors", "warn" if few else "good", sentence, "provenance"),
        _check_names("NaN", found.nan, "with NaN", "No value is NaN."),
        _check_names("Inf", found.inf, "with Inf", "No value is infinite."),
        _check_names("Zeros", found.zero, "of zeros only", "No vector is zero."),
        _check_names("Constants", found.constant, "of one value only", "No vector is constant."),
        _check_groups("Duplicates", found.duplicates, n, "of exact duplicates", "No two vectors are equal."),
        _check_groups("Near duplicates", found.near, n, "of near duplicates", "No two vectors are nearly equal."),
        *_check_dimensions(d, found),
        _check_outliers(found),
    ]


def _check_names(name: str, names: Sequence[str], what: str, good: str) -> Check:
    if not names:
        return Check(name, "good", good, "health")
    return Check(name, "bad", f"{count(len(names), 'vector')} {what}: {named(names)}.", "health")


def _check_groups(name: str, groups: Sequence[Group], n: int, what: str, good: str) -> Check:
    if not groups:
        return Check(name, "good", good, "health")
    members = sum(len(group.clips) for group in groups)
    across = sum(group.patients > 1 for group in groups)
    sentence = (
        f"{count(members, 'vector')} in {count(len(groups), 'group')} {what}"
        + (f", {across:,} of them with clips of several patients" if across else "")
        + f"; the first: {named(groups[0].clips)}."
    )
    return Check(name, "bad" if members == n else "warn", sentence, "health")


def _check_dimensions(d: int, found: Health) -> list[Check]:
    if found.dead is None:
        return []
    if not found.dead:
        return [Check("Dimensions", "good", "Every dimension varies between the vectors.", "health")]
    sentence = f"{len(found.dead):,} of {count(d, 'dimension')} with the same value in every vector."
    return [Check("Dimensions", "bad" if len(found.dead) == d else "warn", sentence, "health")]


def _check_outliers(found: Health) -> Check:
    if not found.outliers:
        return Check("Outliers", "good", "No vector is unusually long, short or far from the others.", "health")
    names = [outlier.clip for outlier in found.outliers]
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    sentence = f"{count(len(names), 'vector')} unusually long, short or far off: {', '.join(names[:3])}{more}."
    return Check("Outliers", "warn", sentence, "health")
