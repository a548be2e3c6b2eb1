"""What all pages share: how a page and its numbers are written, and values as people read them and as JSON has them."""

import dataclasses
import functools
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

from ..core.files import atomic_write
from . import palette

# Those of each part of the package that writes pages; they share the style and the macros that lie here.
TEMPLATES = sorted(Path(__file__).parents[1].glob("*/templates"))
ROWS = 40  # of a list on the page; all of them are in the JSON file
SHOWN_ROWS = 20  # of a table of folders; the others show on demand


def link(path: Path, page: Path) -> str:
    """The address of a file in a page."""
    return quote(os.path.relpath(path, page.parent))


def write_pair(output: Path, numbers: dict[str, Any], template: str, **values: Any) -> None:
    """Write a page, whose template is given the `values`, and its numbers to a `.json` file beside it."""
    page = _environment().get_template(template).render(**values)
    _write(output.with_suffix(".json"), json.dumps(numbers, indent=1, allow_nan=False))
    _write(output, page)


def write_page(output: Path, template: str, **values: Any) -> None:
    """Write a page whose numbers lie in files already."""
    _write(output, _environment().get_template(template).render(**values))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


@functools.cache  # a template takes longer to compile than to fill in
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent, "by_size": _by_size}
    environment.globals |= {"max_rows": ROWS, "shown_rows": SHOWN_ROWS, "palette": palette}
    return environment


def _by_size(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """The rows, those of the largest values in the column first, and those of none last."""
    return sorted(rows, key=lambda row: -math.inf if pd.isna(row[column]) else row[column], reverse=True)


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


def plain(value: Any) -> Any:
    """`value` as JSON has it, what is only drawn left out, NaN as null."""
    if dataclasses.is_dataclass(value):
        fields = (field for field in dataclasses.fields(value) if "picture" not in field.metadata)
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, pd.DataFrame):
        return [plain(row) for row in value.to_dict("records")]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
