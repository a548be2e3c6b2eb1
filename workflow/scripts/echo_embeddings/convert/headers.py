"""A folder of DICOM to its manifest by headers alone, for models that are fed without an MP4.

Nothing of a killed run is kept: the headers of a real folder are read in minutes.
"""

import os
import time
from typing import TextIO

from ..collection.units import Folder, Unit
from ..core import manifest
from ..core.keys import Key
from ..core.layout import DICOM, Layout
from ..core.manifest import FAILED
from ..core.names import decode_name, encode_name
from ..core.progress import Progress
from ..core.workers import Failure, at_work
from .folder import read_row
from .listing import collided, failed, first_clips, judge, refuse_archives, tell_reasons


def read_folder(
    folder: Unit,
    layout: Layout,
    modalities: tuple[str, ...],
    *,
    limit: int,
    workers: int,
    timeout: float,
    max_failed_fraction: float,
    key: Key | None = None,
    terminal: TextIO | None = None,
) -> None:
    """Write the manifest of the DICOM files of `folder`, in which clips are `readable`, and its digest.

    `modalities` are those that count, none means all; the rest is as for `convert.folder.convert_folder`. Raises
    `UserError` if another run has the folder, there is no clip and DICOM in an archive, or more than
    `max_failed_fraction` of the clips failed: failed / (readable + failed).
    """
    started = time.monotonic()
    top = layout.state("read_headers", DICOM)
    state = top / folder.name
    with folder.locked(top):
        listed = folder.files()
        chosen = first_clips(folder, listed, limit) if limit else listed
        rows = collided(folder, chosen)
        tasks = [
            (os.path.join(folder.path, path), encode_name(path), modalities, key) for path in chosen if path not in rows
        ]
        with (
            Progress(folder.name, len(tasks), "files", terminal, state=state, before=len(rows)) as progress,
            at_work(read_row, tasks, workers, timeout, limit="convert.timeout") as results,
        ):
            for (_, name, *_), made in results:
                path = decode_name(name)
                rows[path] = failed(folder, path, made) if isinstance(made, Failure) else made
                progress.step(failed=rows[path].status == FAILED)
        found = list(rows.values())
        manifest.write(state / "manifest.tsv", found)
        tell_reasons(folder.name, found)
        clips = sum(row.is_clip for row in found)
        print(f"{folder.name}: {clips} clips of {len(found)} files in {time.monotonic() - started:.0f} s", flush=True)
        judge(folder.name, found, state / "manifest.tsv", max_failed_fraction)
        if isinstance(folder, Folder):  # a unit may have an archive and nothing else by chance
            refuse_archives(folder, found)
        table = layout.manifest(DICOM, folder.name)
        manifest.write(table, found)
        manifest.write_digest(table, layout.manifest_digest(DICOM, folder.name))
