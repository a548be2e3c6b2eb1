"""What the modules of this package share: types, constants, sentences, samples, blocks of rows."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

Item = TypeVar("Item")
Result = TypeVar("Result")

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.signedinteger[Any]]
Level = Literal["good", "not tested", "check", "fault"]

SEED = 0
BLOCK = 1024  # rows read at a time: 4 MB of ViT-L's vectors, which a processor's cache holds
THREADS = 2  # the rule asks for as many cores
SAMPLE = 10_000  # clips of the seeded sample
MIN_PATIENTS = 20  # fewer say nothing about patients
NEIGHBOURS = 10  # nearest clips of each, of which two models should have the same
TAIL = 0.02  # share of values at either end that may be left out of a picture, see `bulk`
NAMED = 3  # things named in a sentence; the others are only counted
PICTURE: dict[str, Any] = {"picture": True}  # marks what is drawn and left out of the numbers


@dataclass(frozen=True)
class Check:
    """One line of the summary."""

    name: str
    level: Level
    sentence: str
    section: str  # id of the section that shows the details


@dataclass(frozen=True)
class Histogram:
    """Counts [B] of what lies between the edges [B + 1]."""

    edges: Floats
    counts: npt.NDArray[Any]


@dataclass(frozen=True)
class Vectors:
    """The vectors that figures are taken of: those of the file with neither NaN nor Inf."""

    matrix: Floats = field(metadata=PICTURE)  # float32 [N, D], memory-mapped: read it in blocks
    rows: Integers = field(metadata=PICTURE)  # [n], ascending: which of the N

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, place: slice) -> Floats:
        """Those at `place` among the n: float32 [P, D], a view of the file unless a row between them is left out."""
        rows = self.rows[place]
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
            return self.matrix[rows[0] : rows[-1] + 1]
        return self.matrix[rows]

    def take(self, places: Integers) -> Floats:
        """Those at `places` among the n, copied: float32 [P, D]."""
        return self.matrix[self.rows[places]]


def blocks(n: int, size: int | None = None) -> list[slice]:
    """The numbers 0 .. n - 1 in blocks of `size`, by default `BLOCK`."""
    size = size or BLOCK
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def share_out(items: Sequence[Item], work: Callable[[Sequence[Item]], Result]) -> list[Result]:
    """What `work` makes of each thread's share of the items: the same shares whenever it runs.

    `work` should fill arrays that it makes once: the system clears every new array of some size, which takes
    longer than most of what is computed here.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, (items[i::THREADS] for i in range(THREADS))))


def sample(n: int, size: int, seed: int = SEED) -> Integers:
    """At most `size` of the numbers 0 .. n - 1, ascending: all of them, or a seeded draw."""
    if n <= size:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size, replace=False))


def histogram(values: Floats, bins: int = 60) -> Histogram:
    """Counts of `values`, of any shape but empty, in equal bins from the smallest to the largest.

    At most `bins`, fewer of few values. Values that are equal but for rounding lie in the middle of a
    range of their own size.
    """
    low, high = spread(np.float64(values.min()), np.float64(values.max()))
    counts, edges = np.histogram(values, bins=min(bins, 1 + 2 * math.isqrt(values.size)), range=(low, high))
    return Histogram(edges, counts)


def spread(low: float, high: float) -> tuple[float, float]:
    """The range from `low` to `high`, widened to one of their own size where they are all but equal."""
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size or size == 0:
        margin = size / 2 or 0.5
        return low - margin, high + margin
    return low, high


def bulk(low: Any, high: Any) -> tuple[Any, Any]:
    """The range that pictures show of values whose quantiles at `TAIL` and 1 - `TAIL` are `low` and `high`.

    Half of their distance wider at either end: a few outliers do not squeeze all others. Numbers, or arrays of one
    number for each column of values.
    """
    margin = (high - low) / 2
    return low - margin, high + margin


def worst(levels: Iterable[Level]) -> Level:
    """The worst of the levels; "good" of none."""
    return max(levels, key=get_args(Level).index, default="good")


def hashed(name: str) -> str:
    """A short hash that stands for a file's name: the first 10 hexadecimal digits of its SHA-256."""
    return "#" + hashlib.sha256(name.encode()).hexdigest()[:10]


def plain(name: str) -> str:
    """The name as it is."""
    return name


Naming = Callable[[str], str]  # `hashed` or `plain`


def count(n: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def named(names: Iterable[str], naming: Naming = plain) -> str:
    """The first names in order, and how many more there are."""
    ordered = sorted(names)
    more = [f"{len(ordered) - NAMED:,} more"] if len(ordered) > NAMED else []
    return ", ".join([naming(name) for name in ordered[:NAMED]] + more)
