"""What the page's canvas shows: some clips on planes, what is known of each, their neighbours and strips."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from . import knows, projection
from .base import NEIGHBOURS, PICTURE, SEED, Floats, Integers, Naming, Vectors
from .closest import closest, unit
from .columns import MISSING, Column, Columns
from .components import Components
from .health import Health
from .knows import Known
from .projection import View
from .sampling import Drawn
from .tables import UNKNOWN

PARTS = 5  # into which a range of numbers is cut, of about as many clips each
STRIPS = 240  # at most, besides those of the galleries
FINDING = "finding"
FINDINGS = ["none", "outlier", "exact duplicate", "near duplicate"]
NOT_KNOWN = 255


@dataclass(frozen=True)
class Explorer:
    """P clips to look at one by one."""

    clips: int
    patients: int  # known ones
    dropped: int  # outliers and duplicates beyond what there is room for
    left_out: list[str]  # columns and tables that the clips are not coloured by, and why
    knows: list[Known]
    drawn: pd.DataFrame = field(metadata=PICTURE)  # P rows, see `tables.clips`
    columns: list[Column] = field(metadata=PICTURE)  # to colour them by
    scores: Floats = field(metadata=PICTURE)  # float32 [P, K] of the first components
    near: Integers = field(metadata=PICTURE)  # [P, M]: the nearest of each, as `closest.closest` has them
    cosines: Floats = field(metadata=PICTURE)  # float32 [P, M]


def named(health: Health) -> list[int]:
    """Clips, by their place in the file, that the page names for a defect, and those that are shown as farthest."""
    groups = [group.places for found in (health.duplicates, health.near) for group in found]
    return [o.place for o in [*health.farthest, *health.outliers]] + [place for group in groups for place in group]


def look(
    vectors: Vectors, drawn: Drawn, clips: pd.DataFrame, parts: Components, health: Health, columns: Columns
) -> Explorer:
    """What there is to see of the `drawn` of the finite `vectors`; `clips` and `columns` are theirs."""
    patients = pd.factorize(clips["patient"].where(clips["patient"] != UNKNOWN))[0]
    near, cosines = closest(unit(vectors.take(drawn.places)), projection.NEAREST)
    scores = parts.scores[drawn.places]
    rows = np.flatnonzero(drawn.by_patient)
    return Explorer(
        clips=len(clips),
        patients=int(patients.max(initial=-1)) + 1,
        dropped=drawn.dropped,
        left_out=columns.left_out,
        knows=knows.examine(scores[rows], patients[rows], [_of(column, rows) for column in columns.all]),
        drawn=clips,
        columns=[*columns.all, _findings(vectors.rows[drawn.places], health)],
        scores=scores[:, :3],
        near=near,
        cosines=cosines,
    )


def views(explorer: Explorer, explained: Floats) -> list[View]:
    """The clips on planes, that of the first two components first; `explained` are the components' shares."""
    planes = projection.components(explorer.scores, explained)
    alike = projection.neighbourhoods(explorer.near, explorer.cosines, planes[0].points)
    return planes + ([alike] if alike else [])


def page_data(explorer: Explorer, planes: Sequence[View], strips: Mapping[str, str], naming: Naming) -> str:
    """What the canvas reads, JSON that is safe inside a script of HTML. `strips` are data URIs by key."""
    codes, patients = pd.factorize(explorer.drawn["patient"])
    shown = explorer.near[:, :NEIGHBOURS]
    cosines = np.where(np.isfinite(explorer.cosines), explorer.cosines, np.nan)[:, :NEIGHBOURS]
    data = {
        "views": [
            {"title": v.title, "axes": v.axes, "points": packed(v.points, "<f4"), "window": v.window} for v in planes
        ],
        "colourings": [colouring(column) for column in explorer.columns],
        "neighbours": shown.shape[1],
        "near": packed(shown, "<u2"),
        "cosines": packed(cosines, "<f4"),
        "names": [naming(key) for key in explorer.drawn["key"]],
        "patients": ["patient not known" if p == UNKNOWN else f"patient {naming(str(p))}" for p in patients],
        "patient": codes.tolist(),
        "strips": {i: strips[key] for i, key in enumerate(explorer.drawn["key"]) if key in strips},
    }
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")


def pictured(clips: pd.DataFrame, health: Health) -> pd.DataFrame:
    """Those of the drawn clips that have a strip: outliers and duplicates first, then a seeded sample."""
    first = [place for place in dict.fromkeys(named(health)) if place in clips.index][: STRIPS // 2]
    others = np.random.default_rng(SEED).permutation(clips.index.to_numpy())
    return clips.loc[list(dict.fromkeys([*first, *others.tolist()]))[:STRIPS]]


def _findings(places: Integers, health: Health) -> Column:
    """What is wrong with the clips at `places` of the file; of several defects the first of `FINDINGS`."""
    codes = np.zeros(len(places), np.int64)
    groups = (
        [g.places for g in health.near],
        [g.places for g in health.duplicates],
        [[o.place for o in health.outliers]],
    )
    for code, found in zip((3, 2, 1), groups, strict=True):
        codes[np.isin(places, [place for group in found for place in group])] = code
    return Column(FINDING, FINDINGS, codes, None)


def _of(column: Column, rows: Integers) -> Column:
    numbers = None if column.numbers is None else column.numbers[rows]
    return Column(column.name, column.labels, column.codes[rows], numbers)


def colouring(column: Column) -> dict[str, Any]:
    """The groups of a column as the canvas has them: their names, and which each clip is in; numbers in `PARTS`."""
    labels, codes = column.labels, column.codes
    if column.numbers is not None:
        labels, codes = _cut(column.numbers)
    shown = np.where(codes == MISSING, NOT_KNOWN, codes)
    return {
        "name": column.name,
        "labels": labels,
        "ordered": column.numbers is not None,
        "codes": packed(shown, "u1"),
    }


def _cut(numbers: Floats) -> tuple[list[str], Integers]:
    """The parts of a range by quantiles, from low to high, and the part of each number [P]."""
    there = numbers[~np.isnan(numbers)]
    edges = np.unique(np.quantile(there, np.linspace(0, 1, PARTS + 1)[1:-1], method="lower"))
    codes = np.where(np.isnan(numbers), MISSING, np.searchsorted(edges, numbers, side="left"))
    used = np.unique(codes[codes != MISSING])
    labels = [f"{part.min():.4g} to {part.max():.4g}" for part in (numbers[codes == code] for code in used)]
    return labels, np.where(codes == MISSING, MISSING, np.searchsorted(used, codes))


def packed(values: npt.NDArray[Any], dtype: str) -> str:
    """The values' bytes in base64."""
    return base64.b64encode(np.ascontiguousarray(values.astype(dtype)).tobytes()).decode()
