"""MP4 files to the frames that the encoder sees, by worker processes."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..convert import video
from ..core.manifest import Row
from ..core.names import one_line
from ..core.recipe import Recipe
from ..core.workers import die_with_parent
from . import masks, sampling
from .limits import CHUNK, PREFETCH


@dataclass
class Chunk:
    """Some clips as a worker process read them, by their indices in the list of rows."""

    frames: list[Tensor] = field(default_factory=list)  # one uint8 [n, T, height, width, 3] for each shape
    indices: list[list[int]] = field(default_factory=list)  # the indices of the n clips of each
    failed: dict[int, str] = field(default_factory=dict)  # index of a clip that cannot be read -> why

    def pin_memory(self) -> "Chunk":
        """The same in page-locked memory, from which it is copied to a GPU while that computes."""
        return Chunk([frames.pin_memory() for frames in self.frames], self.indices, self.failed)


class Clips(Dataset[Chunk]):
    """The sampled frames of the MP4 files of `rows`, as the recipe shows them; read in chunks, by lists of indices."""

    def __init__(self, tree: Path, rows: Sequence[Row], num_frames: int, recipe: Recipe) -> None:
        self.tree, self.rows, self.num_frames, self.recipe = tree, rows, num_frames, recipe

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> Chunk:
        by_shape: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
        chunk = Chunk()
        for i in indices:
            try:
                frames = self._read(self.rows[i])
            except (video.VideoError, masks.NoSectorError, OSError) as error:
                chunk.failed[i] = one_line(error)
            else:
                by_shape.setdefault(frames.shape, []).append((i, frames))
        for clips in by_shape.values():
            chunk.frames.append(torch.from_numpy(np.stack([frames for _, frames in clips])))
            chunk.indices.append([i for i, _ in clips])
        return chunk

    def _read(self, row: Row) -> NDArray[np.uint8]:
        """The frames of one clip, uint8 [clips_per_video * num_frames, height, width, 3]."""
        frames = row.frames or 0
        wanted = sampling.sample(frames, self.num_frames, self.recipe, row.fps).flatten().tolist()
        overview = masks.overview(self.recipe, row)
        read = video.read(self.tree / row.mp4, wanted + overview, frames)
        return masks.show(read[: len(wanted)], self.recipe, read[len(wanted) :], row)


def _as_read(chunk: Any) -> Any:
    """Return the chunk unchanged: `Clips` has stacked its frames, and the loader need not."""
    return chunk


def _start_worker(parent: int, _: int) -> None:
    torch.set_num_threads(1)  # the processes are the parallelism
    die_with_parent(parent)


def load(
    tree: Path, rows: Sequence[Row], num_frames: int, recipe: Recipe, num_workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """A loader of `Chunk`s in the order of `rows`; with 0 workers the clips are read in this process."""
    return DataLoader(
        Clips(tree, rows, num_frames, recipe),
        batch_size=CHUNK,
        num_workers=num_workers,
        prefetch_factor=PREFETCH if num_workers else None,
        # Spawned, not forked: an orphan of a killed job must not inherit the folder's lock.
        multiprocessing_context=get_context("spawn") if num_workers else None,
        worker_init_fn=functools.partial(_start_worker, os.getpid()),
        collate_fn=_as_read,
        pin_memory=pin_memory,
    )
