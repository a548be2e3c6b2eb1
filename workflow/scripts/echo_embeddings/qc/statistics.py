"""Values and L2 norms of each folder, and how far each folder has drifted from the rest."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from .accounting import TOTAL
from .base import MIN_PATIENTS, PICTURE, TAIL, Check, Floats, Histogram, Integers, Vectors, bulk, spread
from .components import Components
from .moments import Totals, edges_for, medians
from .tables import UNKNOWN

BINS = 80
DRIFT = 0.25  # of the spread of all vectors: a folder's mean that is farther off has drifted
CHANCE = 3.0  # times what chance would give: a folder's mean must also be beyond that
KS = 0.2  # of the L2 norms: a folder that is farther off has drifted
KS_CHANCE = 1.63  # the 1 % point of Kolmogorov's distribution: its norms must also be beyond that
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

    `totals` are those of each folder and, as the last, of all. Columns of the table: `folder`, `vectors`,
    `patients` (0 where none is known); of all values `mean`, `std`, `min`, `median`, `max`; of the L2 norms
    `norm_mean`, `norm_std`, `norm_min`, `norm_median`, `norm_max`; and against the rest of the folders

    `drift`      distance between the two mean vectors, in units of the spread of all vectors (the square
                 root of the summed variances of all dimensions)
    `chance`     what `drift` would be if patients fell into the folders at random:
                 sqrt(share (1 / patients of the folder + 1 / patients of the rest)), where `share` of the
                 spread is between patients; a clip of an unknown patient is a patient of its own
    `norm_ks`    two-sample Kolmogorov-Smirnov statistic of the L2 norms, 0 to 1
    `ks_chance`  its 1 % point by chance: 1.63 sqrt(1 / patients of the folder + 1 / patients of the rest)
    """
    if not len(vectors):
        return Statistics(pd.DataFrame(), {}, {})
    units = _units(clips)
    share = _share_between(units, components)
    middle = medians(vectors, codes, totals)
    present = [code for code, total in enumerate(totals) if total.vectors]
    lines = []
    for code in present:
        last = code == len(folders)
        mask = slice(None) if last else codes == code
        line = _values(TOTAL if last else folders[code], totals[code], middle[code], norms[mask], clips[mask])
        lines.append(line | ({} if last else _against_the_rest(totals[code], totals[-1], norms, mask, units, share)))
    names = [line["folder"] for line in lines]
    edges = edges_for(totals[-1], BINS)
    low, high = bulk(*np.quantile(norms, [TAIL, 1 - TAIL]))
    norm_edges = np.linspace(*spread(max(low, norms.min()), min(high, norms.max())), BINS + 1)
    return Statistics(
        pd.DataFrame(lines, columns=[*lines[-1], "drift", "chance", "norm_ks", "ks_chance"]),
        {name: totals[code].distribution(edges) for name, code in zip(names, present, strict=True)},
        {
            name: Histogram(norm_edges, np.histogram(norms if name == TOTAL else norms[codes == code], norm_edges)[0])
            for name, code in zip(names, present, strict=True)
        },
    )


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


def _share_between(units: Integers, components: Components | None) -> float:
    """The share of the spread, in the space of the first components, that lies between the `units` [n]."""
    if components is None:
        return 1.0
    scores = pd.DataFrame(components.scores.astype(np.float64))
    sums, sizes = scores.groupby(units).sum().to_numpy(), np.unique(units, return_counts=True)[1]
    apart = sums / sizes[:, None] - scores.to_numpy().mean(axis=0)
    return float(sizes @ np.square(apart).sum(axis=1) / len(scores) / scores.to_numpy().var(axis=0).sum())


def _against_the_rest(
    part: Totals, total: Totals, norms: Floats, mask: Any, units: Integers, share: float
) -> dict[str, float | None]:
    """Drift, the statistic of the norms, and what chance would make of them; None where there is no rest."""
    rest = total.vectors - part.vectors
    mean = total.sum / total.vectors
    variance = total.squares / total.vectors - float(mean @ mean)
    if not rest or variance <= 1e-12 * float(mean @ mean):
        return dict.fromkeys(("drift", "chance", "norm_ks", "ks_chance"))
    apart = part.sum / part.vectors - (total.sum - part.sum) / rest
    few = 1 / len(np.unique(units[mask])) + 1 / len(np.unique(units[~mask]))
    return {
        "drift": float(np.sqrt(apart @ apart / variance)),
        "chance": float(np.sqrt(share * few)),
        "norm_ks": float(ks_2samp(norms[mask], norms[~mask], method="asymp").statistic),
        "ks_chance": float(KS_CHANCE * np.sqrt(few)),
    }


def drifted(table: pd.DataFrame) -> list[str]:
    """The folders whose vectors lie apart from those of the rest, by mean or by norm."""
    if not len(table):
        return []
    beyond = (table["drift"] > DRIFT) & (table["drift"] > CHANCE * table["chance"])
    longer = (table["norm_ks"] > KS) & (table["norm_ks"] > table["ks_chance"])
    return list(table["folder"][beyond | longer])


def judge(statistics: Statistics, folders: int) -> list[Check]:
    """The check that no folder has drifted."""
    if folders < 2 or not len(statistics.table):
        return []
    found = drifted(statistics.table)
    if found:
        sentence = f"Folders unlike the rest: {', '.join(found[:5])}{' and more' if len(found) > 5 else ''}."
        return [Check("Drift", "warn", sentence, "statistics")]
    patients = int(statistics.table.iloc[-1]["patients"])
    few = f" (with {patients} patients, only a gross fault would show)" if 0 < patients < MIN_PATIENTS else ""
    return [Check("Drift", "good", f"The folders' vectors are alike{few}.", "statistics")]
