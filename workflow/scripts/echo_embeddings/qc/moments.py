"""One pass over all vectors: what each holds, and sums and extremes of each folder's values, exact.

Sums run in float64.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .base import BLOCK, Bools, Floats, Integers, blocks, share_out


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

    @classmethod
    def zero(cls, dim: int) -> "Totals":
        """Of no vectors."""
        return cls(0, np.zeros(dim), 0.0, np.full(dim, np.inf), np.full(dim, -np.inf))

    def __iadd__(self, other: "Totals") -> "Totals":
        self.vectors += other.vectors
        self.sum += other.sum
        self.squares += other.squares
        np.minimum(self.low, other.low, out=self.low)
        np.maximum(self.high, other.high, out=self.high)
        return self

    def add(self, block: Floats, wide: Floats | None = None) -> None:
        """Add the float32 vectors [n, D]; `wide` the same in float64, where it is there already."""
        if len(block):
            wide = block.astype(np.float64) if wide is None else wide
            self.vectors += len(block)
            self.sum += wide.sum(axis=0)
            self.squares += float(np.vdot(wide, wide))
            np.minimum(self.low, block.min(axis=0), out=self.low)
            np.maximum(self.high, block.max(axis=0), out=self.high)

    @property
    def mean(self) -> float:
        """Of all values."""
        return float(self.sum.sum() / (self.vectors * len(self.sum)))

    @property
    def std(self) -> float:
        """Of all values, of the population (divided by their number)."""
        return float(np.sqrt(max(self.squares / (self.vectors * len(self.sum)) - self.mean**2, 0.0)))


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
                totals[code].add(block[chosen], wide[chosen])
        return totals

    return rows, [sum_of(parts) for parts in zip(*share_out(blocks(n), measure), strict=True)]


def _by_folder(codes: Integers, finite: Bools) -> Iterator[tuple[int, Bools | slice]]:
    """Yield each folder in a block with its finite rows: all of the block, mostly, which is then not copied."""
    present = np.unique(codes)
    for code in present:
        if len(present) == 1 and finite.all():
            yield int(code), slice(None)
        else:
            yield int(code), finite & (codes == code)


def sum_of(parts: Sequence[Totals]) -> Totals:
    """All of them together."""
    total = Totals.zero(len(parts[0].sum))
    for part in parts:
        total += part
    return total


def _digests(block: Floats) -> npt.NDArray[np.void]:
    same = block + np.float32(0)  # makes -0.0 equal 0.0
    return np.array([hashlib.blake2b(row, digest_size=16).digest() for row in same], "V16")
