"""Processes that work on one file after another, can be killed, and never outlive the job."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any

import cv2
import pebble

from .manifest import Row
from .names import one_line

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextlib.contextmanager
def spawned(number: int) -> Iterator[pebble.ProcessPool]:
    """A pool of `number` processes, which end with the block whatever they are at."""
    # Spawned, not forked: an orphan of a killed job must not inherit the folder's lock.
    pool = pebble.ProcessPool(number, context=get_context("spawn"), initializer=_start, initargs=(os.getpid(),))
    try:
        yield pool
    finally:
        pool.stop()
        pool.join()


def _start(parent: int) -> None:
    cv2.setNumThreads(1)  # the workers are the parallelism
    die_with_parent(parent)  # and ffmpeg ends with its input


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
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
