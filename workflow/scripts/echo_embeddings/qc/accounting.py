"""Where every file went: counts from the manifests to the vectors, and what does not add up."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..core import manifest
from ..tables.inventory import differences_of
from .base import NAMED, Check, Naming, count, named
from .tables import NO_FOLDER

TOTAL = "all folders"
COUNTS = ("seen", "clips", "converted", "skipped", "failed", "left_out", "embedded", "not_embedded", "missing")
LISTED = ("listed", "listed_unseen", "seen_unlisted")
SHOWN = 40  # rows of files without a vector, a folder


@dataclass(frozen=True)
class Reason:
    """Why files ended without a vector."""

    outcome: str  # skipped or failed, as in the manifest, or not embedded
    reason: str
    files: int
    by_folder: dict[str, int]


@dataclass(frozen=True)
class Loss:
    """A file that should have become a vector, and did not."""

    folder: str
    name: str
    outcome: str
    reason: str


@dataclass(frozen=True)
class Accounting:
    """Where every file went."""

    folders: pd.DataFrame  # one row a folder and their sum as the last; columns: see `account`
    reasons: list[Reason]  # by outcome, most frequent first
    losses: list[Loss]  # at most `SHOWN` a folder
    made: str  # what the manifests call a clip that can be embedded: converted, or readable where no MP4 is made
    problems: list[str]  # a sentence for each sum that does not come out
    record_list: dict[str, list[str]] | None  # where one is given: how files differ from it -> at most `SHOWN` of them
    tables: list[str]  # a sentence for each table that decides the selection: how many clips it has a row for
    thin_tables: int  # of these, how many have one for fewer than half of them

    @property
    def total(self) -> dict[str, int]:
        """The sums over all folders."""
        return {str(name): int(value) for name, value in self.folders.iloc[-1].items() if name != "folder"}


def account(
    clips: pd.DataFrame,
    files: pd.DataFrame,
    runs: Mapping[str, Mapping[str, Any] | None],
    record_list: Path | None,
    tables: Sequence[str],
    thin_tables: int,
    naming: Naming,
) -> Accounting:
    """Follow every file from the manifests' `files` (see `tables.read_files`) to the `clips` that have vectors.

    The columns of the accounting's table: `folder`; files `seen`; `clips` among them (not skipped);
    files `converted` (or readable, see `Accounting.made`), `skipped` and `failed`, as the manifest has them; clips
    `left_out` by the selection, `embedded`, `not_embedded` (listed as failed) and `missing` (none of the three). With
    `record_list`, the summary that `inventory.check` writes, also files `listed`, `listed_unseen` (and not on the
    disk) and `seen_unlisted` (on the disk, and not listed).
    """
    lines, problems = [], []
    made = manifest.READABLE if (files["status"] == manifest.READABLE).any() else manifest.CONVERTED
    embedded_in: dict[Any, set[str]] = {
        folder: set(group["key"]) for folder, group in clips.groupby("folder", sort=False)
    }
    for folder, run in runs.items():
        line, faults = _count_folder(
            folder, files[files["folder"] == folder], embedded_in.get(folder, set()), run, made, naming
        )
        lines.append(line)
        problems += faults
    stray = embedded_in.get(NO_FOLDER, set())
    if stray:
        lines.append({"folder": NO_FOLDER, "embedded": len(stray)})
        problems.append(f"{_clips(stray, naming)} embedded, but in no manifest")
    columns = list(COUNTS)
    table = pd.DataFrame(lines, columns=["folder", *COUNTS])
    if record_list is not None:
        columns += LISTED
        listed = pd.read_csv(record_list, sep="\t", usecols=["folder", *LISTED], dtype={"folder": str})
        listed["folder"] = listed["folder"].map(naming)
        elsewhere = listed[~listed["folder"].isin(table["folder"])]
        table = pd.concat([table, elsewhere[["folder"]]], ignore_index=True).merge(listed, on="folder", how="left")
    table = table.fillna(0)
    table.loc[len(table)] = {"folder": TOTAL, **table[columns].sum()}
    table = table.astype(dict.fromkeys(columns, int))
    return Accounting(
        table,
        _reasons(files),
        _losses(files, naming),
        made,
        problems,
        _differing(record_list, naming),
        list(tables),
        thin_tables,
    )


def _count_folder(
    folder: str, files: pd.DataFrame, embedded: set[str], run: Mapping[str, Any] | None, made: str, naming: Naming
) -> tuple[dict[str, Any], list[str]]:
    """A folder's counts, and a sentence for each way in which its files and its run record do not fit together."""
    of = files["status"].value_counts().to_dict()
    converted = set(files.loc[files["status"].isin(manifest.CLIPS), "key"])
    failed = set(files.loc[files["embed_reason"].notna(), "key"])
    left_out = set(files.loc[files["left_out"], "key"])
    missing = converted - embedded - failed - left_out
    line = {
        "folder": folder,
        "seen": int((files["status"] != "").sum()),
        "clips": len(converted) + of.get(manifest.FAILED, 0),
        "converted": len(converted),
        **{name: of.get(name, 0) for name in (manifest.SKIPPED, manifest.FAILED)},
        "left_out": len(left_out),
        "embedded": len(embedded),
        "not_embedded": len(failed),
        "missing": len(missing),
    }
    faults = (
        (missing, f"{made}, but neither embedded nor listed as failed"),
        (embedded & left_out, "embedded, though not selected"),
        (embedded & failed, "both embedded and listed as failed"),
        (failed - converted, f"listed as failed, but not {made} in the manifest"),
    )
    problems = [f"{folder}: {_clips(names, naming)} {fault}" for names, fault in faults if names]
    recorded = (run or {}).get("counts") or {}
    for name, column in (("converted", "converted"), ("failed", "not_embedded")):
        if name in recorded and recorded[name] != line[column]:
            called = made if name == "converted" else name
            problems.append(f"{folder}: the run record has {recorded[name]} {called}, the tables {line[column]}")
    return line, problems


def _differing(summary: Path | None, naming: Naming) -> dict[str, list[str]] | None:
    if summary is None:
        return None
    table = pd.read_csv(differences_of(summary), sep="\t", dtype=str, keep_default_na=False)
    return {
        str(what): [naming(n) for n in group.head(SHOWN)] for what, group in table.groupby("what", sort=False)["path"]
    }


def _reasons(files: pd.DataFrame) -> list[Reason]:
    lost = files.loc[files["status"].isin([manifest.SKIPPED, manifest.FAILED]), ["folder", "status", "reason"]]
    unembedded = files.loc[files["embed_reason"].notna(), ["folder", "embed_reason"]]
    unembedded = unembedded.rename(columns={"embed_reason": "reason"}).assign(status="not embedded")
    table = pd.concat([lost, unembedded], ignore_index=True)
    if table.empty:
        return []
    sizes = table.value_counts(["status", "reason", "folder"], sort=False).reset_index(name="files")
    ends: dict[tuple[str, str], dict[str, int]] = {}
    for line in sizes.to_dict("records"):
        ends.setdefault((line["status"], line["reason"]), {})[line["folder"]] = int(line["files"])
    reasons = [Reason(outcome, why, sum(by.values()), by) for (outcome, why), by in ends.items()]
    return sorted(reasons, key=lambda r: (r.outcome, -r.files, r.reason))


def _losses(files: pd.DataFrame, naming: Naming) -> list[Loss]:
    """Failed files and clips without a vector, the first of each folder."""
    failed = files[files["status"] == manifest.FAILED].groupby("folder", sort=False).head(SHOWN)
    unembedded = files[files["embed_reason"].notna()].groupby("folder", sort=False).head(SHOWN)
    ends = ((failed, "path", "failed", "reason"), (unembedded, "key", "not embedded", "embed_reason"))
    return [
        Loss(row["folder"], naming(row[name]), outcome, row[reason])
        for table, name, outcome, reason in ends
        for row in table.to_dict("records")
    ]


def _clips(clips: Iterable[str], naming: Naming) -> str:
    clips = list(clips)
    return f"{count(len(clips), 'clip')} ({named(clips, naming)})"


def judge(accounting: Accounting) -> list[Check]:
    """The checks of the accounting."""
    total, made = accounting.total, accounting.made
    done = "read" if made == manifest.READABLE else made
    if accounting.problems:
        shown, more = accounting.problems[:NAMED], len(accounting.problems) - NAMED
        sentence = "; ".join(shown + ([f"and {more} more"] if more > 0 else []))
        sums = Check("Accounting", "fault", f"The counts do not add up: {sentence}.", "files")
    else:
        sentence = (
            f"All {count(total['seen'], 'file')} accounted for: {total['converted']:,} {made}, "
            f"{total['skipped']:,} skipped, {total['failed']:,} failed; of those {made} {total['embedded']:,} "
            f"embedded, {total['not_embedded']:,} not"
            + (f", {total['left_out']:,} left out by the selection." if total["left_out"] else ".")
        )
        sums = Check("Accounting", "good", sentence, "files")
    failures = total["failed"] + total["not_embedded"]
    sentence = (
        f"{count(total['failed'], 'file')} could not be {done}, {count(total['not_embedded'], 'clip')} "
        "could not be embedded."
        if failures
        else f"Every video could be {done} and embedded."
    )
    checks = [sums, Check("Failures", "check" if failures else "good", sentence, "files")]
    if accounting.record_list is not None:
        off = total["listed_unseen"] or total["seen_unlisted"]
        sentence = (
            f"The record list has {count(total['listed'], 'file')}: {total['listed_unseen']:,} of them are not on the "
            f"disk, {total['seen_unlisted']:,} files of the disk are not listed."
        )
        for what, names in accounting.record_list.items():
            sentence += f" {what.capitalize()}: {', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else '.'}"
        checks.append(Check("Record list", "check" if off else "good", sentence, "files"))
    if accounting.tables:
        sentence = f"Of the tables that select clips, {'; '.join(accounting.tables)}."
        checks.append(Check("Tables", "check" if accounting.thin_tables else "good", sentence, "files"))
    return checks
