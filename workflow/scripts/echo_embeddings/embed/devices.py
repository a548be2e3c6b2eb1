"""One GPU a job: jobs on one machine agree on free cards by a file lock a card."""

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import filelock
import torch

from ..core.errors import UserError

POLL = 1.0  # seconds between two looks at the cards

_held: list[filelock.BaseFileLock] = []  # a lock that nothing refers to is let go


def visible() -> list[str]:
    """The UUIDs of the cards that this process may use, in torch's order; CUDA_VISIBLE_DEVICES decides."""
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


def take(cards: Sequence[str], locks: str | os.PathLike[str] | None = None) -> int:
    """Take a card that no other job holds, waiting until there is one; returns its place in `cards`.

    It is this process's until the process ends, in whatever way: as long as there may be something of it in the
    card's memory. `cards` are names that are the same for every job on the machine, however it numbers them.
    `locks` is the directory of the locks, by default one of this user's on this machine. A single card that
    SLURM gave is taken as it is: sharing it is SLURM's decision. Raises `UserError` if there is no card.
    """
    if not cards:
        raise UserError("torch sees no GPU here; set embed.device: cpu to do without")
    if len(cards) == 1 and "SLURM_JOB_ID" in os.environ:
        return 0
    directory = Path(locks or Path(tempfile.gettempdir(), f"echo-embeddings-cards-{os.getuid()}"))
    directory.mkdir(parents=True, exist_ok=True)
    said = False
    while True:
        for i, card in enumerate(cards):
            lock = filelock.FileLock(directory / f"{card}.lock")
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=0)
                _held.append(lock)
                return i
        if not said:
            print(f"all {len(cards)} GPUs are at work for other jobs; waiting for one", flush=True)
            said = True
        time.sleep(POLL)
