"""MP4 files to the frames that the encoder sees, by worker processes."""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..convert import video
from ..core.manifest import Row
from ..core.names import one_line
from ..core.recipe import Recipe
from ..core.workers import Failure, at_work
from . import masks, sampling
from .limits import READ_AHEAD

STRIDE = 2**36  # bytes from one place in shared memory to the next; what is not written takes none


@dataclass(frozen=True)
class Reader:
    """Reads from the MP4 files below `tree` what the encoder sees."""

    tree: Path
    num_frames: int
    recipe: Recipe

    def read(self, row: Row) -> NDArray[np.uint8] | Failure:
        """A clip's frames as the recipe shows them, [clips_per_video * num_frames, height, width, 3]; or why not."""
        frames = row.frames or 0
        wanted = sampling.sample(frames, self.num_frames, self.recipe, row.fps).flatten().tolist()
        try:
            overview = masks.overview(self.recipe, row)
            read = video.read(self.tree / row.mp4, wanted + overview, frames)
            return masks.show(read[: len(wanted)], self.recipe, read[len(wanted) :], row)
        except (video.VideoError, masks.NoSectorError, OSError) as error:
            return Failure(one_line(error))


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


@contextlib.contextmanager
def load(
    reader: Reader, rows: Sequence[Row], num_workers: int, timeout: float, pin_memory: bool
) -> Iterator[Iterator[tuple[int, Tensor | Failure]]]:
    """Read the clips of `rows` in `num_workers` processes, which start at once and end with the block.

    Yields an iterator over (index in `rows`, frames): uint8 [T, height, width, 3], page-locked where `pin_memory`, or
    why there are none, be it that the clip's process crashed or took more than `timeout` seconds. They come in the
    order of `rows`; only clips whose process was killed come last. With 0 workers this process reads, and a clip that
    crashes or hangs does so to the job.
    """
    if not num_workers:
        yield ((i, _tensor(reader.read(row))) for i, row in enumerate(rows))
        return
    places = READ_AHEAD * num_workers
    memory = SharedMemory()
    function = functools.partial(_share, reader, memory, places)
    try:
        with at_work(
            function,
            list(enumerate(rows)),
            num_workers,
            timeout,
            limit="embed.timeout",
            ahead=READ_AHEAD,
            in_order=True,
        ) as results:
            yield ((i, _fetch(memory, i % places, made, pin_memory)) for (i, _), made in results)
    finally:
        memory.close()


def _share(reader: Reader, memory: SharedMemory, places: int, i: int, row: Row) -> tuple[int, ...] | Failure:
    """Leave clip `i` in its place: its shape. It is one of the `places` clips that are under way."""
    frames = reader.read(row)
    if isinstance(frames, Failure):
        return frames
    memory.write(i % places, frames)
    return frames.shape


def _fetch(memory: SharedMemory, place: int, made: tuple[int, ...] | Failure, pin_memory: bool) -> Tensor | Failure:
    if isinstance(made, Failure):
        return made
    frames = torch.empty(made, dtype=torch.uint8, pin_memory=pin_memory)
    memory.read(place, frames.numpy())
    return frames


def _tensor(frames: NDArray[np.uint8] | Failure) -> Tensor | Failure:
    return frames if isinstance(frames, Failure) else torch.from_numpy(frames)
