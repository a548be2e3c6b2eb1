"""One video to the frames that the encoder sees. Processes that decode import this file, and not torch."""

import os
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..convert import video
from ..convert.sector import NoSectorError
from ..core.manifest import Row
from ..core.names import one_line
from ..core.recipe import Recipe
from ..core.workers import Failure
from . import geometry, masks, sampling

STRIDE = 2**36  # bytes from one place in shared memory to the next; what is not written takes none


@dataclass(frozen=True)
class Reader:
    """Reads from the videos below `tree` what the encoder sees."""

    tree: Path
    num_frames: int
    recipe: Recipe
    resolution: int  # of the encoder's input: frames that are not square are squeezed to it, unless they stay native

    def read(self, row: Row) -> NDArray[np.uint8] | Failure:
        """A clip's frames as the recipe shows them, [clips_per_video * num_frames, height, width, 3]; or why not."""
        rate = sampling.rate_of(row, self.recipe)
        wanted = sampling.sample(row.frames or 0, self.num_frames, self.recipe, rate).flatten().tolist()
        try:
            overview = masks.overview(self.recipe, row)
            read = self.frames(row, wanted + overview)
            shown = masks.show(read[: len(wanted)], self.recipe, read[len(wanted) :], row)
            return geometry.fit(shown, self.recipe, self.resolution)
        except (video.VideoError, NoSectorError, OSError) as error:
            return Failure(one_line(error))

    def frames(self, row: Row, indices: list[int]) -> NDArray[np.uint8]:
        """The frames `indices` (any order, repeats allowed) of a clip, uint8 [n, height, width, 3], before any mask.

        Raises `VideoError` or `OSError`.
        """
        read = video.read(self.tree / row.mp4, indices, row.frames or 0, row.mp4_blake2b)
        return read if self.recipe.own_pixels else masks.squeeze(read, self.resolution)


class SharedMemory:
    """Memory of this process and of those that it spawns, in numbered places that hold an array each.

    It is part of no file system: /dev/shm may be small or full.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        """New memory, or that of an open file descriptor."""
        self._descriptor = os.memfd_create("frames") if descriptor is None else descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self._descriptor),)

    def write(self, place: int, array: NDArray[np.uint8]) -> None:
        """Put an array into a place."""
        rest, at = np.ascontiguousarray(array).reshape(-1).data, place * STRIDE
        while rest:
            done = os.pwrite(self._descriptor, rest, at)
            rest, at = rest[done:], at + done

    def read(self, place: int, array: NDArray[np.uint8]) -> None:
        """Fill an array with what lies in a place."""
        rest, at = array.reshape(-1).data, place * STRIDE
        while rest:
            done = os.preadv(self._descriptor, [rest], at)
            rest, at = rest[done:], at + done

    def close(self) -> None:
        """Give it back, once the other processes have ended."""
        os.close(self._descriptor)


def _received(descriptor: Any) -> SharedMemory:
    return SharedMemory(descriptor.detach())


def share(reader: Reader, memory: SharedMemory, places: int, i: int, row: Row) -> tuple[int, ...] | Failure:
    """Leave clip `i` in its place: its shape. It is one of the `places` clips that are under way."""
    frames = reader.read(row)
    if isinstance(frames, Failure):
        return frames
    memory.write(i % places, frames)
    return frames.shape
