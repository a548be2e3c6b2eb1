"""What doctor finds out about the collection: what it holds, what would fail, and whether tables and layout fit it."""

import collections
import contextlib
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import uid

from ..collection.folders import ARCHIVES
from ..collection.kinds import DICOM, VIDEO, Kind
from ..collection.source import Collection
from ..collection.units import Folder, Share, Unit, files_of
from ..convert import probe
from ..core import settings
from ..core.errors import UserError
from ..core.layout import Layout
from ..core.manifest import CONVERTED, FAILED
from ..core.names import encode_name
from ..dicom.archives import unpack_command
from ..dicom.header import Skip, Unreadable, check_clip, read_header
from ..tables import identity, inventory, selection
from ..tables.join import Join, join_tables, listed_files
from . import estimate
from .machine import AMBER, GREEN, RED, Finding

SAMPLE = 200  # files whose header is read
SAMPLE_VIDEOS = 40  # videos that are read
SHOWN = 5  # reasons and the like
MANY_FOLDERS = 100
FILES_OF_A_JOB = 10_000  # from here on a folder that holds `NEARLY_ALL` of them is better divided
NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Sample:
    """What the headers of some files of the collection say, and what follows for all of them."""

    files: int  # in the collection
    looked_at: int
    clips: int  # of those looked at
    failed: int  # of those looked at: what cannot be read
    frames: float  # of a clip, on average
    bytes: int  # of those looked at
    outcomes: Mapping[str, int]  # clip, or why not
    syntaxes: Mapping[str, int]  # of the clips

    @property
    def all_clips(self) -> int:
        """About how many clips the collection has."""
        return round(self.files * self.clips / max(1, self.looked_at))


def _choose(folders: Sequence[Unit], number: int) -> tuple[int, list[str]]:
    """How many files there are, and the paths of up to `number`, spread evenly over the folders and over each."""
    each = max(1, number // len(folders))
    files = 0
    chosen: list[str] = []
    for folder, found in files_of(folders).items():
        files += len(found)
        chosen += [os.path.join(folder.path, path) for path in found[:: max(1, len(found) // each)][:each]]
    return files, chosen


def sample_videos(folders: Sequence[Unit]) -> Sample:
    """Look into up to `SAMPLE_VIDEOS` files as `probe` does."""
    files, chosen = _choose(folders, SAMPLE_VIDEOS)
    rows = [probe.probe_file(*os.path.split(path)) for path in chosen]
    frames = [row.frames or 0 for row in rows if row.status == CONVERTED]
    outcomes = collections.Counter("clip" if row.status == CONVERTED else row.reason for row in rows)
    average = statistics.mean(frames) if frames else 0.0
    size = sum(row.bytes or 0 for row in rows)
    failed = sum(row.status == FAILED for row in rows)
    kinds = collections.Counter(Path(row.mp4).suffix.lower() for row in rows if row.status == CONVERTED)
    return Sample(files, len(rows), len(frames), failed, average, size, outcomes, kinds)


def sample(config: Mapping[str, Any], kind: Kind, units: Sequence[Unit]) -> Sample:
    """Look into some files of the collection, whatever it is made of."""
    return sample_videos(units) if kind is VIDEO else sample_dicom(units, tuple(config["convert"]["modalities"]))


def sample_dicom(folders: Sequence[Unit], modalities: tuple[str, ...]) -> Sample:
    """Look at the headers of up to `SAMPLE` files."""
    files, chosen = _choose(folders, SAMPLE)
    outcomes: collections.Counter[str] = collections.Counter()
    syntaxes: collections.Counter[str] = collections.Counter()
    frames, size, failed = [], 0, 0
    for path in chosen:
        try:
            size += os.path.getsize(path)
            clip = check_clip(path, *read_header(path), modalities)
        except Skip as why:
            outcomes[str(why)] += 1
        except Unreadable as why:
            failed += 1
            outcomes[str(why)] += 1
        except OSError as error:
            failed += 1
            outcomes[error.strerror or "cannot be read"] += 1
        else:
            outcomes["clip"] += 1
            syntaxes[uid.UID(clip.transfer_syntax).name] += 1
            frames.append(clip.number_of_frames)
    average = statistics.mean(frames) if frames else 0.0
    return Sample(files, len(chosen), len(frames), failed, average, size, outcomes, syntaxes)


def examine(
    config: Mapping[str, Any], collection: Collection, units: Mapping[str, Unit], found: Sample
) -> Iterator[Finding]:
    """Every check of the collection in turn."""
    every, kind = list(units.values()), collection.kind
    yield from division(collection)
    yield from complete(config, units)
    yield from layout(config, units)
    yield from tables(config, units)
    number = f"{len(every):,} {'units' if collection.division else 'folders'}"
    yield from files(found, number, kind, config["convert"]["max_failed_fraction"])
    if kind is not VIDEO:
        yield from archives(every)
        yield from long_names(every, ".")
    yield from shared_keys(config, every, kind)


def files(found: Sample, units: str, kind: Kind, max_failed_fraction: float) -> Iterator[Finding]:
    """What the collection seems to hold."""
    share = found.looked_at / max(1, found.files)
    gigabytes = found.bytes / max(share, 1e-9) / 1e9
    says = f"{units}, {found.files:,} files, about {gigabytes:,.1f} GB and {found.all_clips:,} clips"
    if not found.clips:
        fix = f"see {kind.key}" if kind is VIDEO else "see convert.modalities"
        yield Finding(RED, kind.name, f"{says}: none of {found.looked_at} looked at is a clip", fix)
    else:
        syntaxes = ", ".join(f"{name} {count}" for name, count in most_common(found.syntaxes))
        yield Finding(GREEN, kind.name, f"{says} of {found.frames:.0f} frames; clips looked at: {syntaxes}")
    others = {why: count for why, count in found.outcomes.items() if why != "clip"}
    if others:
        reasons = ", ".join(f"{why} {count}" for why, count in most_common(others))
        more = f", and {len(others) - SHOWN} other reasons" if len(others) > SHOWN else ""
        yield Finding(GREEN, "no clips", f"of {found.looked_at} looked at: {reasons}{more}")
    tried = found.failed + found.clips
    if tried and found.failed / tried > max_failed_fraction:
        says = (
            f"{found.failed} of {tried} clips looked at cannot be read: more than {max_failed_fraction:.0%} of a folder"
        )
        fix = "repair or remove them, or raise convert.max_failed_fraction: a folder's job fails above it"
        yield Finding(RED, "broken files", says, fix)


def division(collection: Collection) -> Iterator[Finding]:
    """Whether there are too many folders for a job each, or one unit that is too much for a job."""
    files = {name: survey.files for name, survey in collection.surveys().items()}
    largest, total = max(files, key=lambda name: files[name]), sum(files.values())
    fix = f"units: {estimate.units(total)} divides the collection into so many jobs; see docs/units.md"
    if collection.division:
        fix = "set layout, or the directory one level deeper: without it all below one directory is in one unit"
    elif len(files) > MANY_FOLDERS:
        seconds = estimate.START_SECONDS
        says = f"{len(files):,} folders are as many jobs of each stage, each of which takes {seconds} s to start"
        yield Finding(AMBER, "units", says, fix)
        return
    is_whole = bool(collection.division and collection.division.units == 1)  # as it was asked for
    if not is_whole and total > FILES_OF_A_JOB and files[largest] > NEARLY_ALL * total:
        says = f"{largest} holds {files[largest]:,} of {total:,} files, which one job converts and one card embeds"
        yield Finding(AMBER, "units", says, fix)


def archives(units: Sequence[Unit]) -> Iterator[Finding]:
    """Archives in which DICOM lies; a folder's job fails where that is all it has."""
    for unit, paths in files_of(units).items():
        packed = [os.path.join(unit.path, path) for path in paths if path.lower().endswith(ARCHIVES)]
        fails = len(packed) == len(paths) and isinstance(unit, Folder)
        for path in packed[:SHOWN]:
            with contextlib.suppress(OSError):  # its row in the manifest says why
                if command := unpack_command(path):
                    says = f"{path}: DICOM in an archive is not read"
                    yield Finding(RED if fails else AMBER, "archives", says, f"unpack it: {command}")
                    break


def long_names(folders: Sequence[Unit], directory: str) -> Iterator[Finding]:
    """Files whose MP4 could not be called after them where `directory` lies."""
    longest = os.pathconf(directory, "PC_NAME_MAX")
    found = [
        encode_name(path) if isinstance(folder, Share) else os.path.join(folder.name, encode_name(path))
        for folder, paths in files_of(folders).items()
        for path in paths
        if max(map(len, os.fsencode(DICOM.clip_key(path)).split(b"/"))) > longest
    ]
    if found:
        says = f"{len(found):,} would have an MP4 whose name is longer than {longest} bytes, as {found[0]}"
        yield Finding(AMBER, "names", says, "rename those that are clips: they fail, each with a row in the manifest")


def shared_keys(config: Mapping[str, Any], folders: Sequence[Unit], kind: Kind) -> Iterator[Finding]:
    """Clips of two folders that share a key, which `merge` refuses after all of them were embedded."""
    if config["merge"]["prefix_folder"] or config["units"] != "folders":
        return
    modalities = tuple(config["convert"]["modalities"])
    first: dict[str, tuple[Unit, str]] = {}
    left = SAMPLE
    for folder in folders:
        for path in folder.files():
            key = kind.clip_key(path)
            other, twin = first.setdefault(key, (folder, path))
            if other is folder:
                continue
            if not left:
                says = (
                    f"folders share names; of {SAMPLE} such pairs none is of two clips, the others were not looked at"
                )
                yield Finding(AMBER, "keys", says, "merge: {prefix_folder: true} is the safe choice")
                return
            left -= 1
            if kind is not VIDEO and not _is_clip(os.path.join(other.path, twin), modalities):
                first[key] = (folder, path)  # the next one of this name is held against this one
            elif kind is VIDEO or _is_clip(os.path.join(folder.path, path), modalities):
                says = f"folders {other.name} and {folder.name} share the key {key!r}: their files cannot be merged"
                fix = "merge: {prefix_folder: true}, which puts the folder's name before every key"
                yield Finding(RED, "keys", says, fix)
                return


def _is_clip(path: str, modalities: tuple[str, ...]) -> bool:
    try:
        check_clip(path, *read_header(path), modalities)
    except (Skip, Unreadable, OSError):
        return False
    return True


def complete(config: Mapping[str, Any], folders: Mapping[str, Unit]) -> Iterator[Finding]:
    """The disk against the record list, where one is given."""
    record_list = settings.tables(config).record_list
    if record_list is None:
        return
    try:
        differences, listed = inventory.compare(record_list, folders, everything=not config["folders"])
    except UserError as error:
        yield Finding(RED, "record list", str(error), "set record_list to echo-record-list.csv or its like")
        return
    off = differences["what"].value_counts()
    absent, unlisted = (int(off.get(what, 0)) for what in (inventory.NOT_FOUND, inventory.NOT_LISTED))
    says = f"{listed.sum():,} files listed: {absent:,} of them are not on the disk, {unlisted:,} there are not listed"
    level = RED if config["require_complete"] else AMBER
    fix = f"fetch what is missing; names: snakemake {Layout().record_list_summary()}, and differences.tsv beside it"
    yield Finding(level if absent or unlisted else GREEN, "record list", says, fix)


def tables(config: Mapping[str, Any], folders: Mapping[str, Unit]) -> Iterator[Finding]:
    """The selection, and the tables against the files: those that decide it must fit, the others matter to exports."""
    known = settings.tables(config)
    try:
        selection.check(known, config["export"]["columns"], config["study"]["where"])
        selecting = selection.used(known)
        paged = selection.used(known, identities=True)
    except UserError as error:
        yield Finding(RED, "tables", str(error))  # which says what to do
        return
    for table in selection.absent(known):
        if table.name != "record_list":  # `complete` has said it of that one
            level = RED if table in selecting.all else AMBER
            yield Finding(level, "tables", f"{table.name}: no file {table.file!r} in {Path.cwd()}", "correct its path")
    if selection.absent(known):
        return
    files = listed_files(folders)
    level, joins = RED, list[Join]()
    try:
        if paged.all:
            joins = join_tables(files, paged, {*selection.selecting(known), *selection.IDENTITY})[1]
        level = AMBER
        if known != paged:
            joins = join_tables(files, known)[1]
    except UserError as error:
        yield Finding(level, "tables", str(error))
    for join in joins:
        if join.error and join.table in selecting.all:
            yield Finding(RED, "tables", join.error)
        elif join.is_thin:
            fix = (
                "correct 'key' or 'by'; all is well if the table is about a part of the collection, or about clips only"
            )
            yield Finding(AMBER, "tables", join.coverage("files"), fix)
        else:
            yield Finding(GREEN, "tables", str(join))


def layout(config: Mapping[str, Any], folders: Mapping[str, Unit]) -> Iterator[Finding]:
    """The configuration's layout against the paths, where there is one."""
    known = settings.tables(config)
    if known.layout:
        files = listed_files(folders)
        found, every = int(identity.laid_out(files, known).sum()), len(files)
        says = f"{known.layout} says the patient of {found:,} of {every:,} files"
        if 2 * found < every:
            like = identity.below(files, known).iloc[-1]
            yield Finding(AMBER, "layout", f"{says}: fewer than half", f"correct it; a path is like '{like}'")
        else:
            yield Finding(GREEN, "layout", says)


def most_common(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The largest few."""
    return collections.Counter(counts).most_common(SHOWN)
