"""Groups of nearly equal vectors, found among candidates: half a million cannot be compared each with each."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist

from .base import SEED, Bools, Floats, Integers, Vectors, blocks, sample, share_out
from .components import Components

TREES, LEAF, CLOSEST = 6, 256, 4


def nearly_equal(vectors: Vectors, components: Components, equal: Integers, radius: float) -> list[Integers]:
    """Groups of vectors that a chain of distances of at most `radius` connects, as places among the n.

    Vectors with the same number in `equal` [n] are equal: one stands for all, and they alone are no group.
    Candidates come from the scores of the first components, which are never farther apart than the vectors
    are: `TREES` random rotations of them are each cut at medians into buckets of at most `LEAF`, and close
    pairs of a bucket are measured in full.
    """
    _, first, back = np.unique(equal, return_index=True, return_inverse=True)
    n = len(first)
    found: list[Integers] = []
    label = np.arange(n)
    generator = np.random.default_rng(SEED)
    scores = components.scores[first]
    for _ in range(TREES):
        rotation = np.linalg.qr(generator.normal(size=(scores.shape[1], scores.shape[1])))[0].astype(np.float32)
        pairs = _candidates(scores @ rotation, radius)
        pairs = pairs[label[pairs[:, 0]] != label[pairs[:, 1]]]
        found.append(pairs[_within(vectors, first[pairs], radius)])
        joined = np.concatenate(found)
        edges = coo_array((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), shape=(n, n))
        label = connected_components(edges, directed=False)[1]
    return groups(label[back], np.bincount(label))


def groups(labels: Integers, sizes: Integers) -> list[Integers]:
    """The places of each label whose size is more than one, largest group first; `sizes` are those of the labels."""
    often = np.flatnonzero(sizes[labels] > 1)
    often = often[np.argsort(labels[often], kind="stable")]
    parts = np.split(often, np.flatnonzero(np.diff(labels[often])) + 1) if len(often) else []
    return sorted(parts, key=lambda places: (-len(places), places[0]))


def typical_distance(vectors: Vectors) -> float:
    """The median distance between two of the vectors, of a seeded sample of 1,000."""
    return float(np.median(pdist(vectors.take(sample(len(vectors), 1000)).astype(np.float64))))


def _candidates(points: Floats, radius: float) -> Integers:
    """Pairs [p, 2] of the points [n, k] that are in one bucket and may lie within `radius`, see `_close_pairs`."""

    def close_pairs(buckets: Sequence[Integers]) -> list[Integers]:
        return [bucket[_close_pairs(points[bucket], radius)] for bucket in buckets]

    none = np.empty((0, 2), np.int64)
    return np.concatenate(
        [none, *(pairs for share in share_out(list(_buckets(points)), close_pairs) for pairs in share)]
    )


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
    distances = points @ points.T
    distances *= -2
    distances += squares
    distances += squares[:, None]
    np.fill_diagonal(distances, np.inf)
    limit = 1.01 + 1e-5 * float(squares.max(initial=0))  # rounding included
    rows = np.flatnonzero(distances.min(axis=1, initial=np.inf) <= limit)
    if not len(rows):
        return np.empty((0, 2), np.int64)
    distances = distances[rows]
    nearest = np.argsort(distances, axis=1)[:, :CLOSEST]
    near = np.take_along_axis(distances, nearest, axis=1) <= limit
    pairs = np.column_stack([np.repeat(rows, near.sum(axis=1)), nearest[near]])
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _within(vectors: Vectors, pairs: Integers, radius: float) -> Bools:
    """Which of the pairs [p, 2] of places among the n lie within `radius`."""
    near = np.zeros(len(pairs), bool)
    for part in blocks(len(pairs)):
        apart = vectors.take(pairs[part, 0]).astype(np.float64) - vectors.take(pairs[part, 1])
        near[part] = np.sqrt(np.einsum("ij,ij->i", apart, apart)) <= radius
    return near
