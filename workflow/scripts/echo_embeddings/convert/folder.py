"""A folder of DICOM to a tree of MP4 files and its manifest.

What has been done is remembered, row by row, in a journal that no rule declares, so that a job that is
killed and started again does only what is missing. An MP4 file has its final name only once it is whole.
"""

import collections
import contextlib
import errno
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from ..collection.kinds import mp4_name
from ..collection.units import Folder, Unit
from ..collection.walk import leads_nowhere
from ..core import manifest
from ..core.files import PART, blake2b_of, part_of
from ..core.keys import Key
from ..core.layout import Layout
from ..core.manifest import CONVERTED, FAILED, READABLE, SKIPPED, Row
from ..core.names import decode_name, encode_name
from ..core.progress import Progress
from ..core.settings import UNMASKED, ConvertSettings
from ..core.workers import Failure, at_work
from ..dicom.header import Clip, Skip, Unreadable, check_clip, describe_header, read_header
from . import ids, masking, video
from .journal import Journal
from .listing import collided, failed, first_clips, judge, refuse_archives, tell_reasons
from .pictures import waiting
from .sector import NoSectorError

# Error numbers of a name that cannot be had, which say nothing of the disk.
OF_A_NAME = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
FPS = 30  # of the MP4 where it is to have the DICOM's rate and the DICOM states none


# --- one file ---------------------------------------------------------------------------------------


def convert_file(
    source: str,
    path: str,
    target: Path,
    settings: ConvertSettings,
    mark: str = "",
    key: Key | None = None,
    scratch: Path | None = None,
) -> Row:
    """Convert the file at `source` to the MP4 `target` if it is a clip; returns its row.

    `path` is its name in the manifest, `mark` stands in the names of files in the making. With a `key` the row has
    hashes of the header's identifiers. Frames that wait for the codec, not masked yet, lie without a name on the disk
    of the directory `scratch`, by default of the target. Whatever is wrong with the file ends in the row's reason.
    Raises `OSError` for what is wrong with the output (a full disk, say).
    """

    def write(clip: Clip, stated_fps: float | None) -> dict[str, Any]:
        fps = (stated_fps or FPS) if settings.fps == "source" else settings.fps
        try:
            return _write_mp4(clip, target, settings, float(fps), mark, scratch)
        except NoSectorError as reason:
            raise (Skip if settings.mask_fallback == "skip" else Unreadable)(str(reason)) from reason

    return _row(source, path, CONVERTED, settings.modalities, key, write)


def read_row(source: str, path: str, modalities: tuple[str, ...], key: Key | None = None) -> Row:
    """The row of the file at `source` by its header alone: `readable` if it is a clip; the rest is as above."""
    return _row(source, path, READABLE, modalities, key, lambda clip, _: {"frames": clip.number_of_frames})


def _row(
    source: str,
    path: str,
    done: str,
    modalities: tuple[str, ...],
    key: Key | None,
    use: Callable[[Clip, float | None], dict[str, Any]],
) -> Row:
    """The row of a file, which has the status `done` if it is a clip and `use` does not fail with it.

    `use` gets the clip and the rate that the header states, and returns what else the manifest says, by column.
    """
    try:
        status = os.stat(source)
    except OSError as error:
        return Row(path, "", FAILED, f"cannot be opened: {error.strerror}")
    facts: dict[str, Any] = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    try:
        dataset, offset = read_header(source)
        facts |= describe_header(dataset) | ids.hashed(dataset, key)
        facts |= use(check_clip(source, dataset, offset, modalities), facts.get("fps"))
    except Skip as reason:
        return Row(path, "", SKIPPED, str(reason), **facts)
    except (Unreadable, video.VideoError) as reason:
        return Row(path, "", FAILED, str(reason), **facts)
    except OSError as error:
        if error.errno not in OF_A_NAME:
            raise
        why = f"its MP4 cannot be called as it would be: {error.strerror}; rename the DICOM"
        return Row(path, "", FAILED, why, **facts)
    return Row(path, mp4_name(decode_name(path)), done, "", **facts)


def _write_mp4(
    clip: Clip, target: Path, settings: ConvertSettings, fps: float, mark: str, scratch: Path | None
) -> dict[str, Any]:
    """Write the clip to the file `target`, whole or not at all; returns what the manifest says of it, by column.

    Raises `NoSectorError` where it cannot be masked.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(target))
    # Its own name for each process: the ffmpeg of a worker killed just now may write on for a moment.
    part = part_of(target, os.getpid(), end=mark + PART)
    try:
        with waiting(clip, settings.size, scratch or target.parent) as small:
            mask = masking.find(clip, small, settings)
            frames = video.write(part, mask.painted(small.frames()) if mask else small.frames(), settings, fps)
        facts = {"frames": frames, "mp4_bytes": part.stat().st_size, "mp4_blake2b": blake2b_of(part)}
        facts |= mask.facts if mask else {}
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return facts


# --- one folder -------------------------------------------------------------------------------------


def convert_folder(
    folder: Unit,
    layout: Layout,
    settings: ConvertSettings,
    *,
    limit: int,
    workers: int,
    timeout: float,
    max_failed_fraction: float,
    key: Key | None = None,
    terminal: TextIO | None = None,
) -> None:
    """Convert every clip of `folder` into its MP4 tree and write its manifest.

    `limit` > 0 looks at the files up to and including the first `limit` multi-frame ones only. `timeout`
    is in seconds a file, `key` that of the hashes of identifiers which the manifest is to have, `terminal` is for a
    live line. Raises `UserError` if another run has the folder, ffmpeg does not take the settings, there is no clip and
    DICOM in an archive, or more than `max_failed_fraction` of the clips failed: failed / (converted + failed). Raises
    `OSError` if the disk is full.
    """
    started = time.monotonic()
    tree = folder.tree(layout, settings.clips)
    top = layout.state("convert", settings.clips)
    state = top / folder.name
    with folder.locked(top):
        _sweep(folder, tree)
        listed = folder.files()
        chosen = first_clips(folder, listed, limit) if limit else listed
        journal = Journal(top, tree, folder, settings, {encode_name(path) for path in listed}, key)
        rows = {path: row for path in chosen if (row := _kept(journal, folder, tree, path))}
        carried = journal.carry(encode_name(path) for path in chosen if path not in rows)
        rows |= {path: row for path in map(decode_name, carried) if (row := _kept(journal, folder, tree, path))}
        rows |= collided(folder, chosen)
        todo = [path for path in chosen if path not in rows]
        print(f"{folder.name}: {len(chosen)} files, {len(todo)} to do", flush=True)
        # Now too: an old MP4 may be where a new one needs a directory, or show what a mask is to hide from now on.
        _prune(folder, tree, listed, (), _as_masked(settings, journal, tree))
        before = len(chosen) - len(todo)
        with (
            journal,
            Progress(folder.name, len(todo), "files", terminal, state=state, before=before) as progress,
        ):
            if key:
                bare = {path: row for path, row in rows.items() if journal.lacks_ids(row)}
                for path, row in ids.renewed(folder, bare, key, workers, timeout):
                    rows[path] = row
                    journal.add(row)
            if todo:
                video.check(settings)
            for path, row in _convert_all(folder, tree, todo, settings, workers, timeout, key, state):
                rows[path] = row
                journal.add(row)
                progress.step(failed=row.status == FAILED)
        made = list(rows.values())
        manifest.write(state / "manifest.tsv", made)
        _summarize(folder.name, made, time.monotonic() - started)
        judge(folder.name, made, state / "manifest.tsv", max_failed_fraction)
        if isinstance(folder, Folder):  # a unit may have an archive and nothing else by chance
            refuse_archives(folder, made)
        # What is no clip any more; a job that fails keeps it.
        _prune(folder, tree, listed, made, _as_masked(settings, journal, tree))
        table = layout.manifest(settings.clips, folder.name)
        manifest.write(table, made)
        manifest.write_digest(table, layout.manifest_digest(settings.clips, folder.name))


def _convert_all(
    folder: Unit,
    tree: Path,
    paths: list[str],
    settings: ConvertSettings,
    number: int,
    timeout: float,
    key: Key | None,
    state: Path,
) -> Iterator[tuple[str, Row]]:
    """Convert files in `number` worker processes that can be killed; yield each with its row as it is done.

    A file that takes longer than `timeout` seconds or ends its worker is a failed row.
    """
    keys = [mp4_name(path) for path in paths]
    tasks = [
        (os.path.join(folder.path, path), encode_name(path), tree / key, settings, _mark(folder.bucket(key)))
        for path, key in zip(paths, keys, strict=True)
    ]
    # In a tree of masked files nothing lies that is not masked, not even without a name.
    scratch = state if settings.mask != UNMASKED else None
    convert = functools.partial(convert_file, key=key, scratch=scratch) if key or scratch else convert_file
    try:
        with at_work(convert, tasks, number, timeout, limit="convert.timeout") as results:
            for (_, name, *_), made in results:
                path = decode_name(name)
                yield path, failed(folder, path, made) if isinstance(made, Failure) else made
    finally:
        _sweep(folder, tree)


def _kept(journal: Journal, folder: Unit, tree: Path, path: str) -> Row | None:
    """The row made before, if the file and its MP4 are still what they were.

    Failures are tried again, and so is what had no sector to be masked by.

    A file that a link does not lead to any more is not there now, and may be again: what was made of it stays.
    """
    row = journal.row(encode_name(path))
    if row is None or row.status == FAILED or row.reason.startswith(masking.NO_SECTOR):
        return None
    source = Path(folder.path, path)
    try:
        if not leads_nowhere(source):
            status = source.stat()
            if (status.st_size, status.st_mtime_ns) != (row.bytes, row.mtime_ns):
                return None
        return row if row.status != CONVERTED or _is_mp4_of(journal, tree / row.mp4, row) else None
    except OSError:
        return None


def _is_mp4_of(journal: Journal, path: Path, row: Row) -> bool:
    """Whether the MP4 is the one that the row is about, and not one that was made under other settings since."""
    status = path.stat()
    if status.st_size != row.mp4_bytes:
        return False
    if journal.mp4_time(row) in (None, status.st_mtime_ns):
        return True
    if row.mp4_blake2b is None or blake2b_of(path) != row.mp4_blake2b:
        return False
    journal.confirm(row, status.st_mtime_ns)  # it was copied, and is not to be read again
    return True


def _mark(bucket: str) -> str:
    """What names of files in the making end with, by which other units know that they are not theirs."""
    return f".{bucket.rpartition('/')[2]}" if "/" in bucket else ""


def _sweep(folder: Unit, tree: Path) -> None:
    """Delete what a killed run left half-written."""
    own = tuple(_mark(bucket) + PART for bucket in folder.buckets)
    for directory, names, alone in folder.made(tree):
        for name in names:
            if name.endswith(PART if alone else own):
                (directory / name).unlink(missing_ok=True)


def _as_masked(settings: ConvertSettings, journal: Journal, tree: Path) -> set[str] | None:
    """The keys of MP4s that were made under the mask of these settings; None where there is no mask."""
    if settings.mask == UNMASKED:
        return None
    found = set()
    for row in journal.rows():
        with contextlib.suppress(OSError):  # it is not there
            if row.status == CONVERTED and _is_mp4_of(journal, tree / row.mp4, row):
                found.add(row.mp4)
    return found


def _prune(
    folder: Unit, tree: Path, listed: Iterable[str], rows: Iterable[Row], as_masked: Iterable[str] | None
) -> None:
    """Delete every MP4 whose DICOM is gone or is no clip any more, and empty directories.

    MP4 files of DICOM beyond `limit` stay. In a tree of masked files only those of `as_masked` do.
    """
    wanted = {mp4_name(path) for path in listed} if as_masked is None else set(as_masked)
    sees = folder.sees(map(mp4_name, listed)) if as_masked is None else folder.has
    wanted -= {mp4_name(decode_name(row.path)) for row in rows if row.status != CONVERTED}
    directories = []
    for directory, names, alone in folder.made(tree):
        for name in names:
            path = directory / name
            key = path.relative_to(tree).as_posix()
            if name.endswith(".mp4") and key not in wanted and sees(key):
                path.unlink()
        if alone:
            directories.append(directory)
    for directory in reversed(directories):
        with contextlib.suppress(OSError):  # it is not empty
            os.rmdir(directory)


def _summarize(name: str, rows: list[Row], seconds: float) -> None:
    """Print what became of the files."""
    tell_reasons(name, rows)
    counts = collections.Counter(row.status for row in rows)
    converted = [row for row in rows if row.status == CONVERTED]
    frames = sum(row.frames or 0 for row in converted)
    hours = sum((row.frames or 0) / (row.fps or FPS) for row in converted) / 3600
    read, written = (sum(getattr(r, name) or 0 for r in converted) / 1e9 for name in ("bytes", "mp4_bytes"))
    print(
        f"{name}: {counts[CONVERTED]} converted ({frames} frames, {hours:.2f} h of video, {read:.2f} GB in, "
        f"{written:.2f} GB out), {counts[SKIPPED]} skipped, {counts[FAILED]} failed in {seconds:.0f} s",
        flush=True,
    )
