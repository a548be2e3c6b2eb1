"""Principal components of all vectors, by the eigenvectors of their covariance, summed up block by block."""

from dataclasses import dataclass, field

import numpy as np
import scipy.linalg
from scipy.stats import entropy

from .base import PICTURE, Floats, Vectors
from .moments import Totals

KEPT = 64  # components whose scores are computed
GROUP = 4  # blocks a matrix product: larger ones are quicker
LEVELS = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Components:
    """Principal components, and how many directions the vectors use."""

    explained: Floats  # [min(N - 1, D)]: share of the variance, largest first
    effective_rank: float  # exp of the entropy of the shares (Roy and Vetterli, 2007): 1 is a line, D is a ball
    needed: dict[str, int]  # share of the variance, as "50 %" -> how many components have it together
    variance: float  # of all dimensions together: the mean squared distance to the mean vector
    scores: Floats = field(metadata=PICTURE)  # float32 [N, K], K <= KEPT
    distance: Floats = field(metadata=PICTURE)  # float64 [N]: of each vector to the mean vector


@dataclass(frozen=True)
class Dimensions:
    """Each of the D dimensions over all vectors, float64 [D]. Spreads are of the population (divided by N)."""

    mean: Floats
    variance: Floats


def analyse(vectors: Vectors, total: Totals) -> tuple[Dimensions, Components | None]:
    """Components of the n vectors, whose sums `total` holds; the second is None where all are equal, or n < 2.

    Two passes in float64: the covariance [D, D], then scores. The covariance is that of the values shifted by
    the mean and scaled by the largest deviation, so that neither a large mean nor large values drown it.
    """
    n, dim = len(vectors), len(total.sum)
    mean = total.sum / n
    scale = max(float((total.high - mean).max()), float((mean - total.low).max()))
    if n < 2 or scale <= 1e-12 * float(np.abs(mean).max()):
        return Dimensions(mean, np.zeros(dim)), None
    product = np.zeros((dim, dim))
    group: list[Floats] = []
    for place, block in vectors.blocks():
        group.append((block - mean) / scale)
        if len(group) == GROUP or place.stop == n:
            centred = np.concatenate(group)
            product += centred.T @ centred
            group = []
    product /= n
    variance = np.diagonal(product).copy()
    spectrum, directions = scipy.linalg.eigh(product, overwrite_a=True, check_finite=False)
    order = np.argsort(spectrum)[::-1][: min(n - 1, dim)]
    shares = spectrum[order].clip(min=0)
    shares /= shares.sum()
    kept = directions[:, order[:KEPT]]
    kept *= np.sign(kept[np.abs(kept).argmax(axis=0), range(kept.shape[1])])  # one of the two signs, always the same
    scores = np.empty((n, kept.shape[1]), np.float32)
    distance = np.empty(n)
    for place, block in vectors.blocks():
        centred = (block - mean) / scale
        scores[place] = (centred @ kept) * scale
        distance[place] = np.sqrt(np.einsum("ij,ij->i", centred, centred)) * scale
    up_to = np.cumsum(shares)
    needed = {f"{level:.0%}".replace("%", " %"): int(np.searchsorted(up_to, level - 1e-9)) + 1 for level in LEVELS}
    parts = Components(
        explained=shares,
        effective_rank=float(np.exp(entropy(shares))),
        needed=needed,
        variance=float(variance.sum() * scale**2),
        scores=scores,
        distance=distance,
    )
    return Dimensions(mean, variance * scale**2), parts
