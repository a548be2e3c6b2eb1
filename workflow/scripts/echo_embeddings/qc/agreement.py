"""How far two sets of vectors of the same clips agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist
from sklearn.neighbors import NearestNeighbors

from ..core import origin
from ..core.errors import UserError
from ..core.vectors import read_vectors
from . import causes
from .base import (
    NAMED,
    NEIGHBOURS,
    SAMPLE,
    SEED,
    Check,
    Floats,
    Histogram,
    Integers,
    blocks,
    count,
    hashed,
    histogram,
    plain,
    sample,
)

SAME = 0.9999  # cosine: at least this much is the same direction but for rounding
EQUAL = 0.02  # relative distance: at most this much is the same vector but for rounding
TRIED = 1000  # clips whose order is mixed to see what chance gives
MIXED = 99  # times: a figure that is above all of these is above chance (p <= 0.01)
MUCH = 0.3  # CKA: files of which it is less have little in common, although it may be above chance
CLOSE = 0.05  # of the median distance between two clips: a clip's two vectors that are farther apart differ
ENOUGH = 20  # clips: of fewer, chance cannot be told
LISTED = 1000  # keys of one file only


@dataclass(frozen=True)
class Agreement:
    """Two models on the same sample of clips."""

    clips: int  # of the sample
    cka: float | None  # linear, debiased; None of fewer than 4 clips or of vectors that do not vary
    overlap: float | None  # share of the 10 nearest that are the same; None of so few clips
    chance: float | None  # what the overlap would be by chance
    linked: bool | None  # whether the CKA is above that of mixed clips; None of too few to tell


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
    farthest: float | None  # the largest
    shifted: float | None  # the largest distance, in median distances between two clips of the first file
    longer: float | None  # median of the second vector's length over the first's
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
    return Agreement(len(x), cka(x, y), near, None if near is None else NEIGHBOURS / (len(x) - 1), _linked(x, y))


def _linked(x: Floats, y: Floats) -> bool | None:
    """Whether the same rows of x [n, D] and y [n, E] have more in common than rows in a mixed order."""
    chosen = sample(len(x), TRIED)
    x, y = x[chosen], y[chosen]
    found = cka(x, y)
    if len(x) < ENOUGH:
        return None
    if found is None:
        return False
    generator = np.random.default_rng(SEED)
    mixed = (cka(x, y[generator.permutation(len(y))]) for _ in range(MIXED))
    return all(other is None or found > other for other in mixed)


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


def compare(first: Path, second: Path, hash_names: bool = False) -> Comparison:
    """Compare two embedding files clip by clip; with `hash_names` nothing that is found names a clip or a path.

    Raises `UserError` if one cannot be read or they share no key.
    """
    (keys, a), (others, b) = read_vectors(first), read_vectors(second)
    at = dict(zip(others, range(len(others)), strict=True))
    mine = [key for key in keys if key in at]
    if not mine:
        raise UserError(
            f"{first} and {second} share no key: {next(iter(keys), 'nothing')!r} in the one, "
            f"{next(iter(others), 'nothing')!r} in the other; were they merged with the same merge.prefix_folder?"
        )
    known = set(mine)
    naming = hashed if hash_names else plain
    only = ([key for key in keys if key not in at], [key for key in others if key not in known])
    x: Floats = a.numpy()
    y: Floats = b.numpy()
    rows = np.array([i for i, key in enumerate(keys) if key in at])
    columns = np.array([at[key] for key in mine])
    chosen = sample(len(mine), SAMPLE)
    alike = _clip_by_clip(x, y, rows, columns) if x.shape[1] == y.shape[1] else None
    some = alike if alike is not None and alike["cosine"].notna().any() else None
    least = some["cosine"].nsmallest(10) if some is not None else pd.Series(dtype=float)
    found = Comparison(
        names=("A", "B") if hash_names else (str(first), str(second)),
        vectors=(len(keys), len(others)),
        dims=(x.shape[1], y.shape[1]),
        matched=len(mine),
        only=(len(only[0]), len(only[1])),
        only_keys=([*map(naming, only[0][:LISTED])], [*map(naming, only[1][:LISTED])]),
        identical=int(alike["equal"].sum()) if alike is not None else None,
        undefined=int(alike["cosine"].isna().sum()) if alike is not None else None,
        mean=float(some["cosine"].mean()) if some is not None else None,
        min=float(some["cosine"].min()) if some is not None else None,
        worst=[(naming(mine[i]), float(cosine)) for i, cosine in zip(least.index.to_numpy(), least, strict=True)],
        apart=float(some["apart"].median()) if some is not None else None,
        farthest=float(some["apart"].max()) if some is not None else None,
        shifted=_in_distances(some, x[rows[chosen]]) if some is not None else None,
        longer=float(some["longer"].median()) if some is not None else None,
        cosines=histogram(some["cosine"].dropna().to_numpy()) if some is not None else None,
        agreement=agree(x[rows[chosen]], y[columns[chosen]]),
        origins=(origin.beside(first), origin.beside(second)),
        checks=[],
    )
    found.checks.extend(_judge(found))
    return found


def _clip_by_clip(x: Floats, y: Floats, rows: Integers, columns: Integers) -> pd.DataFrame:
    """Each of n clips' two vectors, `x` at `rows` [n] and `y` at `columns` [n], in columns of n.

    `cosine`, their cosine similarity; `distance`; `apart`, that over their mean length; `longer`, the second's length
    over the first's; NaN where one has no direction; `equal`, in every value.
    """
    parts = []
    for part in blocks(len(rows)):
        a, b = x[rows[part]].astype(np.float64), y[columns[part]].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
            found = {
                "cosine": (np.einsum("ij,ij->i", a, b) / (lengths[0] * lengths[1])).clip(-1, 1),
                "distance": np.linalg.norm(a - b, axis=1),
                "apart": 2 * np.linalg.norm(a - b, axis=1) / (lengths[0] + lengths[1]),
                "longer": lengths[1] / lengths[0],
            }
        table = pd.DataFrame(found)
        parts.append(table.where(np.isfinite(table["cosine"])).assign(equal=(a == b).all(axis=1)))
    return pd.concat(parts, ignore_index=True)


def _in_distances(some: pd.DataFrame, x: Floats) -> float | None:
    """The largest distance of a clip's two vectors over the median distance between two of the vectors x [n, D]."""
    sound = x[np.isfinite(x).all(axis=1)][:TRIED].astype(np.float64)
    typical = float(np.median(pdist(sound))) if len(sound) > 1 else 0.0
    return float(some["distance"].max()) / typical if typical > 0 else None


def _judge(found: Comparison) -> list[Check]:
    missing = sum(found.only)
    sentence = f"{count(found.matched, 'key')} in both files" + (
        f", {found.only[0]:,} only in {found.names[0]}, {found.only[1]:,} only in {found.names[1]}."
        if missing
        else ", none in only one of them."
    )
    checks = [Check("Keys", "check" if missing else "good", sentence, "keys")]
    checks += _judge_links(found.agreement)
    if found.undefined:
        words = f"{count(found.undefined, 'clip')} with a vector that is zero or holds NaN or Inf in one file or both."
        checks.append(Check("Finite", "fault", words, "vectors"))
    if found.dims[0] != found.dims[1]:
        words = f"{found.dims[0]} and {found.dims[1]} dimensions: the vectors cannot be compared clip by clip."
        return [*checks, Check("Vectors", "check", words, "vectors")]
    if found.mean is None or found.min is None or found.farthest is None or found.longer is None:
        return checks
    same = found.min >= SAME and found.farthest <= EQUAL and (found.shifted is None or found.shifted <= CLOSE)
    names = ", ".join(key for key, _ in found.worst[:NAMED])
    sentence = f"Cosine similarity of a clip's two vectors: {found.mean:.6f} on average, {found.min:.6f} at least"
    if same:
        sentence += ": the same but for rounding."
    else:
        sentence += (
            f" (least alike: {names}). A clip's two vectors are {found.apart:.1%} of their length apart (median), "
            f"{found.farthest:.1%} at most"
            + (f" ({found.shifted:.1%} of the distance between two clips)" if found.shifted is not None else "")
            + f", and the second is {found.longer:.3g} times as long as the first."
        )
    why = causes.judge(found.names, found.origins, found.apart or 0.0, same)
    return [*checks, Check("Vectors", "good" if same else "check", sentence, "vectors"), *why]


def _judge_links(found: Agreement) -> list[Check]:
    """Whether the two vectors of a clip have more to do with each other than those of two clips."""
    name, section = "Agreement", "summary"
    if found.linked is None:
        words = f"{count(found.clips, 'clip')} with two sound vectors: too few to tell agreement from chance."
        return [Check(name, "not tested", words, section)]
    if found.cka is None:
        return [Check(name, "fault", "The vectors of one file do not vary between clips, or hardly.", section)]
    figures = f"linear CKA {found.cka:.3f}"
    if found.overlap is not None and found.chance is not None:
        figures += f", neighbour overlap {found.overlap:.1%} ({found.chance:.1%} by chance)"
    if not found.linked:
        words = (
            f"No better than chance: {figures}. The clips' vectors in the two files have nothing to do with each "
            "other: the keys of one are mixed up, or its vectors are noise."
        )
        return [Check(name, "fault", words, section)]
    if found.cka < MUCH:
        words = f"Above chance, but with little in common: {figures}. Some keys of one may be mixed up."
        return [Check(name, "check", words, section)]
    words = f"Far above chance: {figures}. That keys are mixed up within a patient would not show here."
    return [Check(name, "good", words, section)]
