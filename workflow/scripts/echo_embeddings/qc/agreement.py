"""How far two sets of vectors of the same clips agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from ..core import origin
from ..core.errors import UserError
from ..core.vectors import read_vectors
from . import causes
from .base import BLOCK, NAMED, NEIGHBOURS, SAMPLE, Check, Floats, Histogram, Integers, Level, count, histogram, sample

SAME = 0.9999  # cosine: at least this much is the same vector but for rounding
LISTED = 1000  # keys of one file only


@dataclass(frozen=True)
class Agreement:
    """Two models on the same sample of clips."""

    clips: int  # of the sample
    cka: float | None  # linear, debiased; None of fewer than 4 clips or of vectors that do not vary
    overlap: float | None  # share of the 10 nearest that are the same; None of so few clips
    chance: float | None  # what the overlap would be by chance


@dataclass(frozen=True)
class Comparison:
    """Two embedding files."""

    names: tuple[str, str]
    vectors: tuple[int, int]
    dims: tuple[int, int]
    matched: int
    only: tuple[int, int]  # keys that only this file has
    only_keys: tuple[list[str], list[str]]  # the first `LISTED` of them
    identical: int | None  # vectors equal in every value; None of different lengths, as are the next
    undefined: int | None  # clips of which one vector is zero, or holds NaN or Inf: they have no cosine
    mean: float | None  # of the cosine similarity between a clip's two vectors
    min: float | None
    worst: list[tuple[str, float]]  # the keys least alike
    apart: float | None  # median distance of a clip's two vectors, relative to their mean length
    cosines: Histogram | None
    agreement: Agreement
    origins: tuple[dict[str, Any], dict[str, Any]]  # how the files were made, as those beside them say
    checks: list[Check]


def cka(x: Floats, y: Floats) -> float | None:
    """Linear centred kernel alignment of x [n, D] and y [n, E], 1 where they agree but for rotation and scale.

    Debiased as by Kornblith and others (ICML 2019, after Szekely and Rizzo, 2014): without that, many
    dimensions alone would give a large figure. None of fewer than 4 rows, or where one does not vary.
    """
    if len(x) < 4:
        return None
    x, y = (v.astype(np.float64) - v.mean(axis=0, dtype=np.float64) for v in (x, y))
    own = _alignment(x, x) * _alignment(y, y)
    return float(_alignment(x, y) / np.sqrt(own)) if own > 0 else None


def _alignment(x: Floats, y: Floats) -> float:
    n = len(x)
    product = float(np.square(x.T @ y).sum())
    a, b = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    return product - n / (n - 2) * float(a @ b) + float(a.sum() * b.sum()) / ((n - 1) * (n - 2))


def overlap(x: Floats, y: Floats) -> float | None:
    """Mean share of the 10 nearest (by cosine) of each row that are the same in x [n, D] and y [n, E]."""
    if len(x) < NEIGHBOURS + 2:
        return None
    first, second = (_nearest(v) for v in (x, y))
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    return float((both[:, 1:] == both[:, :-1]).sum(axis=1).mean() / NEIGHBOURS)


def _nearest(x: Floats) -> Integers:
    found: Integers = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(x).kneighbors(return_distance=False)
    return found


def agree(x: Floats, y: Floats) -> Agreement:
    """Compare the vectors [n, D] and [n, E] of the same n clips."""
    usable = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1) & x.any(axis=1) & y.any(axis=1)
    x, y = x[usable], y[usable]
    near = overlap(x, y)
    return Agreement(len(x), cka(x, y), near, None if near is None else NEIGHBOURS / (len(x) - 1))


def matrix(files: Sequence[Path]) -> dict[tuple[int, int], Agreement]:
    """The agreement of each two of the embedding files, on a seeded sample of the clips that all have.

    Raises `UserError` if one cannot be read.
    """
    read = [read_vectors(file) for file in files]
    shared = sorted(set.intersection(*(set(keys) for keys, _ in read))) if read else []
    chosen = [shared[i] for i in sample(len(shared), SAMPLE)]
    parts: list[Floats] = []
    for keys, tensor in read:
        at = dict(zip(keys, range(len(keys)), strict=True))
        parts.append(tensor.numpy()[[at[key] for key in chosen]])
    pairs = [(i, j) for i in range(len(files)) for j in range(i + 1, len(files))]
    return {(i, j): agree(parts[i], parts[j]) for i, j in pairs}


def compare(first: Path, second: Path) -> Comparison:
    """Compare two embedding files clip by clip. Raises `UserError` if one cannot be read or they share no key."""
    (keys, a), (others, b) = read_vectors(first), read_vectors(second)
    at = dict(zip(others, range(len(others)), strict=True))
    mine = [key for key in keys if key in at]
    if not mine:
        raise UserError(
            f"{first} and {second} share no key: {next(iter(keys), 'nothing')!r} in the one, "
            f"{next(iter(others), 'nothing')!r} in the other; were they merged with the same merge.prefix_folder?"
        )
    known = set(mine)
    only = ([key for key in keys if key not in at], [key for key in others if key not in known])
    x: Floats = a.numpy()
    y: Floats = b.numpy()
    rows = np.array([i for i, key in enumerate(keys) if key in at])
    columns = np.array([at[key] for key in mine])
    chosen = sample(len(mine), SAMPLE)
    same_length = x.shape[1] == y.shape[1]
    cosines, apart, identical = _clip_by_clip(x, y, rows, columns) if same_length else (None, None, None)
    defined = cosines[np.isfinite(cosines)] if cosines is not None else np.zeros(0)
    worst = [] if cosines is None else [i for i in np.argsort(cosines, kind="stable")[:10] if np.isfinite(cosines[i])]
    found = Comparison(
        names=(str(first), str(second)),
        vectors=(len(keys), len(others)),
        dims=(x.shape[1], y.shape[1]),
        matched=len(mine),
        only=(len(only[0]), len(only[1])),
        only_keys=(only[0][:LISTED], only[1][:LISTED]),
        identical=identical,
        undefined=len(cosines) - len(defined) if cosines is not None else None,
        mean=float(defined.mean()) if len(defined) else None,
        min=float(defined.min()) if len(defined) else None,
        worst=[(mine[i], float(cosines[i])) for i in worst] if cosines is not None else [],
        apart=float(np.median(apart[np.isfinite(apart)])) if apart is not None and len(defined) else None,
        cosines=histogram(defined) if len(defined) else None,
        agreement=agree(x[rows[chosen]], y[columns[chosen]]),
        origins=(origin.beside(first), origin.beside(second)),
        checks=[],
    )
    found.checks.extend(_judge(found))
    return found


def _clip_by_clip(x: Floats, y: Floats, rows: Integers, columns: Integers) -> tuple[Floats, Floats, int]:
    """The cosine similarity [n] of each clip's two vectors and their distance relative to their mean length [n].

    They are NaN where a vector has no direction. Also returns how many clips have two equal vectors.
    """
    cosines, apart = np.empty(len(rows)), np.empty(len(rows))
    identical = 0
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        a, b = x[rows[part]].astype(np.float64), y[columns[part]].astype(np.float64)
        identical += int((a == b).all(axis=1).sum())
        lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines[part] = np.einsum("ij,ij->i", a, b) / (lengths[0] * lengths[1])
            apart[part] = 2 * np.linalg.norm(a - b, axis=1) / (lengths[0] + lengths[1])
    return cosines, apart, identical


def _judge(found: Comparison) -> list[Check]:
    missing = sum(found.only)
    sentence = f"{count(found.matched, 'key')} in both files" + (
        f", {found.only[0]:,} only in {found.names[0]}, {found.only[1]:,} only in {found.names[1]}."
        if missing
        else ", none in only one of them."
    )
    checks = [Check("Keys", "warn" if missing else "good", sentence, "keys")]
    if found.min is None or found.mean is None:
        words = f"{found.dims[0]} and {found.dims[1]} dimensions: the vectors cannot be compared clip by clip."
        return [*checks, Check("Vectors", "warn", words, "vectors")]
    if found.undefined:
        words = f"{count(found.undefined, 'clip')} with a vector that is zero or holds NaN or Inf in one file or both."
        checks.append(Check("Finite", "bad", words, "vectors"))
    level: Level = "good" if found.min >= SAME else "warn"
    names = ", ".join(key for key, _ in found.worst[:NAMED])
    sentence = f"Cosine similarity of a clip's two vectors: {found.mean:.6f} on average, {found.min:.6f} at least"
    sentence += f" (least alike: {names})." if level == "warn" else ": the same but for rounding."
    if level == "warn":
        sentence += f" A clip's two vectors are {found.apart:.1%} of their length apart (median)."
    why = causes.judge(found.names, found.origins, found.apart or 0.0, level == "good")
    return [*checks, Check("Vectors", level, sentence, "vectors"), *why]
