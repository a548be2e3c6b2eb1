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

CHUNK = 8  # clips that a worker hands over at a time: few messages, little memory
PREFETCH = 4  # chunks that a worker is ahead


@dataclass
class Chunk:
    """Some clips as a worker read them; `i` is a clip's place among the rows."""

    frames: list[Tensor] = field(default_factory=list)  # uint8 [n, T, height, width, 3], one a shape
    places: list[list[int]] = field(default_factory=list)  # the n places of each
    failed: dict[int, str] = field(default_factory=dict)  # place -> why it cannot be read

    def pin_memory(self) -> "Chunk":
        """The same in page-locked memory, from which copies to a GPU run beside its work."""
        return Chunk([frames.pin_memory() for frames in self.frames], self.places, self.failed)


class Clips(Dataset[Chunk]):
    """The sampled frames of MP4 files as a recipe shows them, by chunks of places among `rows`."""

    def __init__(self, tree: Path, rows: Sequence[Row], num_frames: int, recipe: Recipe) -> None:
        self.tree, self.rows, self.num_frames, self.recipe = tree, rows, num_frames, recipe

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, places: list[int]) -> Chunk:
        shapes: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
        chunk = Chunk()
        for i in places:
            try:
                read = self._read(self.rows[i])
            except (video.VideoError, masks.NoSectorError, OSError) as error:
                chunk.failed[i] = one_line(error)
            else:
                shapes.setdefault(read.shape, []).append((i, read))
        for clips in shapes.values():
            chunk.frames.append(torch.from_numpy(np.stack([read for _, read in clips])))
            chunk.places.append([i for i, _ in clips])
        return chunk

    def _read(self, row: Row) -> NDArray[np.uint8]:
        """uint8 [clips_per_video * num_frames, height, width, 3]."""
        frames = row.frames or 0
        wanted = sampling.sample(frames, self.num_frames, self.recipe, row.fps).flatten().tolist()
        look = masks.overview(self.recipe, row)
        read = video.read(self.tree / row.mp4, wanted + look, frames)
        sampled, seen = read[: len(wanted)], read[len(wanted) :]
        return masks.show(sampled, self.recipe, seen, row)


def _as_read(chunk: Any) -> Any:
    """Keeps the loader from putting together what `Clips` has put together."""
    return chunk


def _start_worker(parent: int, _: int) -> None:
    torch.set_num_threads(1)  # the workers are the parallelism
    die_with_parent(parent)


def load(
    tree: Path, rows: Sequence[Row], num_frames: int, recipe: Recipe, num_workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """A loader of `Chunk`s, in the order of `rows`; 0 workers read in this process."""
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
