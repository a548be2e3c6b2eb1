"""Everything that the page of a model says, measured: nothing here draws or writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ..core.settings import Tables
from ..core.vectors import read_vectors
from . import (
    accounting,
    columns,
    components,
    explore,
    health,
    moments,
    pictures,
    privacy,
    provenance,
    sampling,
    similarity,
    statistics,
    tables,
)
from .accounting import Accounting
from .base import PICTURE, Check, Floats, Level, Naming, Vectors, hashed, plain, sample, worst
from .components import Components, Dimensions
from .explore import Explorer
from .health import Health
from .pictures import Gallery
from .provenance import Provenance, Training
from .similarity import Similarity
from .statistics import Statistics
from .tables import FolderFiles

PROFILES = 4


@dataclass(frozen=True)
class Options:
    """What the page is to show, as the configuration says."""

    prefix_folder: bool = False  # keys of the merged file are `{folder}/{key}`
    pictures: bool = True  # frames of clips
    hash_names: bool = False  # short hashes in place of files' names
    record_list: Path | None = None  # the record list against the disk, as `inventory.check` has it
    tables: Tables = field(default_factory=Tables)  # which clips are selected
    training: Training = field(default_factory=lambda: Training((), None))

    @property
    def naming(self) -> Naming:
        """How a file is called on the page."""
        return hashed if self.hash_names else plain


@dataclass(frozen=True)
class Without:
    """What the vectors show without the few that are unlike the others: outliers, zeros and drifted folders."""

    vectors: int  # that were left out
    folders: list[str]  # whole ones among them
    effective_rank: float
    mean_cosine: float  # of two of the others


@dataclass(frozen=True)
class Report:
    """Everything a model's page shows. None stands for what so few vectors cannot give."""

    model: str
    file: str  # name of the merged file
    bytes: int
    vectors: int
    finite: int
    dim: int
    options: dict[str, Any]
    checks: list[Check]
    provenance: Provenance
    accounting: Accounting
    health: Health
    statistics: Statistics
    similarity: Similarity | None
    dimensions: Dimensions | None
    components: Components | None
    without: Without | None
    galleries: list[Gallery]
    explorer: Explorer | None
    strips: dict[str, str] = field(metadata=PICTURE)  # of clips of `explorer`: data URIs by key
    profiles: dict[str, Floats] = field(metadata=PICTURE)  # name -> [D]

    @property
    def status(self) -> Level:
        """The worst level of the checks."""
        return worst(check.level for check in self.checks)


def measure(model: str, embeddings: Path, folders: Mapping[str, FolderFiles], options: Options) -> Report:
    """Measure the merged file `embeddings`, and count what its `folders` left behind.

    Vectors that hold NaN or Inf are counted by `health` and left out of every figure after it. Raises
    `UserError` if a file is missing or not what it should be.
    """
    # `base.share_out` gives each core its work. Threads of linear algebra and OpenMP would only wait for each other,
    # seconds where a moment is enough, as soon as anything else runs on the machine.
    with threadpool_limits(1):
        return _measure(model, embeddings, folders, options)


def _measure(model: str, embeddings: Path, folders: Mapping[str, FolderFiles], options: Options) -> Report:
    keys, tensor = read_vectors(embeddings)
    matrix: Floats = tensor.numpy()
    files, joins = tables.read_files(folders, options.prefix_folder, options.tables)
    origin = provenance.read(folders, options.training)
    naming, select = options.naming, options.tables.select
    named, clips = files, tables.clips(keys, files)
    said = [join.coverage("clips") for join in joins]
    thin = sum(join.is_thin for join in joins)
    if options.hash_names:
        folders, files, clips, origin, said = privacy.hide(folders, files, clips, origin, said)
        select = select and privacy.HIDDEN
    counts = accounting.account(clips, files, origin.runs, options.record_list, said, thin, naming)

    names, codes = np.unique(clips["folder"].to_numpy(dtype=str), return_inverse=True)
    rows, totals = moments.measure(matrix, codes, len(names))
    vectors = Vectors(matrix, np.flatnonzero(rows.finite))
    own, norms = clips.iloc[vectors.rows], rows.norm[vectors.rows]
    total = moments.sum_of([*totals, moments.Totals.zero(matrix.shape[1])])
    dimensions, parts = components.analyse(vectors, total) if len(vectors) else (None, None)
    found = health.examine(clips, rows, vectors, dimensions, parts, naming)
    of_folder = codes[vectors.rows]
    outliers = np.flatnonzero(np.isin(vectors.rows, [clip.place for clip in found.outliers]))
    clean = statistics.without(vectors, of_folder, totals, outliers)
    described = statistics.describe(vectors, norms, own, list(names), of_folder, [*totals, total], clean, parts)
    typical = moments.sum_of(clean) if clean else total
    mean = typical.sum / max(1, typical.vectors)
    alike = similarity.compare(vectors, norms, own, mean, parts is not None)
    explorer = _explore(vectors, clips, named, parts, found, options.tables) if parts is not None else None
    if explorer and options.hash_names:
        explorer = replace(explorer, left_out=[privacy.without_names(said) for said in explorer.left_out])
    pictured = explore.pictured(explorer.drawn, found) if explorer and options.pictures else clips[:0]
    return Report(
        model=model,
        file=embeddings.name,
        bytes=embeddings.stat().st_size,
        vectors=len(keys),
        finite=len(vectors),
        dim=matrix.shape[1],
        options={"pictures": options.pictures, "hash_names": options.hash_names, "select": select},
        checks=[
            *provenance.judge(model, matrix.shape, origin),
            *accounting.judge(counts),
            *health.judge(matrix.shape, found),
            *statistics.judge(described, len(folders)),
            *similarity.judge(alike),
        ],
        provenance=origin,
        accounting=counts,
        health=found,
        statistics=described,
        similarity=alike,
        dimensions=dimensions,
        components=parts,
        without=_without(vectors, norms, own, found, described) if parts is not None else None,
        galleries=pictures.show(clips, folders, vectors, norms, found, parts, naming) if options.pictures else [],
        explorer=explorer,
        strips=pictures.sources(pictured, folders),
        profiles={naming(own["key"].iloc[i]): vectors.take(np.array([i]))[0] for i in sample(len(vectors), PROFILES)},
    )


def _without(
    vectors: Vectors, norms: Floats, clips: pd.DataFrame, found: Health, described: Statistics
) -> Without | None:
    """What the vectors show without those unlike the others; None if there are none, or too few others."""
    apart = statistics.drifted(described.table)
    folders = list(apart["folder"]) if len(apart) else []
    unlike = np.isin(vectors.rows, [clip.place for clip in found.outliers]) | (norms == 0)
    unlike |= clips["folder"].isin(folders).to_numpy()
    others = np.flatnonzero(~unlike)
    if not unlike.any() or len(others) < health.MIN_VECTORS:
        return None
    return Without(int(unlike.sum()), folders, *components.of_some(vectors, norms, others))


def _explore(
    vectors: Vectors, clips: pd.DataFrame, files: pd.DataFrame, parts: Components, found: Health, known: Tables
) -> Explorer:
    place_of = {place: i for i, place in enumerate(vectors.rows.tolist())}
    named = [place_of[place] for place in explore.named(found) if place in place_of]
    drawn = sampling.draw(clips["patient"].iloc[vectors.rows], named)
    own = clips.iloc[vectors.rows[drawn.places]]
    return explore.look(vectors, drawn, own, parts, found, columns.read(own, files, known))
