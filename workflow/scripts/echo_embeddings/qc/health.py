"""Vectors and dimensions with a defect: each with the threshold that makes it one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import median_abs_deviation

from .base import PICTURE, SAMPLE, Bools, Check, Floats, Integers, Naming, Vectors, count, named, sample
from .components import Components, Dimensions
from .moments import Rows
from .near import groups, nearly_equal, typical_distance
from .tables import UNKNOWN

DEAD = 0.9  # of the clips with a dimension's median value: it is dead
SAME = 1e-6  # of the median standard deviation of all dimensions: a value that is nearer to the median equals it
OUTLIER = 12.0  # robust standard deviations from the median: beyond is an outlier
FARTHEST = 12  # clips that are listed whether they are outliers or not
MIN_VECTORS = 20  # of fewer, none is called an outlier
NEAR = 0.05  # of the median distance between two clips: closer is a near duplicate


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
    flat = rows.finite & (rows.low == rows.high)
    zero = flat & (rows.low == 0)
    equal, near, radius = alike(rows, vectors, components)
    far = _farthest(names, rows, vectors, components) if components is not None else []
    return Health(
        nan=_of(names, rows.nan),
        inf=_of(names, rows.inf),
        zero=_of(names, zero),
        constant=_of(names, flat & ~zero) if vectors.matrix.shape[1] > 1 else [],
        duplicates=[_group(places, names, patients) for places in equal],
        near=[_group(places, names, patients) for places in near],
        near_distance=radius,
        dead=_dead(vectors, dimensions) if dimensions is not None and len(vectors) > 1 else None,
        outliers=[clip for clip in far if clip.deviation > OUTLIER] if len(vectors) >= MIN_VECTORS else [],
        farthest=far[:FARTHEST],
    )


def alike(
    rows: Rows, vectors: Vectors, components: Components | None
) -> tuple[list[Integers], list[Integers], float | None]:
    """Groups of equal and of nearly equal vectors, as places in the file, largest first; and how near these are."""
    equal, labels = _equal(rows)
    radius = NEAR * typical_distance(vectors) if components is not None else None
    near = nearly_equal(vectors, components, labels[vectors.rows], radius) if components is not None and radius else []
    return equal, [vectors.rows[places] for places in near], radius


def _of(names: Sequence[str], mask: Bools) -> list[str]:
    return [names[i] for i in np.flatnonzero(mask).tolist()]


def _group(places: Integers, names: Sequence[str], patients: npt.NDArray[Any]) -> Group:
    found = set(patients[places])
    return Group([names[i] for i in places.tolist()], 0 if UNKNOWN in found else len(found), places.tolist())


def _equal(rows: Rows) -> tuple[list[Integers], Integers]:
    """Groups of equal vectors, as places in the file, largest first; and a number [N] that equal ones share."""
    _, labels, sizes = np.unique(rows.digest.view("u8,u8"), return_inverse=True, return_counts=True)
    return groups(labels, sizes), labels


def _dead(vectors: Vectors, dimensions: Dimensions) -> list[int]:
    """The dimensions that have one value, the median, in nearly all clips of a seeded sample: others may be broken."""
    found = vectors.take(sample(len(vectors), SAMPLE))
    equal = np.abs(found - np.median(found, axis=0)) <= SAME * np.median(np.sqrt(dimensions.variance))
    return np.flatnonzero(equal.mean(axis=0) >= DEAD).tolist()


def _deviation(values: Floats) -> Floats:
    """How far each value lies from the median, in standard deviations of a normal distribution of the same MAD."""
    robust = float(median_abs_deviation(values, scale="normal"))
    away = values - np.median(values)
    return away / robust if robust > 1e-9 * float(np.median(np.abs(values))) else np.zeros_like(away)


def _farthest(names: Sequence[str], rows: Rows, vectors: Vectors, components: Components) -> list[Outlier]:
    """The outliers, and in any case `FARTHEST` clips, farthest first."""
    norm, distance = rows.norm[vectors.rows], components.distance
    by_norm, by_distance = _deviation(norm), _deviation(distance)
    far = np.maximum(np.abs(by_norm), by_distance)
    listed = max(FARTHEST, int((far > OUTLIER).sum()))
    return [
        Outlier(
            *(names[vectors.rows[i]], float(norm[i]), float(by_norm[i]), float(distance[i]), float(by_distance[i])),
            place=int(vectors.rows[i]),
        )
        for i in np.argsort(-far, kind="stable")[:listed]
    ]


# --- checks ---------------------------------------------------------------------------------------


def judge(shape: tuple[int, ...], found: Health) -> list[Check]:
    """The checks of vectors of `shape` [N, D]."""
    n, d = shape
    if not n:
        return [Check("Vectors", "fault", "The embedding file holds no vectors.", "health")]
    few = n < 3
    sentence = f"{count(n, 'vector')} of {count(d, 'dimension')}" + (": too few for most statistics." if few else ".")
    return [
        Check("Vectors", "check" if few else "good", sentence, "provenance"),
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
    return Check(name, "fault", f"{count(len(names), 'vector')} {what}: {named(names)}.", "health")


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
    return Check(name, "fault" if members == n else "check", sentence, "health")


def _check_dimensions(d: int, found: Health) -> list[Check]:
    if found.dead is None:
        return []
    if not found.dead:
        return [Check("Dimensions", "good", "Every dimension varies between the vectors.", "health")]
    sentence = f"{len(found.dead):,} of {count(d, 'dimension')} with one value in nearly every vector."
    return [Check("Dimensions", "fault" if len(found.dead) == d else "check", sentence, "health")]


def _check_outliers(found: Health) -> Check:
    if not found.outliers:
        return Check("Outliers", "good", "No vector is unusually long, short or far from the others.", "health")
    names = [outlier.clip for outlier in found.outliers]
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    sentence = f"{count(len(names), 'vector')} unusually long, short or far off: {', '.join(names[:3])}{more}."
    return Check("Outliers", "check", sentence, "health")
