"""How far the whole collection is: a table of folders x stages x models, read from the files that jobs leave.

It works from any terminal of the cluster, while Snakemake runs or not, and takes no lock.
"""

import collections
import datetime
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import manifest, progress
from .files import UserError

SILENT = 120.0  # seconds without a sign after which a job counts as lost; a network disk may be a minute late

DONE, RUNNING, LOST, BROKEN, WAITING = "done", "running", "lost", "stopped", "waiting"


@dataclass(frozen=True)
class Line:
    """One job: a folder, a stage, and its model or the MP4 files' size."""

    folder: str
    stage: str  # convert or embed
    what: str  # size or model
    state: str  # one of the five above
    done: int = 0
    total: int | None = None  # None until a job has counted
    failed: int = 0
    rate: float | None = None  # clips or files a second, of a running job
    where: str = ""  # host, and SLURM's job

    @property
    def left(self) -> datetime.timedelta | None:
        """Time left, at the rate so far."""
        if not self.rate or self.total is None:
            return None
        return datetime.timedelta(seconds=round((self.total - self.done) / self.rate))


def collect(
    results: Path, folders: Iterable[str], models: Iterable[str], registry: Mapping[str, Mapping[str, Any]]
) -> Iterator[Line]:
    """One line for each job of `folders` and `models`, whatever has become of it, below the directory `results`."""
    models = list(models)
    sizes = sorted({int(registry[model]["resolution"]) for model in models})
    for folder in folders:
        for size in sizes:
            table = results / f"mp4/{size}/{folder}.manifest.tsv"
            found = _converted(table) if table.exists() else None
            yield found or _at_work(folder, "convert", str(size), results / f"state/convert/{size}/{folder}")
        for model in models:
            vectors = results / f"embeddings/{model}_embeddings_{folder}.pt"
            found = _embedded(vectors, folder, model) if vectors.exists() else None
            yield found or _at_work(folder, "embed", model, results / f"state/embed/{model}/{folder}")


def _converted(table: Path) -> Line | None:
    try:
        rows = manifest.read(table)
    except UserError:
        if not table.exists():  # Snakemake took it away just now: the job starts again
            return None
        raise
    counts = collections.Counter(row.status for row in rows)
    folder = table.name.removesuffix(".manifest.tsv")
    return Line(folder, "convert", table.parent.name, DONE, len(rows), len(rows), counts[manifest.FAILED])


def _embedded(vectors: Path, folder: str, model: str) -> Line | None:
    record = vectors.with_suffix(".json")
    try:
        counts = json.loads(record.read_text())["counts"]
    except FileNotFoundError as error:
        raise UserError(f"{vectors} has no {record.name} beside it; delete it and run again") from error
    return Line(folder, "embed", model, DONE, counts["converted"], counts["converted"], counts["failed"])


def _at_work(folder: str, stage: str, what: str, state: Path) -> Line:
    record = progress.read(state)
    if record is None:
        return Line(folder, stage, what, WAITING)
    where = record.host + (f", SLURM job {record.slurm_job}" if record.slurm_job else "")
    counts = (record.done, record.total, record.failed)
    if time.time() - record.updated < SILENT and record.state != "broken":
        return Line(folder, stage, what, RUNNING, *counts, rate=record.rate, where=where)
    return Line(folder, stage, what, LOST if record.state == "running" else BROKEN, *counts, where=where)


def table(lines: Iterable[Line]) -> str:
    """The lines as a table for a terminal, and one line that sums them up."""
    lines = list(lines)
    cells = [("folder", "stage", "for", "state", "done", "total", "failed", "per s", "left", "where")]
    for line in lines:
        cells.append(
            (
                line.folder,
                line.stage,
                line.what,
                line.state,
                f"{line.done:,}",
                "-" if line.total is None else f"{line.total:,}",
                f"{line.failed:,}",
                "-" if line.rate is None else f"{line.rate:.1f}",
                "-" if line.left is None else str(line.left),
                line.where,
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers = range(4, 9)
    printed = [
        "  ".join(c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    states = collections.Counter(line.state for line in lines)
    summary = ", ".join(f"{states[s]} {s}" for s in (DONE, RUNNING, WAITING, LOST, BROKEN) if states[s])
    hints = []
    if states[LOST]:
        hints.append(f"lost: no sign for {SILENT:.0f} s; killed, preempted or waiting to go on where it was")
    if states[BROKEN]:
        hints.append("stopped: by an error, which its log names (results/logs/)")
    return "\n".join([*(row.rstrip() for row in printed), f"{len(lines)} jobs: {summary}", *hints])
