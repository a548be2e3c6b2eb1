"""Values and L2 norms of each folder, and how far each folder has drifted from the rest."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from .accounting import TOTAL
from .base import (
    NAMED,
    PICTURE,
    SAMPLE,
    TAIL,
    Check,
    Floats,
    Histogram,
    Integers,
    Level,
    Vectors,
    bulk,
    count,
    sample,
    spread,
)
from .components import Components
from .moments import Totals
from .tables import UNKNOWN

BINS = 80
LEAST = 50  # vectors of each folder, where it has so many, of which values are looked at
DRIFT = 0.25  # of the spread of all vectors: a folder's mean that is farther off has drifted
FOREIGN = 1.0  # of the spread: a folder that is farther off is of another kind, which is a fault
CHANCE = 3.0  # times what chance would give: a folder's mean must also be beyond that
SEEN = 4.0  # times what chance would give: a folder that is so far off is sure to be beyond that
KS = 0.2  # of the L2 norms: a folder that is farther off has drifted
KS_CHANCE = 1.63  # the 1 % point of Kolmogorov's distribution: its norms must also be beyond that
AGAINST = ("drift", "chance", "seen", "norm_ks", "ks_chance")
MANY = 12  # folders; of more, only those that drifted most are drawn


@dataclass(frozen=True)
class Statistics:
    """The finite vectors, by folder and all."""

    table: pd.DataFrame  # see `describe`; one row a folder and all as the last; no rows of no vectors
    values: dict[str, Histogram] = field(metadata=PICTURE)  # folder or `TOTAL` -> its values
    norms: dict[str, Histogram] = field(metadata=PICTURE)  # folder or `TOTAL` -> its L2 norms


def describe(
    vectors: Vectors,
    norms: Floats,
    clips: pd.DataFrame,
    folders: Sequence[str],
    codes: Integers,
    totals: list[Totals],
    components: Components | None,
) -> Statistics:
    """Describe the n vectors of L2 `norms` [n]; `clips` are theirs, `codes` [n] number their `folders`.

    `totals` are those of each folder and, as the last, of all. Columns of the table: `folder`, `vectors`, `patients`
    (0 where none is known); of all values `mean`, `std`, `min`, `max`, and the `median` of a seeded sample; of the L2
    norms `norm_mean`, `norm_std`, `norm_min`, `norm_median`, `norm_max`; and against the rest of the folders

    `drift`      distance of its mean vector from the centre, in units of the spread of all vectors (the square
                 root of the summed variances of all dimensions). The centre is the median of the folders' mean
                 vectors, dimension by dimension, each of the weight of its vectors: one foreign folder leaves it
                 where the others are
    `chance`     what `drift` would be if patients fell into the folders at random, see `_by_chance`
    `seen`       the smallest shift of the folder that would be called drift
    `norm_ks`    two-sample Kolmogorov-Smirnov statistic of the L2 norms against the other folders', 0 to 1
    `ks_chance`  its 1 % point by chance: 1.63 sqrt(1 / n + 1 / m), where n and m are the effective numbers of
                 patients of the folder and of the others, (sum of clips)^2 / sum of clips^2; 1 at most
    """
    if not len(vectors):
        return Statistics(pd.DataFrame(), {}, {})
    units = _units(clips)
    shares = _shares(units, codes, components)
    centre = _centre(totals[:-1])
    values = _some_values(vectors, codes, len(folders))
    present = [code for code, total in enumerate(totals) if total.vectors]
    lines = []
    for code in present:
        last = code == len(folders)
        mask = slice(None) if last else codes == code
        line = _values(
            TOTAL if last else folders[code], totals[code], float(np.median(values[code])), norms[mask], clips[mask]
        )
        lines.append(
            line | ({} if last else _against_the_rest(totals[code], totals[-1], centre, norms, mask, units, shares))
        )
    names = [line["folder"] for line in lines]
    edges, norm_edges = _edges(values[len(folders)]), _edges(norms)
    return Statistics(
        pd.DataFrame(lines, columns=[*lines[-1], *AGAINST]),
        {
            name: Histogram(edges, np.histogram(values[code], edges)[0])
            for name, code in zip(names, present, strict=True)
        },
        {
            name: Histogram(norm_edges, np.histogram(norms if name == TOTAL else norms[codes == code], norm_edges)[0])
            for name, code in zip(names, present, strict=True)
        },
    )


def _some_values(vectors: Vectors, codes: Integers, folders: int) -> dict[int, Floats]:
    """The values of a seeded sample of each folder's vectors, by its number; under `folders`, of all."""
    each = max(LEAST, 2 * SAMPLE // folders)
    found = {folders: sample(len(vectors), SAMPLE)}
    for code in np.unique(codes).tolist():
        inside = np.flatnonzero(codes == code)
        found[code] = inside[sample(len(inside), each)]
    return {code: vectors.take(places).ravel() for code, places in found.items()}


def _edges(values: Floats) -> Floats:
    """The edges of `BINS` equal ranges over the bulk of the values, see `base.bulk`."""
    low, high = bulk(*np.quantile(values.astype(np.float64), [TAIL, 1 - TAIL]))
    return np.linspace(*spread(max(low, float(values.min())), min(high, float(values.max()))), BINS + 1)


def _values(folder: str, total: Totals, median: float, norms: Floats, clips: pd.DataFrame) -> dict[str, Any]:
    return {
        "folder": folder,
        "vectors": total.vectors,
        "patients": _patients(clips),
        "mean": total.mean,
        "std": total.std,
        "min": float(total.low.min()),
        "median": median,
        "max": float(total.high.max()),
        "norm_mean": float(norms.mean()),
        "norm_std": float(norms.std()),
        "norm_min": float(norms.min()),
        "norm_median": float(np.median(norms)),
        "norm_max": float(norms.max()),
    }


def _patients(clips: pd.DataFrame) -> int:
    return int(clips.loc[clips["patient"] != UNKNOWN, "patient"].nunique())


def _units(clips: pd.DataFrame) -> Integers:
    """The number of each clip's patient, [n]; a number of its own where the patient is not known."""
    known = (clips["patient"] != UNKNOWN).to_numpy()
    codes = pd.factorize(clips["patient"])[0].astype(np.int64)
    return np.where(known, codes, codes.max(initial=0) + 1 + np.arange(len(codes)))


def _centre(totals: Sequence[Totals]) -> Floats:
    """The weighted median of the folders' mean vectors, [D]; their weights are how many vectors they have."""
    filled = [total for total in totals if total.vectors]
    means = np.stack([total.sum / total.vectors for total in filled])
    order = np.argsort(means, axis=0)
    weights = np.array([total.vectors for total in filled])[order]
    middle = (np.cumsum(weights, axis=0) >= weights.sum(axis=0) / 2).argmax(axis=0)
    found: Floats = np.take_along_axis(means, np.take_along_axis(order, middle[None], axis=0), axis=0)[0]
    return found


def _shares(units: Integers, codes: Integers, components: Components | None) -> tuple[float, float]:
    """The shares of the spread that lie between the `units` [n] and within them, in the first components.

    By the analysis of variance with unequal numbers (Searle, Casella and McCulloch, Variance Components, 1992),
    within folders, whose numbers are `codes` [n], so that a foreign one does not count as chance; and of all vectors
    where folders have hardly more than one unit.
    """
    if components is None:
        return 1.0, 0.0
    scores = pd.DataFrame(components.scores.astype(np.float64))
    total = float(scores.var(ddof=0).sum())
    _, first, units = np.unique(units, return_index=True, return_inverse=True)
    n, k = len(scores), len(first)
    groups = codes if k >= 2 * len(np.unique(codes)) else np.zeros_like(codes)
    scores -= scores.groupby(groups).transform("mean")
    of = pd.DataFrame({"group": groups[first], "clips": np.bincount(units)}).groupby("group")["clips"]
    between = float(np.square(scores.groupby(units).sum()).sum(axis=1) @ (1 / np.bincount(units)))
    within = (float(np.square(scores).sum().sum()) - between) / (n - k) if n > k else 0.0
    times = n - float(of.agg(lambda clips: np.square(clips).sum() / clips.sum()).sum())
    of_units = max(0.0, between - (k - len(of)) * within) / times if times > 0 else 0.0
    return of_units / total, within / total


def _effective(units: Integers) -> float:
    """How many units of equal size would vary as much as these [n]."""
    sizes = np.unique(units, return_counts=True)[1]
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def _against_the_rest(
    part: Totals,
    total: Totals,
    centre: Floats,
    norms: Floats,
    mask: Any,
    units: Integers,
    shares: tuple[float, float],
) -> dict[str, float | None]:
    """Drift, the statistic of the norms, and what chance would make of them; None where there is no rest."""
    rest = total.vectors - part.vectors
    mean = total.sum / total.vectors
    variance = total.squares / total.vectors - float(mean @ mean)
    if not rest or variance <= 1e-12 * float(mean @ mean):
        return dict.fromkeys(AGAINST)
    apart = part.sum / part.vectors - centre
    few = 1 / _effective(units[mask]) + 1 / _effective(units[~mask])
    chance = float(np.sqrt(shares[0] * few + shares[1] * (1 / part.vectors + 1 / rest)))
    return {
        "drift": float(np.sqrt(apart @ apart / variance)),
        "chance": chance,
        "seen": max(DRIFT, SEEN * chance),
        "norm_ks": float(ks_2samp(norms[mask], norms[~mask], method="asymp").statistic),
        "ks_chance": min(1.0, float(KS_CHANCE * np.sqrt(few))),
    }


def drifted(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of folders whose vectors lie apart from those of the rest, by mean or by norm, worst first."""
    if not len(table):
        return table
    beyond = (table["drift"] > DRIFT) & (table["drift"] > CHANCE * table["chance"])
    longer = (table["norm_ks"] > KS) & (table["norm_ks"] > table["ks_chance"])
    return table[beyond | longer].sort_values("drift", ascending=False, kind="stable")


def judge(statistics: Statistics, folders: int) -> list[Check]:
    """The check that no folder has drifted."""
    if folders < 2 or not len(statistics.table):
        return []
    found = drifted(statistics.table)
    if len(found):
        level: Level = "fault" if found["drift"].iloc[0] > FOREIGN else "check"
        worst = ", ".join(f"{row.folder} ({row.drift:.2f})" for row in found.head(NAMED).itertuples())
        more = f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
        sentence = f"Folders unlike the rest, with their distance from it in spreads of all vectors: {worst}{more}."
        return [Check("Drift", level, sentence, "statistics")]
    by_folder = statistics.table.iloc[:-1]
    blind = by_folder[~(by_folder["seen"] <= FOREIGN)]
    if 2 * blind["vectors"].sum() > by_folder["vectors"].sum():
        sentence = (
            f"No folder stands out, but in {len(blind):,} of {count(len(by_folder), 'folder')} even a shift of the "
            "whole spread would not: they have too few patients."
        )
        return [Check("Drift", "not tested", sentence, "statistics")]
    sentence = (
        f"The folders' vectors are alike: a shift of {by_folder['seen'].median():.2f} of the spread would show in "
    )
    sentence += "half of them" + (
        f", and in {len(blind):,} of them not even one of the whole spread." if len(blind) else "."
    )
    return [Check("Drift", "good", sentence, "statistics")]
