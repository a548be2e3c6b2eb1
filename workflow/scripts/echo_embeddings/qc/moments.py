"""One pass over all vectors: what each holds, and sums, extremes and counts of each folder's values.

Everything is exact. Sums run in float64. The median comes from counts of the values' upper 16 bits, which
narrow it down to one of 65,536 ranges, and a second pass that counts the lower 16 bits within that range.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .base import BLOCK, TAIL, Bools, Floats, Histogram, Integers, Vectors, blocks, bulk, share_out, spread

SIGN, HALF = 0x8000, 0x10000
INFINITY = 0x7F80  # the upper half of float32's infinity: no finite value has more
# The upper halves of all finite float32, by value, and the edges [B + 1] of the ranges [B] that they stand for
ORDER = np.concatenate([np.arange(SIGN + INFINITY - 1, SIGN - 1, -1), np.arange(INFINITY)])
_POSITIVE = (np.arange(INFINITY, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
_POSITIVE = np.append(_POSITIVE, np.finfo(np.float32).max)
EDGES: Floats = np.concatenate([-_POSITIVE[:0:-1], _POSITIVE])


@dataclass(frozen=True)
class Rows:
    """Each of the N vectors of the file."""

    nan: Bools  # it holds a NaN
    inf: Bools  # it holds an infinity
    low: Floats  # its smallest value, float32; of no meaning with a NaN
    high: Floats  # its largest
    norm: Floats  # its L2 norm, float64; 0 where it holds NaN or Inf
    digest: npt.NDArray[np.void]  # equal if and only if the values are; -0 equals 0

    @property
    def finite(self) -> Bools:
        """Those with neither NaN nor Inf."""
        return ~(self.nan | self.inf)


@dataclass
class Totals:
    """Sums over the finite vectors of one folder, or of all."""

    vectors: int
    sum: Floats  # float64 [D]
    squares: float
    low: Floats  # [D]
    high: Floats  # [D]
    upper: Integers  # [65536]: how many values have these upper 16 bits

    @classmethod
    def zero(cls, dim: int) -> "Totals":
        """Of no vectors."""
        return cls(0, np.zeros(dim), 0.0, np.full(dim, np.inf), np.full(dim, -np.inf), np.zeros(HALF, np.int64))

    def __iadd__(self, other: "Totals") -> "Totals":
        self.vectors += other.vectors
        self.sum += other.sum
        self.squares += other.squares
        np.minimum(self.low, other.low, out=self.low)
        np.maximum(self.high, other.high, out=self.high)
        self.upper += other.upper
        return self

    @property
    def mean(self) -> float:
        """Of all values."""
        return float(self.sum.sum() / (self.vectors * len(self.sum)))

    @property
    def std(self) -> float:
        """Of all values, of the population (divided by their number)."""
        return float(np.sqrt(max(self.squares / (self.vectors * len(self.sum)) - self.mean**2, 0.0)))

    def distribution(self, edges: Floats) -> Histogram:
        """The values' counts between `edges`, even within each of the 65,536 ranges (1/128 of a value wide)."""
        up_to = np.concatenate([[0], np.cumsum(self.upper[ORDER])])
        return Histogram(edges, np.diff(np.interp(edges, EDGES, up_to)))


def measure(matrix: Floats, codes: Integers, folders: int) -> tuple[Rows, list[Totals]]:
    """Go over the float32 vectors [N, D], whose folders have the numbers `codes` [N], 0 .. `folders` - 1."""
    n, dim = matrix.shape
    rows = Rows(
        nan=np.zeros(n, bool),
        inf=np.zeros(n, bool),
        low=np.zeros(n, np.float32),
        high=np.zeros(n, np.float32),
        norm=np.zeros(n),
        digest=np.zeros(n, "V16"),
    )

    def measure(places: Sequence[slice]) -> list[Totals]:
        totals = [Totals.zero(dim) for _ in range(folders)]
        space = np.empty((BLOCK, dim))
        for place in places:
            block = matrix[place]
            rows.low[place], rows.high[place] = block.min(axis=1), block.max(axis=1)
            rows.digest[place] = _digests(block)
            finite = np.isfinite(rows.low[place]) & np.isfinite(rows.high[place])
            if not finite.all():
                rows.nan[place] = np.isnan(block).any(axis=1)
                rows.inf[place] = np.isinf(block).any(axis=1)
            wide = space[: len(block)]
            wide[:] = block
            with np.errstate(invalid="ignore"):
                rows.norm[place] = np.where(finite, np.sqrt(np.einsum("ij,ij->i", wide, wide)), 0)
            for code, chosen in _by_folder(codes[place], finite):
                _add(totals[code], block[chosen], wide[chosen])
        return totals

    return rows, [_sum(parts) for parts in zip(*share_out(blocks(n), measure), strict=True)]


def _by_folder(codes: Integers, finite: Bools) -> Iterator[tuple[int, Bools | slice]]:
    """Yield each folder in a block with its finite rows: all of the block, mostly, which is then not copied."""
    present = np.unique(codes)
    for code in present:
        if len(present) == 1 and finite.all():
            yield int(code), slice(None)
        else:
            yield int(code), finite & (codes == code)


def _add(total: Totals, block: Floats, wide: Floats) -> None:
    """Add the float32 vectors [n, D], `wide` the same in float64."""
    if len(block):
        total.vectors += len(block)
        total.sum += wide.sum(axis=0)
        total.squares += float(np.vdot(wide, wide))
        np.minimum(total.low, block.min(axis=0), out=total.low)
        np.maximum(total.high, block.max(axis=0), out=total.high)
        total.upper += np.bincount(_halves(block)[:, 1::2].ravel(), minlength=HALF)


def _sum(parts: Sequence[Totals]) -> Totals:
    first, *others = parts
    for other in others:
        first += other
    return first


def _halves(block: Floats) -> npt.NDArray[np.uint16]:
    """float32 [n, D] as uint16 [n, 2 D]: the lower half of each value, then its upper."""
    return np.ascontiguousarray(block, dtype="<f4").view("<u2")


def _digests(block: Floats) -> npt.NDArray[np.void]:
    same = block + np.float32(0)  # makes -0.0 equal 0.0
    return np.array([hashlib.blake2b(row, digest_size=16).digest() for row in same], "V16")


def medians(vectors: Vectors, codes: Integers, totals: Sequence[Totals]) -> list[float]:
    """The exact median of the values of each folder and, as the last, of all; NaN of none.

    `vectors` are the finite ones, `codes` [n] their folders' numbers, `totals` what `measure` found of
    each folder and, as the last, of all.
    """
    wanted = [[_place(total, k) for k in _middle(total)] for total in totals]
    sought = {(code, half) for code, places in enumerate(wanted[:-1]) for half, _ in places + wanted[-1]}
    narrowed = np.zeros(HALF, bool)
    narrowed[[half for _, half in sought]] = True

    def count(places: Sequence[slice]) -> dict[tuple[int, int], Integers]:
        lower = {key: np.zeros(HALF, np.int64) for key in sought}
        for place in places:
            halves = _halves(vectors.block(place))
            upper, low = halves[:, 1::2], halves[:, ::2]
            hits = narrowed[upper]
            row, _ = np.nonzero(hits)
            code_of, upper_of, low_of = codes[place][row], upper[hits], low[hits]
            for code, half in sought if len(row) else ():
                chosen = low_of[(code_of == code) & (upper_of == half)]
                if len(chosen):
                    lower[code, half] += np.bincount(chosen, minlength=HALF)
        return lower

    shares = share_out(blocks(len(vectors)), count)
    lower = {key: sum((share[key] for share in shares), np.zeros(HALF, np.int64)) for key in sought}
    everything = {half: _sum_of(lower, half) for half, _ in wanted[-1]}
    of = [{half: lower[code, half] for half, _ in places} for code, places in enumerate(wanted[:-1])] + [everything]
    return [
        float(np.mean([_value(half, rest, counts[half]) for half, rest in places])) if places else float("nan")
        for places, counts in zip(wanted, of, strict=True)
    ]


def _sum_of(lower: dict[tuple[int, int], Integers], half: int) -> Integers:
    total = np.zeros(HALF, np.int64)
    for (_, other), counts in lower.items():
        if other == half:
            total += counts
    return total


def _middle(total: Totals) -> list[int]:
    """The places of the one or two values in the middle."""
    n = total.vectors * len(total.sum)
    return [(n - 1) // 2, n // 2] if n else []


def _place(total: Totals, k: int) -> tuple[int, int]:
    """The upper half of the value at place `k`, and its place among the values that share it."""
    up_to = np.cumsum(total.upper[ORDER])
    i = int(np.searchsorted(up_to, k, side="right"))
    return int(ORDER[i]), k - int(up_to[i] - total.upper[ORDER[i]])


def _value(half: int, rest: int, counts: Integers) -> float:
    """The value at place `rest` among those with the upper half `half`, whose lower halves are counted."""
    negative = half >= SIGN
    up_to = np.cumsum(counts[::-1] if negative else counts)
    low = int(np.searchsorted(up_to, rest, side="right"))
    bits = np.array([half << 16 | (HALF - 1 - low if negative else low)], np.uint32)
    return float(bits.view(np.float32)[0])


def edges_for(total: Totals, bins: int) -> Floats:
    """Edges of `bins` equal ranges over the bulk of the values, see `base.bulk`."""
    up_to = np.concatenate([[0], np.cumsum(total.upper[ORDER])])
    low, high = bulk(*np.interp([TAIL * up_to[-1], (1 - TAIL) * up_to[-1]], up_to, EDGES))
    return np.linspace(*spread(max(low, float(total.low.min())), min(high, float(total.high.max()))), bins + 1)
