"""How far the whole collection is: a table of folders x stages x models, read from the files that jobs leave.

It works from any terminal of the cluster, while Snakemake runs or not, and takes no lock.
"""

import collections
import datetime
import functools
import os
import shutil
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from ..core import job, manifest, progress
from ..core.errors import UserError
from ..core.layout import DICOM, Layout
from ..core.names import one_line
from ..core.state import read_run_record

SILENT = 120.0  # seconds without a sign after which a job counts as lost; a network disk may be a minute late

DONE, RUNNING, LOST, BROKEN, WAITING = "done", "running", "lost", "stopped", "waiting"
TOLD = 3  # jobs whose error is told
FIRST = (BROKEN, LOST, RUNNING, WAITING, DONE)  # which lines a small terminal shows first
# What a terminal is told: another screen without a cursor, and back; to the top; clear to the line's or screen's end.
ENTER, LEAVE, TOP, REST_OF_LINE, REST = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H", "\x1b[K", "\x1b[J"


@dataclass(frozen=True)
class Line:
    """One job: a folder, a stage, and its model, the MP4 files' size, or "dicom"."""

    folder: str
    stage: str  # convert, read_headers or embed
    what: str  # size, "dicom" or model
    state: str  # one of the five above
    done: int = 0
    total: int | None = None  # None until a job has counted
    failed: int = 0
    rate: float | None = None  # clips or files a second, of a running job
    where: str = ""  # host, and SLURM's job
    why: str = ""  # the error that stopped it

    @property
    def left(self) -> datetime.timedelta | None:
        """Time left, at the rate so far."""
        if not self.rate or self.total is None:
            return None
        return datetime.timedelta(seconds=round((self.total - self.done) / self.rate))


def collect(layout: Layout, folders: Iterable[str], models: Mapping[str, int | str]) -> Iterator[Line]:
    """One line for each job of `folders` and `models`, whatever has become of it.

    Of each model `models` says what it is fed with: MP4 files of a size, or `layout.DICOM`.
    """
    fed_with = sorted(set(models.values()), key=str)
    for folder in folders:
        for clips in fed_with:
            table = layout.manifest(clips, folder)
            stage = "read_headers" if clips == DICOM else "convert"
            found = _listed(table, stage, str(clips)) if table.exists() else None
            yield found or _at_work(layout, folder, stage, str(clips))
        for model in models:
            found = _embedded(layout, folder, model) if layout.vectors(model, folder).exists() else None
            yield found or _at_work(layout, folder, "embed", model)


def _listed(table: Path, stage: str, clips: str) -> Line | None:
    """The job whose manifest is there."""
    try:
        found = table.stat()
        counts = _counts(table, found.st_mtime_ns, found.st_size)
    except (UserError, FileNotFoundError):
        if not table.exists():  # Snakemake took it away just now: the job starts again
            return None
        raise
    folder, rows = table.name.removesuffix(".manifest.tsv"), counts.total()
    return Line(folder, stage, clips, DONE, rows, rows, counts[manifest.FAILED])


@functools.lru_cache(maxsize=1000)
def _counts(table: Path, _mtime_ns: int, _size: int) -> collections.Counter[str]:
    """How many rows of the manifest have which status; a real folder's takes half a second to read."""
    return collections.Counter(row.status for row in manifest.read(table))


def _embedded(layout: Layout, folder: str, model: str) -> Line | None:
    vectors, record = layout.vectors(model, folder), layout.run_record(model, folder)
    run = read_run_record(record)
    if run is None:
        raise UserError(f"{vectors} has no {record.name} beside it; delete it and run again")
    try:
        converted, failed = (int(run["counts"][name]) for name in ("converted", "failed"))
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{record} has no counts of clips; delete {vectors} and run again") from error
    return Line(folder, "embed", model, DONE, converted, converted, failed)


def _at_work(layout: Layout, folder: str, stage: str, what: str) -> Line:
    """A job whose output is not there: it waits, runs, or was stopped."""
    record = progress.read(layout.state(stage, what, folder))
    why = job.error(layout.log(stage, what, folder)) or ""
    if record is None:
        return Line(folder, stage, what, BROKEN if why else WAITING, why=why)
    where = record.host + (f", SLURM job {record.slurm_job}" if record.slurm_job else "")
    line = Line(folder, stage, what, LOST, record.done, record.total, record.failed, where=where, why=why)
    if why:
        return replace(line, state=BROKEN)
    if record.state != "broken" and time.time() - record.updated < SILENT:
        return replace(line, state=RUNNING, rate=record.rate)
    # One that came to its end waits to be done again.
    return replace(line, state=WAITING, where="") if record.state == "ended" else line


def table(lines: Iterable[Line]) -> str:
    """The lines as a table for a terminal, and one line that sums them up."""
    lines = list(lines)
    return "\n".join([*_rows(lines), *_summary(lines)])


def _rows(lines: Iterable[Line]) -> list[str]:
    """The table's head, and a row for each line."""
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
    return [row.rstrip() for row in printed]


def _summary(lines: Sequence[Line]) -> list[str]:
    """How many jobs are in which state, and what is to be known of those in trouble."""
    states = collections.Counter(line.state for line in lines)
    summary = [f"{len(lines)} jobs: {_count(states)}"]
    if states[LOST]:
        summary.append(
            "lost: killed, preempted or without a sign for two minutes; started again it goes on where it was"
        )
    stopped = [line for line in lines if line.state == BROKEN]
    summary += [f"stopped: {line.stage} {line.what} {line.folder}: {line.why}" for line in stopped[:TOLD]]
    if stopped[TOLD:]:
        summary.append(f"stopped: {len(stopped) - TOLD} more; each one's log ends with the reason ({Layout().logs()}/)")
    return summary


def _count(states: Mapping[str, int]) -> str:
    return ", ".join(f"{states[s]} {s}" for s in (DONE, RUNNING, WAITING, LOST, BROKEN) if states.get(s))


def fitted(lines: Sequence[Line], size: os.terminal_size, last: str) -> list[str]:
    """The table, its summary and the line `last`, cut to a terminal of `size`.

    Where there is no room for all jobs, those come first that are in trouble or at work.
    """
    summary = [part for line in [*_summary(lines), last] for part in textwrap.wrap(line, max(20, size.columns))]
    room = max(1, size.lines - len(summary) - 1)  # 1 for the head
    if len(lines) > room:
        ranked = sorted(range(len(lines)), key=lambda i: FIRST.index(lines[i].state))
        shown = sorted(ranked[: room - 1])
        hidden = collections.Counter(lines[i].state for i in ranked[room - 1 :])
        summary.insert(0, f"... and {hidden.total()} more: {_count(hidden)}")
        lines = [lines[i] for i in shown]
    return [row[: size.columns] for row in [*_rows(lines), *summary]][-size.lines :]


def watch(check: Callable[[], Iterable[Line]], seconds: float, terminal: TextIO) -> None:
    """Show what `check` returns on the terminal, anew every `seconds`, until Ctrl-C; then leave the last table there.

    What cannot be read just now is said below the table and tried again. Where `terminal` is none, a table
    follows the other.
    """
    lines: list[Line] = []
    live = terminal.isatty()
    terminal.write(ENTER if live else "")
    try:
        while True:
            trouble = ""
            try:
                lines = list(check())
            except (UserError, OSError) as error:
                trouble = f"; cannot check just now: {one_line(error)}"
            last = f"{datetime.datetime.now():%H:%M:%S}, every {seconds:g} s{trouble or '; Ctrl-C ends it'}"
            if live:
                rows = fitted(lines, shutil.get_terminal_size(), last)
                terminal.write(TOP + f"{REST_OF_LINE}\r\n".join(rows) + REST_OF_LINE + REST)
            else:
                terminal.write(f"{table(lines)}\n{last}\n\n")
            terminal.flush()
            time.sleep(seconds)
    except KeyboardInterrupt:
        return
    finally:
        terminal.write(f"{LEAVE}{table(lines)}\n" if live else "")
        terminal.flush()
