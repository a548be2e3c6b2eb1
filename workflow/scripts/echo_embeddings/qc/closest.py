"""Nearest clips among a few thousand, by cosine similarity, all pairs compared."""

from collections.abc import Sequence

import numpy as np

from .base import BLOCK, Bools, Floats, Integers, blocks, share_out


def closest(directions: Floats, k: int, owners: Integers | None = None) -> tuple[Integers, Floats]:
    """The `k` nearest to each of the `directions` [P, D], of length one or 0, itself left out; nearest first.

    Returns places [P, K] and similarities [P, K], K at most P - 1. With `owners` [P], those of the same owner are left
    out, too. What is left out, or has no direction, has a similarity of minus infinity where there are too few others.
    """
    n = len(directions)
    k = min(k, n - 1)
    places, values = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    nowhere: Bools = (directions == 0).all(axis=1)

    def search(parts: Sequence[slice]) -> None:
        space = np.empty((BLOCK, n), np.float32)
        for part in parts:
            rows = np.arange(part.start, part.stop)
            cosines = np.matmul(directions[part], directions.T, out=space[: len(rows)])
            cosines[:, nowhere] = -np.inf
            cosines[nowhere[part]] = -np.inf
            cosines[rows - part.start, rows] = -np.inf
            if owners is not None:
                cosines[owners[part, None] == owners] = -np.inf
            found = np.argpartition(cosines, n - k, axis=1)[:, n - k :]
            near = np.take_along_axis(cosines, found, axis=1)
            order = np.argsort(-near, axis=1, kind="stable")
            places[part] = np.take_along_axis(found, order, axis=1)
            values[part] = np.take_along_axis(near, order, axis=1)

    if k > 0:
        share_out(blocks(n), search)
    return places, values


def unit(rows: Floats) -> Floats:
    """The rows [P, D] of length one, float32; those of zeros stay."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)  # so that squares of any value stay in range
    scaled: Floats = np.divide(rows, largest, where=largest > 0, out=np.zeros(rows.shape, np.float32), casting="unsafe")
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    np.divide(scaled, lengths, where=lengths > 0, out=scaled)
    return scaled
