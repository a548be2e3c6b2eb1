"""One GPU a job: jobs on one machine agree on free cards by a file lock a card."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock
import torch

from .files import UserError

POLL = 1.0  # seconds between two looks at the cards


def visible() -> list[str]:
    """The UUIDs of the cards that this process may use, in torch's order; CUDA_VISIBLE_DEVICES decides."""
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


@contextlib.contextmanager
def claim(cards: Sequence[str], locks: str | os.PathLike[str] | None = None) -> Iterator[int]:
    """Hold a card that no other job holds, waiting until there is one; yields its place in `cards`.

    `cards` are names that are the same for every job on the machine, however it numbers them. `locks` is the
    directory of the locks, by default one of this user's on this machine. The kernel frees the card of a job
    that is killed. A single card that SLURM gave is taken as it is: sharing it is SLURM's decision.
    Raises `UserError` if there is no card.
    """
    if not cards:
        raise UserError("torch sees no GPU here; set embed.device: cpu to do without")
    if len(cards) == 1 and "SLURM_JOB_ID" in os.environ:
        yield 0
        return
    directory = Path(locks or Path(tempfile.gettempdir(), f"echo-embeddings-cards-{os.getuid()}"))
    directory.mkdir(parents=True, exist_ok=True)
    said = False
    while True:
        for i, card in enumerate(cards):
            lock = filelock.FileLock(directory / f"{card}.lock")
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=0)
            if lock.is_locked:
                try:
                    yield i
                finally:
                    lock.release()
                return
        if not said:
            print(f"all {len(cards)} GPUs are at work for other jobs; waiting for one", flush=True)
            said = True
        time.sleep(POLL)
