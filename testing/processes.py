"""Processes to be killed, and small disks to be filled."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from . import REPOSITORY

PATIENCE = 300  # seconds until a test gives up waiting: no machine is that slow
Value = TypeVar("Value")


def environment_of_python() -> dict[str, str]:
    """That of this process now, with the library and this package."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "workflow/scripts"), str(REPOSITORY)])}


def start_python(*arguments: str | Path, **options) -> subprocess.Popen:
    """Python with the library and this package, leading a session of its own; `options` are those of Popen."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment_of_python(),
        start_new_session=True,
        **{"text": True, **options},
    )


def until(condition: Callable[[], Value], process: subprocess.Popen | None = None, pause: float = 0.005) -> Value:
    """Wait until `condition()` is true, or until `process` has ended; returns what it returns. `pause` in seconds."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()) and (process is None or process.poll() is None):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)
    return value


def peak_memory() -> int:
    """The most that this process has had in memory since it was started, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def processes_of(session: int) -> list[str]:
    """What still runs in the session that a process led."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:  # it ended meanwhile
            continue
        state, _, _, number = rest.split()[:4]
        if int(number) == session and state != "Z":
            found.append(name)
    return found


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A disk of `size` (such as 400k) at `place`; yields what gives it another size. Skips where that cannot be."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
    if os.getuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True) and None
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
