"""The device of a job: a CPU, or one GPU of its own. Jobs on one machine agree on free GPUs by one file lock a GPU."""

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ..core.errors import TransientError
from ..core.locks import file_lock

POLL = 1.0  # seconds between two looks for a free GPU

# Shared by all jobs of a machine, as a job's own TMPDIR is not. Earlier versions, whose jobs may run beside this one,
# have the same place.
LOCKS = "/tmp/echo-embeddings-cards-{}"

_held = contextlib.ExitStack()  # until the process ends


def choose(device: str) -> torch.device:
    """The device "cpu", or for "cuda" a GPU that no other job has; it is this process's until the process ends.

    Waits until there is such a GPU. Raises `TransientError` if there is no GPU at all.
    """
    if device == "cpu":
        return torch.device("cpu")
    gpu = torch.device("cuda", take(visible()))
    torch.cuda.set_device(gpu)
    return gpu


def visible() -> list[str]:
    """The UUIDs of the GPUs that this process may use, in torch's order; CUDA_VISIBLE_DEVICES decides which."""
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


def take(gpus: Sequence[str], locks: str | os.PathLike[str] | None = None) -> int:
    """Take a GPU that no other job holds, waiting until there is one; returns its index in `gpus`.

    It stays taken until the process ends, in whatever way: until then something of the process may lie in the
    GPU's memory. `gpus` are names that are the same for every job on the machine, however it numbers them.
    `locks` is the directory of the locks, by default one of this user's on this machine. A single GPU that
    SLURM gave is taken without a lock: sharing it is SLURM's decision. Raises `TransientError` if there is no GPU.
    """
    if not gpus:
        raise TransientError("torch sees no GPU here; set embed.device: cpu to compute without one")
    if len(gpus) == 1 and "SLURM_JOB_ID" in os.environ:
        return 0
    directory = Path(locks or LOCKS.format(os.getuid()))
    directory.mkdir(parents=True, exist_ok=True)
    said = False
    while True:
        for i, gpu in enumerate(gpus):
            with contextlib.suppress(BlockingIOError):
                _held.enter_context(file_lock(directory / f"{gpu}.lock", wait=False))
                return i
        if not said:
            print(f"all {len(gpus)} GPUs are at work for other jobs; waiting for one", flush=True)
            said = True
        time.sleep(POLL)
