"""The index: one page that sets all models side by side."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.names import one_line
from .base import MIN_PATIENTS, NEIGHBOURS
from .writing import link, plain, write_pair

LIMITS = {"patients": MIN_PATIENTS, "neighbours": NEIGHBOURS}


def make_index(
    pages: Mapping[str, Path],
    embeddings: Mapping[str, Path],
    output: Path,
    facts: Mapping[str, Mapping[str, str]],
) -> None:
    """Write to `output` a page that compares the models and links to their `pages` (model -> HTML file).

    `embeddings` are the models' merged files, and `facts` what the registry says of each, by heading. A `.json` file
    beside it has the numbers. Raises `UserError` if the `.json` file beside a page is missing or broken, or an
    embedding file cannot be read.
    """
    models = []
    for model, page in pages.items():
        beside = page.with_suffix(".json")
        try:
            numbers = json.loads(beside.read_text(encoding="utf-8"))
            row = {"model": model, "status": numbers["status"], **numbers["summary"]}
            row["entries"] = sorted(numbers["provenance"]["shared"]["entry"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{beside}: not the numbers of a quality page: {one_line(error)}; delete it and run again"
            ) from error
        models.append(row | {"link": link(page, output), "facts": dict(facts[model])})
    names = list(pages)
    pairs = {}
    if len(names) > 1:
        from . import agreement  # noqa: PLC0415  torch and sklearn take seconds, and most runs have one model

        pairs = agreement.matrix([embeddings[name] for name in names])
    agreements = [{"models": [names[i] for i in at], **plain(found)} for at, found in pairs.items()]
    read_from = _entries(models)
    numbers = {"models": models, "agreement": agreements, "entries": read_from}
    write_pair(
        output, numbers, "index.html.j2", limits=LIMITS, models=models, names=names, pairs=pairs, entries=read_from
    )


def _entries(models: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The models that were read from each entry (checkpoint key), if there is more than one."""
    found: dict[str, list[str]] = {}
    for row in models:
        for entry in row["entries"]:
            found.setdefault(entry, []).append(row["model"])
    return found if len(found) > 1 else {}
