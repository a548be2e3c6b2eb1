"""Decoded frames as the encoder of a video, or of a vector, is to see them: of its size, of 8 bits, in colour."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


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
