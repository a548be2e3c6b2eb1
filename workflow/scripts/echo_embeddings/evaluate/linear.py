"""Vectors that may lie in a file, and linear maps of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ..core.errors import UserError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BLOCK = 8192  # vectors read at a time: 32 MB of ViT-L's


@dataclass(frozen=True)
class Vectors:
    """Some rows of a float32 matrix that may lie in a file."""

    matrix: npt.NDArray[np.float32]
    rows: Integers  # ascending, so that the file is read from front to back

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Which of the rows, and these: float32 [b, D]. Raises `UserError` on NaN and Inf."""
        for start in range(0, len(self.rows), BLOCK):
            place = slice(start, min(start + BLOCK, len(self.rows)))
            block = self.matrix[self.rows[place]]
            if not np.isfinite(block).all():
                raise UserError("vectors with NaN or Inf: see the quality page; embed these clips again")
            yield place, block


@dataclass(frozen=True)
class Head:
    """A linear map of standardised vectors: ((x - mean) / scale) @ weights + bias."""

    mean: Floats  # [D]
    scale: Floats  # [D]
    weights: Floats  # [D, T]
    bias: Floats  # [T]

    def __call__(self, block: npt.NDArray[Any]) -> Floats:
        """Vectors [b, D] to values [b, T]."""
        plain = self.weights / self.scale[:, None]
        made: Floats = block.astype(np.float64) @ plain + (self.bias - self.mean @ plain)
        return made

    def column(self, target: int) -> "Head":
        """The head of one of the T values."""
        return Head(self.mean, self.scale, self.weights[:, target : target + 1], self.bias[target : target + 1])


def means(vectors: Vectors, of: Integers, count: int) -> Vectors:
    """The means of vectors by the unit `of` each, 0 to `count` - 1, as vectors in memory."""
    sums = np.zeros((count, vectors.matrix.shape[1]))
    for place, block in vectors.blocks():
        there, local = np.unique(of[place], return_inverse=True)
        which = sparse.csr_matrix((np.ones(len(block)), (local, np.arange(len(block)))), shape=(len(there), len(block)))
        sums[there] += which @ block.astype(np.float64)
    sums /= np.bincount(of, minlength=count)[:, None]
    return Vectors(sums.astype(np.float32), np.arange(count))


def predict(heads: Mapping[int | None, Head], vectors: Vectors, group: Integers, tested: Sequence[int]) -> Floats:
    """Values [n, T] of n vectors, each by the head that never saw its group; NaN where the group is not tested."""
    made = np.full((len(vectors), next(iter(heads.values())).bias.size), np.nan)
    for place, block in vectors.blocks():
        for one in tested:
            mine = group[place] == one
            made[place][mine] = heads[one](block[mine])
    return made
