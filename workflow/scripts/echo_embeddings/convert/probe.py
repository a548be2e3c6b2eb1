"""A folder of videos that somebody made -> its manifest: which can be read, and which seem to be no clips.

The files are read and never touched. The manifest takes the place of a conversion's, and the stages after it see no
difference.
"""

import collections
import os
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ..collection.kinds import is_video
from ..collection.units import Unit
from ..core import manifest
from ..core.errors import UserError
from ..core.files import blake2b_of
from ..core.layout import Layout
from ..core.manifest import CONVERTED, DEINTERLACED, FAILED, SKIPPED, Row
from ..core.names import encode_name
from ..core.progress import Progress
from ..core.workers import Failure, at_work
from . import video

LOOK = 8  # frames of a clip that are looked at, the last one among them: so the file can be read to its end
MOVES = 2.0  # standard deviation over time, grey levels of 255, from which on a pixel moves; codecs make less
STILL = 0.001  # a picture of which a smaller share moves is suspected to be a still
SMOOTH = 0.1  # roughness across over roughness down; of a picture whose rows were taken for frames it is near 0


class _Skip(Exception):
    """The file is no clip; the message says why."""


def probe_file(top: str, path: str) -> Row:
    """The row of the file at `path` below `top`: a clip (`converted`), none (`skipped`), or not readable (`failed`)."""
    name, source = encode_name(path), os.path.join(top, path)
    facts: dict[str, Any] = {}
    try:
        status = os.stat(source)
        facts |= {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        found = _look(source, path) | {"mp4_bytes": status.st_size, "mp4_blake2b": blake2b_of(source)}
    except _Skip as reason:
        return Row(name, "", SKIPPED, str(reason), **facts)
    except video.VideoError as reason:
        return Row(name, "", FAILED, str(reason), **facts)
    except OSError as error:
        return Row(name, "", FAILED, f"cannot be opened: {error.strerror}", **facts)
    return Row(name, name, CONVERTED, **facts, **found)


def _look(source: str, path: str) -> dict[str, Any]:
    """What the manifest says of a clip, under the names of its columns. Raises `_Skip`, `VideoError`."""
    if not is_video(path):
        raise _Skip("not a video by its name")
    if encode_name(path) != path:
        raise video.VideoError("its name is not printable UTF-8, or holds a '%'; rename the file")
    frames, rows, columns, fps = video.facts(source)
    interlaced = False
    # The number may be missing, or count frames that an edit list cuts away; OpenCV may not be sure of a frame.
    if frames < 1 or (frames > 1 and video.read_fast(source, _spread(frames), frames) is None):
        frames, interlaced = video.survey(source)
    if frames < 1:
        raise video.VideoError("holds no frame")
    if frames == 1:
        raise _Skip("single frame")
    if reason := suspicion(video.read(source, _spread(frames), frames)):
        raise _Skip(f"suspected still: {reason}")
    return {
        "reason": DEINTERLACED if interlaced else "",
        **{"frames": frames, "rows": rows, "columns": columns, "fps": manifest.believed_fps(fps)},
    }


def _spread(frames: int) -> list[int]:
    return [int(i) for i in np.linspace(0, frames - 1, LOOK, dtype=int)]


def suspicion(frames: NDArray[np.uint8]) -> str | None:
    """Why `frames`, uint8 [n, height, width, 3], seem to be of no clip; None if they seem to be of one."""
    grey = frames.astype(np.float32).mean(axis=3)
    if (grey.std(axis=0) > MOVES).mean() < STILL:
        return "nothing moves"
    across, down = (float(np.abs(np.diff(grey, axis=axis)).mean()) for axis in (2, 1))
    if across < SMOOTH * down:
        return "its frames are bands, as if the rows of one picture had been taken for frames"
    return None


def probe_folder(
    folder: Unit,
    layout: Layout,
    size: int,
    *,
    limit: int,
    workers: int,
    timeout: float,
    max_failed_fraction: float,
    terminal: TextIO | None = None,
) -> None:
    """Write the manifest of the videos of `folder` where one of `size` x `size` pixels would lie, and its digest.

    `limit` > 0 takes the first so many clips, `timeout` is in seconds a file. Raises `UserError` if another run has
    the folder, or more than `max_failed_fraction` of the files cannot be read; the manifest in the job's state
    directory says which.
    """
    top = layout.state("convert", size)
    state = top / folder.name
    with folder.locked(top):
        rows = []
        clips = 0
        paths = folder.files()
        with Progress(folder.name, len(paths), "files", terminal, state=state, before=0) as progress:
            for row in _probe_all(folder.path, paths, workers, timeout):
                rows.append(row)
                clips += row.status == CONVERTED
                progress.step(failed=row.status == FAILED)
                if limit and clips == limit:
                    break
        manifest.write(state / "manifest.tsv", rows)
        _report(folder.name, rows)
        tried = [row for row in rows if row.status in (CONVERTED, FAILED)]
        failed = sum(row.status == FAILED for row in tried)
        if tried and failed / len(tried) > max_failed_fraction:
            raise UserError(
                f"{folder.name}: {failed} of {len(tried)} videos cannot be read, more than "
                f"convert.max_failed_fraction ({max_failed_fraction:g}) allows; "
                f"the reasons are in {state}/manifest.tsv"
            )
        table = layout.manifest(size, folder.name)
        manifest.write(table, rows)
        manifest.write_digest(table, layout.manifest_digest(size, folder.name))


def _probe_all(top: str, paths: list[str], number: int, timeout: float) -> Iterator[Row]:
    """The rows, in the order of `paths`; by `number` worker processes, a few files ahead of who asks.

    A file that takes longer than `timeout` seconds or ends its worker is a failed row.
    """
    tasks = [(top, path) for path in paths]
    with at_work(probe_file, tasks, number, timeout, limit="convert.timeout", ahead=8, in_order=True) as results:
        for (_, path), made in results:
            yield Row(encode_name(path), "", FAILED, made) if isinstance(made, Failure) else made


def _report(name: str, rows: list[Row]) -> None:
    """Print what was found: counts by reason, and the sizes of the pictures."""
    for status in (SKIPPED, FAILED):
        for reason, count in collections.Counter(row.reason for row in rows if row.status == status).most_common():
            print(f"{name}: {status}: {count} x {reason}")
    found = [row for row in rows if row.status == CONVERTED]
    for (height, width), count in collections.Counter((row.rows, row.columns) for row in found).most_common(5):
        print(f"{name}: {count} clips of {height} x {width} pixels")
    print(f"{name}: {len(found)} clips of {len(rows)} files", flush=True)
