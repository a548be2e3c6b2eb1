"""Values and L2 norms of each folder, and how far each folder has drifted from the rest."""

import math
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
    blocks,
    bulk,
    count,
    sample,
    spread,
)
from .components import Components
from .moments import Totals, sum_of
from .tables import UNKNOWN

BINS = 80
LEAST = 50  # vectors of each folder of which values are looked at; folders of fewer have no spread of their own
DRIFT = 0.25  # of the spread of a folder's vectors: a folder's mean that is farther off has drifted
FOREIGN = 1.0  # of the spread: a folder that is farther off is of another kind, which is a fault
CHANCE = 3.0  # times what chance would give: a folder's mean must also be beyond that
SEEN = 4.0  # times what chance would give: a folder that is so far off is sure to be beyond that
KS = 0.2  # of the L2 norms: a folder that is farther off has drifted
KS_CHANCE = 1.63  # the 1 % point of Kolmogorov's distribution: its norms must also be beyond that
AGAINST = ("drift", "chance", "seen", "norm_ks", "ks_chance")
FEW = 0.05  # of a folder's vectors may be outliers that its mean is taken without
FAR = 5.0  # of the median distance to the mean: clips that are farther do not say how much chance gives
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
    clean: Sequence[Totals],
    components: Components | None,
) -> Statistics:
    """Describe the n vectors of L2 `norms` [n]; `clips` are theirs, `codes` [n] number their `folders`.

    `totals` are those of each folder and, as the last, of all; `clean` those of each without outliers. Columns of the
    table: `folder`, `vectors`, `patients` (0 where none is known); of all values `mean`, `std`, `min`, `max`, and the
    `median` of a seeded sample; of the L2 norms `norm_mean`, `norm_std`, `norm_min`, `norm_median`, `norm_max`; and
    against the rest of the folders

    `drift`      distance of its mean vector, without outliers, from the median of the other folders' mean vectors, in
                 units of the spread, see `_spread`; so that neither one foreign folder nor one vector moves what the
                 others are measured by. Of three folders the median is that of all, since of two there is none
    `chance`     what `drift` would be if patients fell into the folders at random, from the variances between and
                 within patients, see `_variances`, and their unequal numbers of clips
    `seen`       the smallest shift of the folder that would be called drift
    `norm_ks`    two-sample Kolmogorov-Smirnov statistic of the L2 norms against the other folders', 0 to 1
    `ks_chance`  its 1 % point by chance: 1.63 sqrt(1 / n + 1 / m), where n and m are the effective numbers of
                 patients of the folder and of the others, (sum of clips)^2 / sum of clips^2; 1 at most
    """
    if not len(vectors):
        return Statistics(pd.DataFrame(), {}, {})
    units = _units(clips)
    variances = _variances(units, codes, components)
    spread = _spread(clean)
    three = sum(total.vectors > 0 for total in clean) == 3
    values = _some_values(vectors, codes, len(folders))
    present = [code for code, total in enumerate(totals) if total.vectors]
    lines = []
    for code in present:
        last = code == len(folders)
        mask = slice(None) if last else codes == code
        line = _values(
            TOTAL if last else folders[code], totals[code], float(np.median(values[code])), norms[mask], clips[mask]
        )
        if not last:
            rest = totals[-1].vectors - totals[code].vectors
            others = [total for i, total in enumerate(clean) if total.vectors and (i != code or three)]
            origin = _centre(others or clean)
            line |= _against_the_rest(clean[code], rest, origin, spread, norms, mask, units, variances)
        lines.append(line)
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


def without(vectors: Vectors, codes: Integers, totals: Sequence[Totals], outliers: Integers) -> list[Totals]:
    """The folders' `totals` without the vectors at `outliers` among the n; `codes` [n] number their folders."""
    apart = np.zeros(len(vectors), bool)
    apart[outliers] = True
    found = list(totals)
    for code in np.unique(codes[outliers]).tolist():
        places = np.flatnonzero((codes == code) & ~apart)
        if totals[code].vectors - len(places) > FEW * totals[code].vectors:
            continue  # so many that they are what the folder is
        found[code] = Totals.zero(len(totals[code].sum))
        for place in blocks(len(places)):
            found[code].add(vectors.take(places[place]))
    return found


def _centre(totals: Sequence[Totals]) -> Floats:
    """The median of the folders' mean vectors, dimension by dimension, [D]."""
    centre: Floats = np.median([total.sum / total.vectors for total in totals if total.vectors], axis=0)
    return centre


def _spread(totals: Sequence[Totals]) -> float:
    """The square root of the median, over folders, of the summed variances of all dimensions within the folder.

    Where folders have too few vectors to vary, of all vectors.
    """
    filled = [total for total in totals if total.vectors >= LEAST] or [sum_of(totals)]
    means = [total.sum / total.vectors for total in filled]
    found = [total.squares / total.vectors - float(mean @ mean) for total, mean in zip(filled, means, strict=True)]
    size = max(float(mean @ mean) for mean in means)
    variance = float(np.median(found))
    return math.sqrt(variance) if variance > 1e-12 * size else 0.0


def _variances(units: Integers, codes: Integers, components: Components | None) -> tuple[float, float]:
    """The variances between the `units` [n] and within them, summed over the first components, without far clips.

    By the analysis of variance with unequal numbers (Searle, Casella and McCulloch, Variance Components, 1992),
    within folders, whose numbers are `codes` [n], so that a foreign one does not count as chance; and of all vectors
    where folders have hardly more than one unit.
    """
    if components is None:
        return 0.0, 0.0
    near = components.distance <= FAR * np.median(components.distance)
    units, codes = units[near], codes[near]
    scores = pd.DataFrame(components.scores[near].astype(np.float64))
    _, first, units = np.unique(units, return_index=True, return_inverse=True)
    n, k = len(scores), len(first)
    groups = codes if k >= 2 * len(np.unique(codes)) else np.zeros_like(codes)
    scores -= scores.groupby(groups).transform("mean")
    of = pd.DataFrame({"group": groups[first], "clips": np.bincount(units)}).groupby("group")["clips"]
    between = float(np.square(scores.groupby(units).sum()).sum(axis=1) @ (1 / np.bincount(units)))
    within = (float(np.square(scores).sum().sum()) - between) / (n - k) if n > k else 0.0
    times = n - float(of.agg(lambda clips: np.square(clips).sum() / clips.sum()).sum())
    return max(0.0, between - (k - len(of)) * within) / times if times > 0 else 0.0, within


def _effective(units: Integers) -> float:
    """How many units of equal size would vary as much as these [n]."""
    sizes = np.unique(units, return_counts=True)[1]
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def _against_the_rest(
    part: Totals,
    rest: int,
    centre: Floats,
    spread: float,
    norms: Floats,
    mask: Any,
    units: Integers,
    variances: tuple[float, float],
) -> dict[str, float | None]:
    """Drift, the statistic of the norms, and what chance would make of them; None where there is no rest."""
    if not rest or not spread or not part.vectors:
        return dict.fromkeys(AGAINST)
    apart = part.sum / part.vectors - centre
    few = 1 / _effective(units[mask]) + 1 / _effective(units[~mask])
    chance = math.sqrt(variances[0] * few + variances[1] * (1 / part.vectors + 1 / rest)) / spread
    return {
        "drift": float(np.sqrt(apart @ apart)) / spread,
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
    if beyond.any():  # its norms are among those that the others' are compared with
        longer[:] = False
    return table[beyond | longer].sort_values("drift", ascending=False, kind="stable")


def judge(statistics: Statistics, folders: int) -> list[Check]:
    """The check that no folder has drifted."""
    if folders < 2 or not len(statistics.table):
        return []
    found = drifted(statistics.table)
    by_folder = statistics.table.iloc[:-1]
    known = bool(statistics.table["patients"].iloc[-1])
    if by_folder["drift"].isna().all():
        return [Check("Drift", "not tested", "Only one folder has vectors, or they do not vary.", "statistics")]
    if len(found):
        level: Level = "fault" if found["drift"].iloc[0] > FOREIGN else "check" if known else "not tested"
        apart = found[found["drift"] > DRIFT]
        said = [f"{row.folder} ({row.drift:.2f})" for row in apart.head(NAMED).itertuples()]
        said += [f"{folder} (other L2 norms)" for folder in found["folder"][found["drift"] <= DRIFT]][
            : NAMED - len(said)
        ]
        more = f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
        who = "Folders unlike each other" if len(by_folder) == 2 else "Folders unlike the rest"
        blind = "" if known else " Patients are not known, so how much of it is chance is not known either."
        sentence = f"{who}, with their distance in spreads of a folder's vectors: {', '.join(said)}{more}.{blind}"
        return [Check("Drift", level, sentence, "statistics")]
    blind_ones = by_folder[~(by_folder["seen"] <= FOREIGN)]
    if not known or 2 * blind_ones["vectors"].sum() > by_folder["vectors"].sum():
        sentence = (
            f"No folder stands out, but in {len(blind_ones):,} of {count(len(by_folder), 'folder')} even a mean vector "
            "that is shifted by the whole spread would not: they, or those that they are compared with, have too few "
            "patients."
            if known
            else "No folder stands out; patients are not known, so how small a shift would is not known either."
        )
        return [Check("Drift", "not tested", sentence, "statistics")]
    sentence = (
        f"The folders' mean vectors are alike: one shifted by {by_folder['seen'].median():.2f} times the typical "
        "distance of a clip from its folder's mean would show in half of them"
    )
    sentence += f", and in {len(blind_ones):,} not even one shifted by all of it." if len(blind_ones) else "."
    return [Check("Drift", "good", sentence, "statistics")]
