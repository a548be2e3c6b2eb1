"""Clips on a plane: principal components, and a picture that keeps neighbours together."""

from dataclasses import dataclass

import numpy as np
from openTSNE import TSNEEmbedding, initialization
from openTSNE.affinity import PerplexityBasedNN
from openTSNE.nearest_neighbors import PrecomputedNeighbors

from .base import SEED, TAIL, THREADS, Floats, Integers, bulk, spread

PERPLEXITY = 30  # neighbours, about, that each clip keeps
NEAREST = 3 * PERPLEXITY  # of each clip, which this takes
FEWEST = 50  # clips of which neighbourhoods are worth a picture
EARLY, LATER = 250, 500  # iterations
MANY = 2000  # clips: from here on interpolation is faster than a tree


@dataclass(frozen=True)
class View:
    """P clips on a plane."""

    title: str
    axes: tuple[str, str]  # what is to be read off them; empty where that is nothing
    points: Floats  # float32 [P, 2]
    window: tuple[float, float, float, float]  # left, right, bottom, top of what is shown at first


def components(scores: Floats, explained: Floats) -> list[View]:
    """Views of P clips by their `scores` [P, K] of the first components, K at most 3, two at a time."""
    scores = np.pad(scores, ((0, 0), (0, max(0, 2 - scores.shape[1]))))
    shares = [*explained[:3], 0.0]  # where there is but one component, a second of nothing
    names = [f"component {i + 1} ({share:.1%})" for i, share in enumerate(shares)]
    pairs = [(0, 1), (0, 2), (1, 2)] if scores.shape[1] > 2 else [(0, 1)]
    return [
        _view(f"components {a + 1} and {b + 1}", (names[a], names[b]), scores[:, [a, b]].astype(np.float32))
        for a, b in pairs
    ]


def neighbourhoods(near: Integers, cosines: Floats, start: Floats) -> View | None:
    """t-SNE of P clips from their nearest, as `closest.closest` has them; it begins at the plane `start` [P, 2].

    Clips without a direction are as far from all others as can be. None of fewer than `FEWEST` clips.
    """
    n, k = near.shape
    if n < FEWEST or start[:, 0].std() == 0:
        return None
    apart = np.sqrt(2 - 2 * np.where(np.isfinite(cosines), cosines, -1).astype(np.float64).clip(-1, 1))
    affinities = PerplexityBasedNN(
        knn_index=PrecomputedNeighbors(near, apart), perplexity=min(PERPLEXITY, k / 3), n_jobs=THREADS
    )
    plane = TSNEEmbedding(
        initialization.rescale(start.astype(np.float64), inplace=False, target_std=1e-4),
        affinities,
        negative_gradient_method="fft" if n > MANY else "bh",
        n_jobs=THREADS,
        random_state=SEED,
    )
    plane = plane.optimize(EARLY, exaggeration=12, momentum=0.5)
    plane = plane.optimize(LATER, momentum=0.8)
    return _view("neighbourhoods (t-SNE)", ("", ""), np.asarray(plane, np.float32))


def _view(title: str, axes: tuple[str, str], points: Floats) -> View:
    low, high = bulk(*np.quantile(points, [TAIL, 1 - TAIL], axis=0))
    left, right = spread(float(max(low[0], points[:, 0].min())), float(min(high[0], points[:, 0].max())))
    bottom, top = spread(float(max(low[1], points[:, 1].min())), float(min(high[1], points[:, 1].max())))
    return View(title, axes, points, (left, right, bottom, top))
