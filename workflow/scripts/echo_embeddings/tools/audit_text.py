"""Which MP4 files still hold text that can be read: a sample of each device and kind, before a tree leaves."""

import base64
import collections
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..convert import video
from ..convert.sector import spread
from ..core import manifest
from ..core.manifest import CONVERTED, Row
from ..core.names import one_line
from ..core.workers import KilledError
from ..qc.base import hashed
from ..qc.privacy import without_names
from ..qc.writing import plain, write_pair
from . import ocr, tesseract

UNKNOWN = "unknown"  # a device or kind that the manifest does not say
# Of the pictures that are read of a clip. The two after the frames are for letters over tissue: what stays bright in
# every frame, and what does not move.
NAMES = ("mean", "first", "middle", "last", "lasting", "still")
OVER_TISSUE = 2  # of them


@dataclass(frozen=True)
class Tree:
    """The MP4 files of a unit, and their manifest."""

    name: str  # of all units with files of this size, masked or not
    folder: str
    manifest: Path
    directory: Path


@dataclass
class Clip:
    """A clip of which pictures were read."""

    key: str  # hashed where names are to be
    readable: list[str] = field(default_factory=list)  # of `NAMES`: the pictures with text
    reason: str = ""  # why it could not be looked at
    words: list[str] = field(default_factory=list, metadata={"picture": True})  # never in the numbers
    source: str = field(default="", metadata={"picture": True})  # the pictures as the address of a JPEG


@dataclass
class Group:
    """The clips of a device and kind in a tree."""

    tree: str
    device: str
    kind: str
    clips: int  # that there are
    sampled: list[Clip] = field(default_factory=list)

    @property
    def looked_at(self) -> int:
        """Clips whose pictures were read."""
        return sum(not clip.reason for clip in self.sampled)

    @property
    def with_text(self) -> list[Clip]:
        """Those of which some picture has text that can be read."""
        return [clip for clip in self.sampled if clip.readable]


def audit(
    trees: Iterable[Tree], output: Path, *, clips: int, threads: int, pictures: bool, hash_names: bool
) -> list[Group]:
    """Look at up to `clips` clips of each device and kind of the trees, and write the page `output` and its numbers.

    Which ones is the same in every run. The page shows pictures and what is read in them only where `pictures` are
    allowed, and with `hash_names` no name. Raises `UserError` if there is no OCR, or a manifest cannot be read.
    """
    tesseract.check()
    groups = collections.defaultdict[tuple[str, str, str], list[tuple[Tree, Row]]](list)
    for tree in trees:
        for row in manifest.read(tree.manifest):
            if row.status == CONVERTED:
                device = " ".join(filter(None, (row.manufacturer, row.manufacturer_model_name))) or UNKNOWN
                groups[tree.name, device, row.kind or UNKNOWN].append((tree, row))
    found = []
    with ThreadPoolExecutor(threads) as pool:
        for (name, device, kind), members in sorted(groups.items()):
            members.sort(key=lambda one: hashlib.sha256(f"{one[0].folder}/{one[1].mp4}".encode()).digest())
            group = Group(name, device, kind, len(members))
            group.sampled += pool.map(lambda one: _look(one[0], one[1], pictures, hash_names), members[:clips])
            print(f"{name}, {device}, {kind}: text in {len(group.with_text)} of {group.looked_at} clips", flush=True)
            found.append(group)
    write_pair(output, _numbers(found), "text.html.j2", groups=found, pictures=pictures, names=NAMES)
    return found


def _look(tree: Tree, row: Row, pictures: bool, hash_names: bool) -> Clip:
    """What can be read in a clip."""
    name = f"{tree.folder}/{row.mp4}"
    clip = Clip(hashed(name) if hash_names else name)
    frames = row.frames or 1
    try:
        seen = video.read(tree.directory / row.mp4, spread(frames), frames)
    except (video.VideoError, KilledError, OSError) as error:
        clip.reason = without_names(one_line(error)) if hash_names else one_line(error)
        return clip
    shown, read = text_in(seen, (row.rows or seen.shape[1], row.columns or seen.shape[2]))
    clip.readable = [name for name, found in zip(NAMES, read, strict=True) if found]
    if pictures and clip.readable:
        clip.words = list(dict.fromkeys(word for found in read for word in found))
        clip.source = _jpeg(shown)
    return clip


def text_in(frames: NDArray[np.uint8], shape: tuple[int, int]) -> tuple[list[NDArray[np.uint8]], list[list[str]]]:
    """The pictures `NAMES` of a clip's `frames`, uint8 [n, height, width, 3], and the words that can be read in each.

    `shape` is that of the DICOM, rows and columns. Raises `UserError` where there is no OCR.
    """
    mean = np.asarray(frames.mean(axis=0).round(), np.uint8)
    still = np.asarray(255 - np.clip(4 * frames.std(axis=0, dtype=np.float32), 0, 255), np.uint8)
    shown = [mean, frames[0], frames[len(frames) // 2], frames[-1], frames.min(axis=0), still]
    read: list[list[str]] = [[] for _ in NAMES]
    for word in ocr.words(shown[:-OVER_TISSUE], shape):
        read[word.picture].append(word.text)
    for word in ocr.words(shown[-OVER_TISSUE:], shape, over_tissue=True):
        read[word.picture - OVER_TISSUE].append(word.text)
    return shown, read


def _jpeg(shown: Iterable[NDArray[np.uint8]]) -> str:
    """Pictures side by side, as the address of a JPEG."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(np.hstack(list(shown)), cv2.COLOR_RGB2BGR))
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _numbers(groups: Iterable[Group]) -> dict[str, Any]:
    """The page's numbers, for machines."""
    return {
        "groups": [
            plain(group)
            | {
                "looked_at": group.looked_at,
                "with_text": len(group.with_text),
                "pictures": len(NAMES) * group.looked_at,
                "pictures_with_text": sum(len(clip.readable) for clip in group.sampled),
            }
            for group in groups
        ]
    }
