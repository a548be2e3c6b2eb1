"""Decoded frames as the encoder of a video, or of a vector, is to see them: of its size, of 8 bits, in colour."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..core.files import naming
from ..dicom.frames import decode_frames
from ..dicom.header import Clip

WAITING_MEMORY = 64 * 2**20  # bytes of resized frames kept in memory; the rest waits on disk


def shrunk(frame: NDArray[Any], size: int) -> NDArray[Any]:
    """A frame, [rows, columns] or [.., .., 3], averaged by area to `size` x `size` pixels, of the same type."""
    return np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA))


@dataclass
class Stretch:
    """A linear stretch of values to 0..255, truncated as the reference does; a single value becomes black."""

    inverted: bool  # as MONOCHROME1 is: 255 is what was lowest
    low: float = np.inf  # over all full-size frames and channels that were seen
    high: float = -np.inf

    def see(self, frame: NDArray[Any]) -> None:
        """Take the extremes of a full-size frame into account."""
        self.low, self.high = min(self.low, int(frame.min())), max(self.high, int(frame.max()))

    def apply(self, small: NDArray[Any]) -> NDArray[np.uint8]:
        """A frame of values between the extremes, [height, width] or [.., .., 3], as RGB uint8 [height, width, 3]."""
        # Divided before it is multiplied, as the reference does: so the maximum becomes 255 and not 254.99.
        span = np.float32(max(self.high - self.low, 1))
        stretched = ((small.astype(np.float32) - np.float32(self.low)) / span * np.float32(255)).astype(np.uint8)
        return self._rgb(stretched)

    def _rgb(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Values as they are shown, in three channels."""
        if self.inverted:
            values = 255 - values
        return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


class Unstretched(Stretch):
    """Values of 8 bits as they are."""

    def apply(self, small: NDArray[Any]) -> NDArray[np.uint8]:
        """As of a stretch."""
        return self._rgb(np.asarray(small, np.uint8))


@dataclass(frozen=True)
class Waiting:
    """A clip's frames, decoded and resized, that wait for the encoder of a video."""

    count: int
    _first: NDArray[Any]  # the first of them
    _stretch: Stretch
    _file: IO[bytes]

    def frames(self, indices: Iterable[int] | None = None) -> Iterator[NDArray[np.uint8]]:
        """Those at `indices`, or all, as the encoder is to see them: RGB uint8 [size, size, 3]."""
        for index in range(self.count) if indices is None else indices:
            self._file.seek(index * self._first.nbytes)
            data = self._file.read(self._first.nbytes)
            yield self._stretch.apply(np.frombuffer(data, self._first.dtype).reshape(self._first.shape))


@contextlib.contextmanager
def waiting(clip: Clip, size: int, directory: Path) -> Iterator[Waiting]:
    """The clip's frames, decoded once and averaged by area to `size` x `size` pixels.

    They are stretched linearly from the minimum and maximum over all full-size frames and channels to 0..255, truncated
    as the reference does; a clip of one value becomes black. Both steps are linear, so the full-size clip never has to
    be in memory. What of the small frames has no room in memory waits on the disk of `directory`, in a file without
    a name.
    """
    stretch = Stretch(inverted=clip.photometric == "MONOCHROME1")
    with tempfile.SpooledTemporaryFile(max_size=WAITING_MEMORY, dir=os.fspath(directory)) as file:
        count = 0
        for frame in decode_frames(clip):
            stretch.see(frame)
            small = shrunk(frame, size)
            with naming(directory):
                file.write(small.tobytes())
            count += 1
        yield Waiting(count, small, stretch, file)
