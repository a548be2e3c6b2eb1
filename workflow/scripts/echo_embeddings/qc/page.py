"""The pages: HTML files that need no other file, and beside each its numbers as JSON."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd

from ..core.errors import UserError
from ..core.files import atomic_write
from ..core.names import one_line
from ..tables.inventory import differences_of
from . import agreement, health, near, pairs, plots, report, similarity, statistics
from .accounting import TOTAL
from .base import MIN_PATIENTS
from .report import Options, Points, Report
from .tables import FolderFiles

TEMPLATES = Path(__file__).parent / "templates"
ROWS = 40  # of a table on the page; all of them are in the JSON file
DRAWN = 1000  # dimensions whose explained shares are given
WORDS = {"good": "good", "warn": "check", "bad": "fault"}
COLOURINGS = {"folder": "folder", "device": "device", "kind": "kind", "frames": "number of frames"}
LIMITS = {
    **{"dead": health.DEAD, "outlier": health.OUTLIER, "near": health.NEAR, "min_vectors": health.MIN_VECTORS},
    **{"drift": statistics.DRIFT, "chance": statistics.CHANCE, "ks": statistics.KS, "many": statistics.MANY},
    **{"patients": MIN_PATIENTS, "signal": similarity.SIGNAL, "neighbours": agreement.NEIGHBOURS},
    **{"trees": near.TREES, "leaf": near.LEAF, "resamples": pairs.RESAMPLES},
}


def make_model_page(
    model: str, embeddings: Path, folders: Mapping[str, FolderFiles], output: Path, options: Options
) -> None:
    """Write the page of `model` to `output`, and every number on it to a `.json` file beside it.

    `embeddings` is the merged file. Raises `UserError` if a file is missing or not what it should be.
    """
    measured = report.measure(model, embeddings, folders, options)
    links = {
        folder: {
            "manifest": _link(files.manifest, output),
            "failed": _link(files.failed, output) if files.failed.exists() else "",
        }
        for folder, files in folders.items()
    }
    differences = _link(differences_of(options.record_list), output) if options.record_list else ""
    _write_pair(
        output,
        numbers_of(measured),
        "model.html.j2",
        r=measured,
        pictures=_draw(measured),
        links=links,
        differences=differences,
    )


def numbers_of(measured: Report) -> dict[str, Any]:
    """Every number of the page, as JSON has it."""
    numbers: dict[str, Any] = {"status": measured.status, "summary": _summary(measured)} | _plain(measured)
    return numbers


def make_index(pages: Mapping[str, Path], embeddings: Mapping[str, Path], output: Path) -> None:
    """Write to `output` a page that compares the models and links to their `pages` (model -> HTML file).

    `embeddings` are the models' merged files. A `.json` file beside it has the numbers. Raises `UserError`
    if the `.json` file beside a page is missing or broken, or an embedding file cannot be read.
    """
    models = []
    for model, page in pages.items():
        beside = page.with_suffix(".json")
        try:
            numbers = json.loads(beside.read_text(encoding="utf-8"))
            row = {"model": model, "status": numbers["status"], **numbers["summary"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{beside}: not the numbers of a quality page: {one_line(error)}; delete it and run again"
            ) from error
        models.append(row | {"link": _link(page, output)})
    names = list(pages)
    pairs = agreement.matrix([embeddings[name] for name in names]) if len(names) > 1 else {}
    agreements = [{"models": [names[i] for i in at], **_plain(found)} for at, found in pairs.items()]
    numbers = {"models": models, "agreement": agreements}
    _write_pair(output, numbers, "index.html.j2", models=models, names=names, pairs=pairs)


def make_comparison(first: Path, second: Path, output: Path) -> None:
    """Write to `output` a page that compares two embedding files, and its numbers to a `.json` file beside it.

    Raises `UserError` if one cannot be read or they share no key.
    """
    found = agreement.compare(first, second)
    picture = (
        plots.histogram(found.cosines, "cosine similarity of a clip's two vectors", "clips", log=True)
        if found.cosines
        else ""
    )
    _write_pair(output, _plain(found), "compare.html.j2", c=found, picture_source=picture)


def _link(path: Path, page: Path) -> str:
    return quote(os.path.relpath(path, page.parent))


def _write_pair(output: Path, numbers: dict[str, Any], template: str, **values: Any) -> None:
    """Write a page and its numbers."""
    page = _render(template, limits=LIMITS, **values)
    for path, text in ((output.with_suffix(".json"), json.dumps(numbers, indent=1, allow_nan=False)), (output, page)):
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent}
    environment.globals |= {"words": WORDS, "max_rows": ROWS, "colourings": COLOURINGS, "total_name": TOTAL}
    return environment.get_template(template).render(**values)


def _number(value: object) -> str:
    """A number as people read it: integers in full, others to four digits, a dash for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "\u2013"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _percent(part: float, whole_: float = 1) -> str:
    """`12.3 %`; a small share is never shown as zero."""
    share = 100 * part / whole_ if whole_ else 0.0
    return "< 0.1 %" if 0 < share < 0.1 else f"{share:.1f} %"


def _plain(value: Any) -> Any:
    """`value` as JSON has it, what is only drawn left out, NaN as null."""
    if dataclasses.is_dataclass(value):
        fields = (field for field in dataclasses.fields(value) if "picture" not in field.metadata)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, pd.DataFrame):
        return [_plain(row) for row in value.to_dict("records")]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _summary(measured: Report) -> dict[str, Any]:
    """A model's row on the index."""
    total = measured.accounting.total
    table = measured.statistics.table
    norms: Mapping[str, Any] = dict(table.iloc[-1]) if len(table) else {}
    parts, alike = measured.components, measured.similarity
    separation = alike.all_devices.separation if alike and alike.tells and alike.all_devices else []
    return {
        "vectors": measured.vectors,
        "dim": measured.dim,
        "bytes": measured.bytes,
        "failed": total["failed"],
        "not_embedded": total["not_embedded"],
        "nan": len(measured.health.nan),
        "duplicates": measured.health.duplicated,
        "norm_mean": _plain(norms.get("norm_mean")),
        "norm_std": _plain(norms.get("norm_std")),
        "cosine_mean": alike.mean if alike else None,
        "effective_rank": parts.effective_rank if parts else None,
        "pca_top": float(parts.explained[0]) if parts else None,
        "auc": separation[0].auc if separation else None,
        "notes": measured.provenance.notes,
    }


def _draw(r: Report) -> dict[str, Any]:
    """The pictures that there is something to draw of, by name."""
    pictures: dict[str, Any] = {"scatter": {}}
    table = r.statistics.table
    if len(table):
        by_folder = table.iloc[:-1]
        shown = by_folder if len(by_folder) <= statistics.MANY else by_folder.nlargest(statistics.MANY, "drift")
        for name, label, found in (
            ("value_spread", "value", r.statistics.values),
            ("norm_spread", "L2 norm", r.statistics.norms),
        ):
            folders = {folder: found[folder] for folder in shown["folder"]}
            pictures[name] = plots.distributions(folders, found[TOTAL], label)
        if shown["drift"].notna().any():
            pictures["drift"] = plots.drift(shown, statistics.DRIFT, statistics.CHANCE)
    if r.similarity:
        alike = r.similarity
        pictures["heat_map"] = plots.heat_map(alike.heat_map)
        pictures["everything"] = plots.histogram(alike.everything, "cosine similarity", "pairs of clips")
        for name, compared in (("all_devices", alike.all_devices), ("one_device", alike.one_device)):
            if compared:
                pictures[name] = plots.pairs(compared.histograms)
    if r.dimensions:
        pictures["mean"] = plots.line(r.dimensions.mean, "mean")
        pictures["variance"] = plots.line(r.dimensions.variance, "variance")
    if r.components and r.points:
        pictures["cumulative"] = plots.cumulative(r.components.explained, r.components.needed)
        pictures["scatter"] = _scatter(r.points, r.components.explained)
        pictures["far_off"] = [int((~plots.inside(r.points.scores[:, :k])).sum()) for k in (2, 3)]
    pictures["profiles"] = {name: plots.line(vector, "value") for name, vector in r.profiles.items()}
    return pictures


def _scatter(points: Points, explained: Any) -> dict[str, list[str]]:
    """For each colouring the picture in two components and that in three."""
    flat, deep = points.scores[:, :2], points.scores
    drawn = {
        name: [plots.scatter(p, list(points.clips[name]), explained) for p in (flat, deep)]
        for name in ("folder", "device", "kind")
    }
    frames = points.clips["frames"].to_numpy()
    return drawn | {
        "frames": [plots.scatter_by_number(p, frames, "frames in the clip", explained) for p in (flat, deep)]
    }
