"""Principal components of all vectors, by the eigenvectors of their covariance, summed up block by block."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.linalg
from scipy.stats import entropy

from .base import BLOCK, PICTURE, SAMPLE, Floats, Integers, Vectors, blocks, sample, share_out
from .moments import Totals

KEPT = 64  # components whose scores are computed
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
    distance = np.empty(n)

    def multiply(places: Sequence[slice]) -> Floats:
        product, part = np.zeros((dim, dim)), np.empty((dim, dim))
        for place, centred in _centred(vectors, places, mean, scale):
            product += np.matmul(centred.T, centred, out=part)
            distance[place] = np.sqrt(np.einsum("ij,ij->i", centred, centred)) * scale
        return product

    product = np.sum(share_out(blocks(n), multiply), axis=0) / n
    variance = np.diagonal(product)
    kept = min(n - 1, dim, KEPT)
    spectrum = scipy.linalg.eigh(product, eigvals_only=True, check_finite=False)[::-1][: min(n - 1, dim)].clip(min=0)
    directions = scipy.linalg.eigh(product, subset_by_index=[dim - kept, dim - 1], check_finite=False)[1][:, ::-1]
    directions *= np.sign(directions[np.abs(directions).argmax(axis=0), range(kept)])  # of two signs always the same
    scores = np.empty((n, kept), np.float32)

    def project(places: Sequence[slice]) -> None:
        for place, centred in _centred(vectors, places, mean, scale):
            scores[place] = (centred @ directions) * scale

    share_out(blocks(n), project)
    shares = spectrum / spectrum.sum()
    up_to = np.cumsum(shares)
    needed = {f"{level:.0%}".replace("%", " %"): int(np.searchsorted(up_to, level - 1e-9)) + 1 for level in LEVELS}
    parts = Components(
        explained=shares,
        effective_rank=effective_rank(spectrum),
        needed=needed,
        variance=float(variance.sum() * scale**2),
        scores=scores,
        distance=distance,
    )
    return Dimensions(mean, variance * scale**2), parts


def effective_rank(variances: Floats) -> float:
    """The exponential of the entropy of the components' shares of variance (Roy and Vetterli, 2007)."""
    return float(np.exp(entropy(variances)))


def of_some(vectors: Vectors, norms: Floats, places: Integers) -> tuple[float, float]:
    """The effective rank of the vectors at `places`, and the mean cosine similarity of two of them.

    `norms` [n] are the L2 norms of all. Of at most `SAMPLE` of the places, a seeded draw.
    """
    chosen = places[sample(len(places), SAMPLE)]
    found = vectors.take(chosen).astype(np.float64)
    lengths = norms[chosen]
    directions = (found[lengths > 0] / lengths[lengths > 0, None]).sum(axis=0)
    m = int((lengths > 0).sum())
    found /= lengths.max()
    spectrum = scipy.linalg.eigvalsh(np.cov(found.T, bias=True).reshape(len(found.T), -1))[::-1]
    return (
        effective_rank(spectrum[: len(found) - 1].clip(min=0)),
        float((directions @ directions - m) / (m * (m - 1))),
    )


def _centred(vectors: Vectors, places: Sequence[slice], mean: Floats, scale: float) -> Iterator[tuple[slice, Floats]]:
    """Yield each of the `places` with its vectors in float64, shifted and scaled; the next ones overwrite them."""
    space = np.empty((BLOCK, len(mean)))
    for place in places:
        centred = space[: place.stop - place.start]
        np.subtract(vectors.block(place), mean, out=centred)
        centred /= scale
        yield place, centred
