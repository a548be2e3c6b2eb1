"""One DICOM to the frames that the encoder sees, without an MP4. Processes that decode import this, and not torch."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..convert.pictures import Stretch, Unstretched, shrunk
from ..core.manifest import Row
from ..core.names import decode_name
from ..core.workers import Failure
from ..dicom.frames import decode_frames
from ..dicom.header import Clip, Skip, Unreadable, check_clip, check_number, read_header
from .reader import Reader


class DicomReader(Reader):
    """Reads from the DICOM files below `tree` what the encoder sees; a row's `path` says where, and `frames` how many.

    Only the frames that are shown are decoded, and stretched from their own extremes to 0..255. Of more than 8 bits,
    where a few frames say little of a clip's extremes, all are decoded, and the stretch is that of the conversion.
    """

    def read(self, row: Row) -> NDArray[np.uint8] | Failure:
        """As of a video; what cannot be converted fails for the same reason, as far as it is decoded."""
        try:
            return super().read(row)
        except (Skip, Unreadable) as reason:
            return Failure(str(reason))

    def frames(self, row: Row, indices: list[int]) -> NDArray[np.uint8]:
        """As of a video. Raises `Skip`, `Unreadable` or `OSError`."""
        path = os.path.join(self.tree, decode_name(row.path))
        size = None if self.recipe.own_pixels else self.resolution
        return read_frames(path, indices, row.frames or 0, size, stretched=self.recipe.stretched)


def read_frames(
    path: str, indices: Sequence[int], number: int, size: int | None, *, stretched: bool = True
) -> NDArray[np.uint8]:
    """The frames `indices` (any order, repeats allowed) of the DICOM at `path`, RGB uint8 [n, height, width, 3].

    They are squeezed to `size` x `size`, or where that is None as large as they are stored. Brightness is stretched to
    0..255, unless it is not to be and has 8 bits. `number` is how many the clip had when its manifest was written.
    Raises `Skip`, `Unreadable` or `OSError`.
    """
    clip = check_clip(path, *read_header(path), ())
    check_number(clip, number)
    wanted = set(indices)
    decode = range(clip.number_of_frames) if _is_deep(clip) else sorted(wanted)
    inverted = clip.photometric == "MONOCHROME1"
    stretch, kept = Stretch(inverted) if stretched or _is_deep(clip) else Unstretched(inverted), {}
    for i, frame in zip(decode, decode_frames(clip, decode), strict=True):
        stretch.see(frame)
        if i in wanted:
            kept[i] = frame if size is None else shrunk(frame, size)
    shown = {i: stretch.apply(frame) for i, frame in kept.items()}
    return np.stack([shown[i] for i in indices])


def _is_deep(clip: Clip) -> bool:
    """Whether pixels may have more than 8 bits; a palette's entries may."""
    return bool(clip.dataset.BitsAllocated > 8 or clip.photometric == "PALETTE COLOR")
