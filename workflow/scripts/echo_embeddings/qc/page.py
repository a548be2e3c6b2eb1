"""The quality page of one model and the index of all: HTML files that need no other file."""

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

from ..files import UserError, one_line, whole
from ..settings import REPOSITORY
from . import numbers, plots
from .numbers import FolderFiles, Report

TEMPLATES = REPOSITORY / "workflow/report"
ROWS = 40  # of a table on the page; all of them are in the JSON file
WORDS = {"good": "good", "warn": "look", "bad": "fault"}


def make_model_page(
    model: str, embeddings: Path, folders: Mapping[str, FolderFiles], output: Path, prefix_folder: bool = False
) -> None:
    """Write the page of `model` to `output`, and every number on it to a `.json` file beside it.

    `embeddings` is the merged file, its keys `{folder}/{key}` with `prefix_folder`. Raises `UserError`
    if a file is missing or not what it should be.
    """
    report = numbers.measure(model, embeddings, folders, prefix_folder)
    told = {"status": report.status, "summary": _summary(report)} | _plain(report)
    _write(output.with_suffix(".json"), json.dumps(told, indent=1, allow_nan=False))
    _write(output, _render("model.html.j2", r=report, pictures=_draw(report)))


def make_index(pages: Mapping[str, Path], output: Path) -> None:
    """Write to `output` a page that compares the models and links to their `pages` (model -> HTML file).

    Raises `UserError` if the `.json` file beside a page is missing or broken.
    """
    models = []
    for model, page in pages.items():
        beside = page.with_suffix(".json")
        try:
            report = json.loads(beside.read_text(encoding="utf-8"))
            row = {"model": model, "status": report["status"], **report["summary"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{beside}: not the numbers of a quality page: {one_line(error)}") from error
        models.append(row | {"link": quote(os.path.relpath(page, output.parent))})
    _write(output, _render("index.html.j2", models=models))


def _write(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.globals |= {"words": WORDS, "max_rows": ROWS}
    return environment.get_template(template).render(**values)


def _number(value: object) -> str:
    """A number as people read it: integers in full, others to four digits, a dash for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _plain(value: Any) -> Any:
    """`value` as JSON has it, arrays that are only drawn left out, NaN as null."""
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


def _summary(report: Report) -> dict[str, Any]:
    """A model's row on the index."""
    counts = report.accounting.folders.iloc[-1]
    norms: Mapping[str, Any] = dict(report.statistics.iloc[-1]) if len(report.statistics) else {}
    parts = report.components
    return {
        "vectors": report.vectors,
        "dim": report.dim,
        "failed": int(counts["failed"]),
        "not_embedded": int(counts["not_embedded"]),
        "nan": len(report.health.nan),
        "duplicates": report.health.duplicated,
        "norm_mean": _plain(norms.get("norm_mean")),
        "norm_std": _plain(norms.get("norm_std")),
        "effective_rank": parts.effective_rank if parts else None,
        "pca_top": float(parts.explained[0]) if parts else None,
        "notes": report.provenance.notes,
    }


def _draw(report: Report) -> dict[str, Any]:
    """The pictures that there is something to draw of, by name."""
    pictures: dict[str, Any] = {}
    if report.values and report.norms and report.dimensions:
        pictures["distribution"] = plots.histogram(report.values, "value", "values")
        pictures["norms"] = plots.histogram(report.norms, "L2 norm", "vectors")
        pictures["boxes"] = plots.boxes(report.statistics.iloc[:-1], "L2 norm")
        pictures["mean"] = plots.line(report.dimensions.mean, "mean")
        pictures["variance"] = plots.line(report.dimensions.variance, "variance")
    if report.cosine:
        pictures["cosine"] = plots.heat_map(report.cosine.matrix, report.cosine.labels)
        pictures["pairs"] = plots.histogram(report.cosine.pairs, "cosine similarity", "pairs of clips", height=4.1)
    if report.components:
        parts = report.components
        pictures["scatter"] = plots.scatter(parts.points, parts.labels, parts.explained)
        pictures["explained"] = plots.explained_variance(parts.explained)
    pictures["profiles"] = {key: plots.line(vector, "value") for key, vector in report.profiles.items()}
    return pictures
