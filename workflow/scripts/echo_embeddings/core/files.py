"""Whole-or-absent files, names that any tool can carry, and the error that a user can act on."""

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

PR_SET_PDEATHSIG = 1  # linux/prctl.h
FULL = (errno.ENOSPC, errno.EDQUOT)  # error numbers of a disk without room
PART = ".part"  # what a file in the making is called: its final name and this


class UserError(Exception):
    """Something the user can mend: one line that says what is wrong, where, and what to do."""


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name only if the block ends well.

    The content is flushed to disk before the rename, so that after a power cut `path` is either the
    old file or the whole new one. On an error the temporary file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(*places: str | os.PathLike[str]) -> int:
    """What is free where the first of `places` lies that is there: it may be a link to another disk."""
    return shutil.disk_usage(next(place for place in places if os.path.isdir(place))).free


def whereabouts() -> str:
    """Where this process runs: host, process, and job where SLURM started it."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"{socket.gethostname()}, process {os.getpid()}" + (f", SLURM job {job}" if job else "")


@contextlib.contextmanager
def alone(state: Path, name: str) -> Iterator[None]:
    """Hold the lock of the state directory of the folder `name`. Raises `UserError` if another run has it."""
    state.mkdir(parents=True, exist_ok=True)
    owner = state / "owner"  # not in the lock file, which whoever asks for the lock may empty
    try:
        with filelock.FileLock(state / "lock", timeout=0):
            with whole(owner) as part:
                part.write_text(whereabouts())
            yield
    except filelock.Timeout as error:
        who = owner.read_text() if owner.exists() else error.lock_file
        raise UserError(
            f"{name}: another run is at work on this folder ({who}); wait for it or end it, then run again"
        ) from error


def end_with(parent: int) -> None:
    """Have the kernel kill this process when the process `parent`, which started it, ends in whatever way."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _escape(text: str, more: str) -> str:
    """`text` with what is not printable UTF-8, and the characters in `more`, as `%XX` a byte."""
    if text.isprintable() and not any(c in text for c in more):
        return text
    return "".join(
        c if c.isprintable() and c not in more else "".join(f"%{b:02X}" for b in os.fsencode(c)) for c in text
    )


def encode_name(raw: str) -> str:
    """A path, as the operating system gives it, as printable UTF-8: other bytes and `%` as `%XX`."""
    return _escape(raw, "%")


def decode_name(name: str) -> str:
    """The operating system's path that `encode_name` made `name` of."""
    raw = re.sub(rb"%([0-9A-F]{2})", lambda m: bytes.fromhex(m[1].decode()), name.encode())
    return os.fsdecode(raw)


def one_line(error: object) -> str:
    """The message of an error, or its type where it has none, as one printable line."""
    return _escape(" ".join(str(error).split()), "") or type(error).__name__
