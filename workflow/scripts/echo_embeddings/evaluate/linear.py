"""Vectors that may lie in a file, and linear maps of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import UserError
from ..qc.base import Vectors, blocks
from ..tables.study import add_to

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BLOCK = 8192  # vectors read at a time: 32 MB of ViT-L's


def finite(vectors: Vectors) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Blocks of vectors: which of them, and these, float32 [b, D]. Raises `UserError` on NaN and Inf."""
    for place in blocks(len(vectors), BLOCK):
        block = vectors.block(place)
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
    for place, block in finite(vectors):
        add_to(sums, block, of[place])
    sums /= np.bincount(of, minlength=count)[:, None]
    return Vectors(sums.astype(np.float32), np.arange(count))


def predict(heads: Mapping[int | None, Head], vectors: Vectors, group: Integers, tested: Sequence[int]) -> Floats:
    """Values [n, T] of n vectors, each by the head that never saw its group; NaN where the group is not tested."""
    made = np.full((len(vectors), next(iter(heads.values())).bias.size), np.nan)
    for place, block in finite(vectors):
        for one in tested:
            mine = group[place] == one
            made[place][mine] = heads[one](block[mine])
    return made


def noise_share(heads: Mapping[int | None, Head], vectors: npt.NDArray[np.float32], tested: Sequence[int]) -> float:
    """How much of the variation of predictions is of the fits and not of the vectors [n, D], 0 to 1.

    By a jackknife over the `tested` groups, each of which one of the heads was fitted without.
    """
    if len(tested) < 2:
        return 0.0
    every = np.stack([heads[one](vectors) for one in tested])
    every -= every.mean(axis=1, keepdims=True)
    mean = every.mean(axis=0)
    of_fits = (len(tested) - 1) / len(tested) * ((every - mean) ** 2).sum()
    return float(min(1.0, of_fits / max((mean**2).sum(), 1e-300)))
