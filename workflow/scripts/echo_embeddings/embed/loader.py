"""MP4 files to the frames that the encoder sees, by worker processes."""

import contextlib
import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.manifest import Row
from ..core.workers import Failure, at_work
from .limits import READ_AHEAD
from .reader import Reader, SharedMemory, share


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
    function = functools.partial(share, reader, memory, places)
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


def _fetch(memory: SharedMemory, place: int, made: tuple[int, ...] | Failure, pin_memory: bool) -> Tensor | Failure:
    if isinstance(made, Failure):
        return made
    frames = torch.empty(made, dtype=torch.uint8, pin_memory=pin_memory)
    memory.read(place, frames.numpy())
    return frames


def _tensor(frames: NDArray[np.uint8] | Failure) -> Tensor | Failure:
    return frames if isinstance(frames, Failure) else torch.from_numpy(frames)
