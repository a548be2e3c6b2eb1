"""What collections are made of: DICOM, or videos; and what a file's clip is called."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from ..core.names import encode_name

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")  # how names of videos end, in any case
APPLE_DOUBLE = "._"  # how the names of files begin in which macOS keeps what another file system cannot


@dataclass(frozen=True)
class Kind:
    """What a collection is made of."""

    key: str  # of the configuration: where it lies
    name: str
    sign: str  # by which its files are known
    clip_key: Callable[[str], str]  # of a file's path its clip's key, both relative to one directory


def is_video(path: str) -> bool:
    """Whether the file is a video by its name."""
    return path.lower().endswith(VIDEOS) and not os.path.basename(path).startswith(APPLE_DOUBLE)


def mp4_name(path: str) -> str:
    """The MP4 name of the DICOM at `path`, both relative to the folder; percent-encoded.

    One final `.dcm` (any case) is taken off and nothing else: `1.2.840.55` and `1.2.840.56` stay two.
    """
    stem = path[:-4] if path.lower().endswith(".dcm") else path
    return encode_name(stem) + ".mp4"


DICOM = Kind("dicom_dir", "DICOM", "the mark 'DICM' at byte 128", mp4_name)
VIDEO = Kind("mp4_dir", "video", f"names that end with {', '.join(VIDEOS)}", encode_name)
