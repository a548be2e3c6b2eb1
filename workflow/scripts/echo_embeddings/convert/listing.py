"""Which files of a folder are its clips, before one is read and after: what all ways from DICOM share."""

import collections
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..collection.kinds import mp4_name
from ..collection.units import Unit
from ..core.errors import UserError
from ..core.manifest import FAILED, SKIPPED, Row
from ..core.names import decode_name, encode_name
from ..dicom.archives import unpack_command
from ..dicom.header import ARCHIVE, Skip, Unreadable, number_of_frames, read_header
from ..dicom.mark import seems_dicom


def first_clips(folder: Unit, listed: list[str], limit: int) -> list[str]:
    """The files up to the `limit`-th multi-frame one."""
    clips = 0
    for i, path in enumerate(listed):
        try:
            dataset, _ = read_header(os.path.join(folder.path, path))
            clips += number_of_frames(dataset) > 1
        except (Skip, Unreadable):
            continue
        if clips == limit:
            return listed[: i + 1]
    return listed


def collided(folder: Unit, listed: Iterable[str]) -> dict[str, Row]:
    """The rows, by path, of the DICOM files that would give one MP4 name, or need it for a directory."""
    by_name, below = collections.defaultdict(list), collections.defaultdict(list)
    for path in listed:
        name = mp4_name(path)
        by_name[name].append(path)
        for match in re.finditer(r"\.mp4(?=/)", name):
            below[name[: match.end()]].append(path)
    other: dict[str, str] = {}
    for name, paths in by_name.items():
        if len(paths) > 1 or name in below:
            marked = [path for path in paths if seems_dicom(os.path.join(folder.path, path))]
            if marked:
                marked += [path for path in below.get(name, ()) if seems_dicom(os.path.join(folder.path, path))]
            if len(marked) > 1:
                other |= {path: marked[0 if i else 1] for i, path in enumerate(marked)}
    return {path: failed(folder, path, f"name collision with {encode_name(other[path])}") for path in other}


def failed(folder: Unit, path: str, reason: str) -> Row:
    """The row of a file that no worker could report on."""
    try:
        status = os.stat(os.path.join(folder.path, path))
    except OSError as error:
        return Row(encode_name(path), "", FAILED, f"{reason}; {error.strerror}")
    return Row(encode_name(path), "", FAILED, reason, bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def tell_reasons(name: str, rows: list[Row]) -> None:
    """Print why files were skipped or failed, and how many."""
    for status in (SKIPPED, FAILED):
        for reason, n in collections.Counter(row.reason for row in rows if row.status == status).most_common():
            print(f"{name}: {status}: {n} x {reason}")


def refuse_archives(folder: Unit, rows: list[Row]) -> None:
    """Raise `UserError` if all DICOM there is lies in archives."""
    packed = [row.path for row in rows if row.reason == ARCHIVE]
    if packed and all(row.status == SKIPPED for row in rows):
        path = os.path.join(folder.path, decode_name(packed[0]))
        raise UserError(f"{path}: DICOM in an archive; unpack it, and others like it: {unpack_command(path)}")


def judge(name: str, rows: list[Row], saved: Path, max_failed_fraction: float) -> None:
    """Raise `UserError` if too large a share of the clips failed; `saved` is the manifest that says why."""
    wrong = sum(row.status == FAILED for row in rows)
    tried = wrong + sum(row.is_clip for row in rows)
    if tried and wrong / tried > max_failed_fraction:
        raise UserError(
            f"{name}: {wrong} of {tried} clips failed, more than convert.max_failed_fraction "
            f"({max_failed_fraction:g}) allows; the reasons are in {saved}; "
            "repair or remove those files, or raise it"
        )
