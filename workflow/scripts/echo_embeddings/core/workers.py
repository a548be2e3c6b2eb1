"""Processes that work on one file after another, can be killed, and never outlive the job."""

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import cv2
import pebble

from .manifest import Row
from .names import one_line

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None, use_errno=True)

_inherited: list[Connection] = []  # what programs hold open, so that a pool of workers sees when they have ended


@contextlib.contextmanager
def spawned(number: int) -> Iterator[pebble.ProcessPool]:
    """A pool of `number` processes, which end with the block whatever they are at, and so do their programs."""
    context = get_context("spawn")  # not forked: an orphan of a killed job must not inherit the folder's lock
    ended, alive = context.Pipe(duplex=False)
    pool = pebble.ProcessPool(number, context=context, initializer=_start, initargs=(os.getpid(), alive))
    try:
        yield pool
    finally:
        pool.stop()
        pool.join()
        # The kernel ends the program of a worker that was killed, but not at once: until then it may create files.
        alive.close()
        with ended, contextlib.suppress(EOFError):
            ended.recv_bytes()


def _start(parent: int, alive: Connection) -> None:
    cv2.setNumThreads(1)  # the workers are the parallelism
    die_with_parent(parent)
    _inherited.append(alive)


def program(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program that ends with this process, and that the pool of this worker waits for; as `Popen` does."""
    return subprocess.Popen(
        command,
        pass_fds=[connection.fileno() for connection in _inherited],
        preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - two system calls, no lock
        **options,
    )


def outcome(future: Any, timeout: float) -> Row | str:
    """The row that a worker made of a file, or why it made none.

    Raises `OSError` where the worker did: a full disk, say, on which the rest of the folder would fare no better.
    """
    try:
        row: Row = future.result()
        return row
    except TimeoutError:
        return f"took longer than {timeout:g} s (convert.timeout)"
    except pebble.ProcessExpired as error:
        if error.exitcode == -signal.SIGKILL:
            return "the decoder was killed; the job ran out of memory?"
        return f"the decoder crashed (exit code {error.exitcode})"
    except OSError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {one_line(error)[:200]}"


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the process `parent`, which started it, ends in whatever way."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
