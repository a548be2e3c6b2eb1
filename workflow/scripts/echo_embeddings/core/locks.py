"""The lock by which one job at a time works on a folder."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from .errors import TransientError
from .files import atomic_write


def whereabouts() -> str:
    """Where this process runs: host, process, and job where SLURM started it."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"{socket.gethostname()}, process {os.getpid()}" + (f", SLURM job {job}" if job else "")


@contextlib.contextmanager
def exclusive_lock(state: Path, name: str) -> Iterator[None]:
    """Hold the lock of the state directory of the folder `name`. Raises `TransientError` if another run has it."""
    state.mkdir(parents=True, exist_ok=True)
    owner = state / "owner"  # not in the lock file, which whoever asks for the lock may empty
    try:
        with filelock.FileLock(state / "lock", timeout=0):
            with atomic_write(owner) as part:
                part.write_text(whereabouts())
            yield
    except filelock.Timeout as error:
        who = owner.read_text() if owner.exists() else error.lock_file
        raise TransientError(
            f"{name}: another run is at work on this folder ({who}); wait for it or end it, then run again"
        ) from error
