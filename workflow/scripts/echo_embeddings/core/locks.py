"""Locks between processes, by `flock`: the kernel frees them when their process ends, in whatever way.

There is no other kind to fall back to. A file that stands for a lock outlives the job that was killed, and a lease that
others may break lets two jobs write after one of them stalled.
"""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import TransientError, UserError
from .files import atomic_write, naming
from .names import one_line

# Seconds after which what a killed job was about to start is gone: a new process has its parent's locks until its
# program begins.
ORPHANS = 1.0
HELD = (errno.EAGAIN, errno.EACCES)
MISSING = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
# Options of a mount under which a lock holds for the processes of one machine only.
LOCAL_OPTIONS = {
    "lustre": {"localflock"},
    "nfs": {"nolock", "local_lock=flock", "local_lock=all"},
    "nfs4": {"local_lock=flock", "local_lock=all"},
}


@contextlib.contextmanager
def file_lock(path: str | os.PathLike[str], wait: bool = True) -> Iterator[None]:
    """Hold the lock of the file at `path`, which is made if need be and stays.

    Raises `BlockingIOError` if another process holds it and this one does not `wait`, `UserError` where the file system
    has no locks.
    """
    with open(path, "a") as file:
        try:
            with naming(path):
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in HELD:
                raise BlockingIOError(*error.args, error.filename) from error
            if error.errno in MISSING:
                raise UserError(
                    f"{path}: its file system has no locks ({error.strerror}), by which jobs keep out of each other's "
                    "way; work on another one (snakemake --directory DIR), or have it mounted with flock"
                ) from error
            raise
        yield


def whereabouts() -> str:
    """Where this process runs: host, process, and job where SLURM started it."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"{socket.gethostname()}, process {os.getpid()}" + (f", SLURM job {job}" if job else "")


@contextlib.contextmanager
def exclusive_lock(state: Path, name: str) -> Iterator[None]:
    """Hold the lock of the state directory of the folder `name`.

    Raises `TransientError` if another run has it and keeps it, `UserError` where the file system has no locks.
    """
    state.mkdir(parents=True, exist_ok=True)
    owner = state / "owner"
    with contextlib.ExitStack() as held:
        try:
            _enter(held, state / "lock", time.monotonic() + ORPHANS)
        except BlockingIOError as error:
            said = owner.read_text(errors="replace").strip() if owner.exists() else ""
            who = one_line(said) if said else error.filename
            raise TransientError(
                f"{name}: another run is at work on this folder ({who}); wait for it or end it, then run again"
            ) from error
        with atomic_write(owner) as part:
            part.write_text(whereabouts())
        yield


def _enter(held: contextlib.ExitStack, path: Path, deadline: float) -> None:
    """Hold the lock at `path` in `held`. Raises `BlockingIOError` if it is not free until `deadline`."""
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            return held.enter_context(file_lock(path, wait=False))
        time.sleep(0.02)
    return held.enter_context(file_lock(path, wait=False))


def reach(directory: str | os.PathLike[str]) -> str | None:
    """Why a lock in `directory` may hold for the processes of one machine only; None where nothing says so."""
    kind, options = _mount(os.path.realpath(directory))
    if local := LOCAL_OPTIONS.get(kind, set()) & options:
        return f"{kind} mounted with {', '.join(sorted(local))}"
    if kind == "beegfs":
        return "BeeGFS, unless its clients have tuneUseGlobalFileLocks = true"
    return None


def _mount(path: str) -> tuple[str, set[str]]:
    """The kind and the options of the file system that `path` lies in."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    places = {place.encode().decode("unicode_escape"): (kind, options) for _, place, kind, options, *_ in mounts}
    parents = [path, *map(str, Path(path).parents)]
    kind, options = next((places[parent] for parent in parents if parent in places), ("", ""))
    return kind, set(options.split(","))
