"""The page of a model and that of two files compared: HTML that needs no other file, and its numbers as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.origin import DECIDES, SHORT
from ..tables.inventory import differences_of
from . import (
    agreement,
    explore,
    health,
    knows,
    near,
    pairs,
    plots,
    projection,
    report,
    similarity,
    statistics,
)
from .accounting import TOTAL
from .base import MIN_PATIENTS, NEIGHBOURS, Naming
from .report import Options, Report
from .tables import FolderFiles
from .writing import link, plain, write_pair

LIMITS = {
    **{"dead": health.DEAD, "outlier": health.OUTLIER, "near": health.NEAR, "min_vectors": health.MIN_VECTORS},
    **{"drift": statistics.DRIFT, "chance": statistics.CHANCE, "ks": statistics.KS, "many": statistics.MANY},
    **{"patients": MIN_PATIENTS, "neighbours": NEIGHBOURS},
    **{"trees": near.TREES, "leaf": near.LEAF, "pairs": pairs.PAIRS, "foreign": statistics.FOREIGN},
    **{"below": similarity.BELOW, "patients_of_folder": similarity.MIN_OF_FOLDER},
    **{"draws": knows.DRAWS, "class": knows.CLASS},
    **{"perplexity": projection.PERPLEXITY, "few": projection.FEWEST},
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
            "manifest": link(files.manifest, output),
            "failed": link(files.failed, output) if files.failed.exists() else "",
        }
        for folder, files in ({} if options.hash_names else folders).items()
    }
    listed = options.record_list if not options.hash_names else None
    differences = link(differences_of(listed), output) if listed else ""
    write_pair(
        output,
        numbers_of(measured),
        "model.html.j2",
        limits=LIMITS,
        r=measured,
        pictures=_draw(measured, options.naming),
        links=links,
        differences=differences,
    )


def numbers_of(measured: Report) -> dict[str, Any]:
    """Every number of the page, as JSON has it."""
    numbers: dict[str, Any] = {"status": measured.status, "summary": _summary(measured)} | plain(measured)
    return numbers


def make_comparison(first: Path, second: Path, output: Path, hash_names: bool = False) -> None:
    """Write to `output` a page that compares two embedding files, and its numbers to a `.json` file beside it.

    With `hash_names`, short hashes stand for the clips' names, and the files are called A and B.

    Raises `UserError` if one cannot be read or they share no key.
    """
    found = agreement.compare(first, second, hash_names)
    picture = (
        plots.histogram(found.cosines, "cosine similarity of a clip's two vectors", "clips", log=True)
        if found.cosines
        else ""
    )
    write_pair(
        output,
        plain(found),
        "compare.html.j2",
        limits=LIMITS,
        c=found,
        decides={SHORT: "short fingerprint"} | DECIDES,
        picture_source=picture,
    )


def _summary(measured: Report) -> dict[str, Any]:
    """A model's row on the index."""
    total = measured.accounting.total
    table = measured.statistics.table
    norms: Mapping[str, Any] = dict(table.iloc[-1]) if len(table) else {}
    parts, alike = measured.components, measured.similarity
    return {
        "vectors": measured.vectors,
        "dim": measured.dim,
        "bytes": measured.bytes,
        "failed": total["failed"],
        "not_embedded": total["not_embedded"],
        "nan": len(measured.health.nan),
        "duplicates": measured.health.duplicated,
        "norm_mean": plain(norms.get("norm_mean")),
        "norm_std": plain(norms.get("norm_std")),
        "cosine_mean": alike.mean if alike else None,
        "effective_rank": parts.effective_rank if parts else None,
        "pca_top": float(parts.explained[0]) if parts else None,
        "auc": min((found.auc for found in alike.judged.values()), default=None) if alike else None,
        "notes": measured.provenance.notes,
    }


def _draw(r: Report, naming: Naming) -> dict[str, Any]:
    """The pictures that there is something to draw of, by name."""
    pictures: dict[str, Any] = {}
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
        pictures["compared"] = {name: plots.pairs(found.histograms) for name, found in alike.compared.items()}
    if r.dimensions:
        pictures["mean"] = plots.line(r.dimensions.mean, "mean")
        pictures["variance"] = plots.line(r.dimensions.variance, "variance")
    if r.components and r.explorer:
        pictures["cumulative"] = plots.cumulative(r.components.explained, r.components.needed)
        planes = explore.views(r.explorer, r.components.explained)
        pictures["still"] = plots.scatter(planes[0], list(r.explorer.drawn["folder"]))
        pictures["explored"] = explore.page_data(r.explorer, planes, r.strips, naming)
    pictures["profiles"] = {name: plots.line(vector, "value") for name, vector in r.profiles.items()}
    return pictures
