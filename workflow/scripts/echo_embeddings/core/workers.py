"""Processes that work on one file after another, can be killed, and never outlive the job.

Each has a connection of its own and nothing in common with the others: one that ends, hangs or is killed holds nobody
up, and nothing depends on the size of /dev/shm, where multiprocessing keeps its locks and torch what it shares.
"""

import collections
import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

import cv2

from .errors import TransientError
from .names import one_line

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None, use_errno=True)
KILLS = (-signal.SIGKILL, -signal.SIGTERM)  # exit codes of what was ended from outside
AGAIN = 2  # further attempts at a file whose process was killed
START_SECONDS = 300.0  # a process that is not up by then never will be
FALSE_STARTS = 3  # processes that end before they are up, until the job does

_inherited: list[Connection] = []  # what programs hold open, so that it can be seen when they have ended

Task = tuple[Any, ...]


class Failure(str):
    """Why a file came to nothing."""


class Killed(Failure):
    """The process that worked on the file was killed, which may be no fault of the file."""


class KilledError(Exception):
    """A program that was at work on the file was killed; the message says which."""


@contextlib.contextmanager
def at_work(
    function: Callable[..., Any],
    tasks: Sequence[Task],
    number: int,
    timeout: float,
    *,
    limit: str,
    ahead: int = 2,
    in_order: bool = False,
) -> Iterator[Iterator[tuple[Task, Any]]]:
    """Call `function(*task)` for every task in `number` processes; yields an iterator over (task, what was returned).

    In place of a value stands a `Failure` where the function raised an exception, took longer than `timeout` seconds
    (`limit` is what the configuration calls them) or ended its process. Where that was killed, the task is tried again
    at the end, alone. Otherwise results come as they are made, or with `in_order` in the order of `tasks`; at most
    `ahead * number` tasks are handed out and not yielded yet. The processes start at once, and end with the block
    whatever they are at, and so do their programs.

    An `OSError` of the function is raised: a full disk, say, on which the other files would fare no better. Raises
    `TransientError` if processes cannot be started.
    """
    context = get_context("spawn")  # not forked: an orphan of a killed job must not inherit the folder's lock
    ended, alive = context.Pipe(duplex=False)
    pool = _Pool(functools.partial(_Worker, context, alive, function), tasks, timeout, limit)
    try:
        for _ in range(min(number, len(tasks))):
            pool.start()
        yield pool.results(ahead * number, in_order)
    finally:
        pool.stop()
        # The kernel ends the program of a worker that was killed, but not at once: until then it may create files.
        alive.close()
        with ended, contextlib.suppress(EOFError):
            ended.recv_bytes()


class _Worker:
    """A process, and the tasks that it was handed."""

    def __init__(self, context: SpawnContext, alive: Connection, function: Callable[..., Any]) -> None:
        self.connection, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(os.getpid(), there, alive, function), daemon=True)
        self._process.start()
        there.close()
        self.up = False  # whether it said so
        self.tasks: collections.deque[int] = collections.deque()  # it is at work on the first
        self.since = time.monotonic()  # when it began with that, or to start

    def hand(self, number: int, task: Task) -> None:
        """Let it do this task after those that it has."""
        if self.up and not self.tasks:
            self.since = time.monotonic()
        self.tasks.append(number)
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is found when it is listened to
            self.connection.send(task)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> int | None:
        """Its exit code; None of one that waits for a dead disk, which ends when the disk comes back."""
        self.connection.close()
        self._process.join(10)
        return self._process.exitcode


class _Pool:
    """Workers, each of which is replaced when it ends."""

    def __init__(self, make: Callable[[], _Worker], tasks: Sequence[Task], timeout: float, limit: str) -> None:
        self._make, self._tasks, self._timeout, self._limit = make, tasks, timeout, limit
        self._workers: list[_Worker] = []
        self._false_starts = 0

    def start(self) -> None:
        """Start one more."""
        self._workers.append(self._make())

    def stop(self) -> None:
        """End all."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.end()

    def results(self, most: int, in_order: bool) -> Iterator[tuple[Task, Any]]:
        """What becomes of the tasks, of which at most `most` are handed out at a time."""
        killed = []
        for number, made in self._round(range(len(self._tasks)), most, in_order):
            if isinstance(made, Killed):
                killed.append(number)
            else:
                yield self._tasks[number], made
        for number in killed:
            for _ in range(AGAIN):
                [(_, made)] = self._round([number], 1, in_order)
                if not isinstance(made, Killed):
                    break
            yield self._tasks[number], made

    def _round(self, numbers: Sequence[int], most: int, in_order: bool) -> Iterator[tuple[int, Any]]:
        """What becomes of the tasks of these numbers at one attempt."""
        due = collections.deque(numbers)
        waiting = collections.deque(numbers)
        made: dict[int, Any] = {}
        while due:
            while waiting and len(made) + sum(len(worker.tasks) for worker in self._workers) < most:
                number = waiting.popleft()
                min(self._workers, key=lambda worker: len(worker.tasks)).hand(number, self._tasks[number])
            for worker in self._heard():
                made |= self._hear(worker, waiting)
            while made and (due[0] in made or not in_order):
                number = due[0] if in_order else next(iter(made))
                due.remove(number)
                value = made.pop(number)
                if isinstance(value, OSError):
                    raise value
                yield number, value

    def _heard(self) -> list[_Worker]:
        """Wait; the workers that have something to say, have ended, or should have done either."""
        busy = [worker for worker in self._workers if worker.tasks or not worker.up]
        patience = max(0.0, min(self._deadline(worker) for worker in busy) - time.monotonic())
        said = wait([worker.connection for worker in self._workers], patience)
        now = time.monotonic()
        late = [worker for worker in busy if self._deadline(worker) <= now and worker.connection not in said]
        return [worker for worker in self._workers if worker.connection in said] + late

    def _deadline(self, worker: _Worker) -> float:
        return worker.since + (self._timeout if worker.up else START_SECONDS)

    def _hear(self, worker: _Worker, waiting: collections.deque[int]) -> dict[int, Any]:
        """What the worker made. If it has ended or is too late, its other tasks go back to `waiting`."""
        try:
            if worker.connection.poll():
                said = worker.connection.recv()
                worker.since = time.monotonic()
                if worker.up:
                    return {worker.tasks.popleft(): said}
                worker.up = True
                return {}
            worker.kill()
            code = worker.end()
            failure = Failure(f"took longer than {self._timeout:g} s ({self._limit})")
        except (EOFError, ConnectionError):
            code = worker.end()
            failure = Failure(f"the decoder crashed (exit code {code})")
            if code in KILLS:
                failure = Killed("the decoder was killed; the job ran out of memory?")
        self._workers.remove(worker)
        self._false_starts += not worker.up
        if self._false_starts == FALSE_STARTS:
            raise TransientError(f"worker processes do not start (exit code {code}); is there memory for them?")
        made = {worker.tasks.popleft(): failure} if worker.up and worker.tasks else {}
        waiting.extendleft(reversed(worker.tasks))
        self.start()
        return made


def _serve(parent: int, tasks: Connection, alive: Connection, function: Callable[..., Any]) -> None:
    """What a worker process does until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the job
    die_with_parent(parent)
    _be_killed_first()
    cv2.setNumThreads(1)  # the workers are the parallelism
    _inherited.append(alive)
    tasks.send(None)
    while True:
        task = tasks.recv()
        try:
            made = function(*task)
        except OSError as error:
            made = error
        except KilledError as error:
            made = Killed(error)
        except Exception as error:
            made = Failure(f"{type(error).__name__}: {one_line(error)[:200]}")
        tasks.send(made)


def _be_killed_first() -> None:
    """Where memory ends, have the kernel end this process and not the job, whichever is larger."""
    with contextlib.suppress(OSError):  # a container may not allow it
        Path("/proc/self/oom_score_adj").write_text("1000")


def program(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program that ends with this process, and that `at_work` waits for where a worker starts it.

    As `Popen` does otherwise. If this process is killed in the millisecond before the kernel knows that the program is
    to end with it, the program ends when its pipes do.
    """
    if setpriv := _setpriv():
        command = [*setpriv, *command]
    else:
        options["preexec_fn"] = functools.partial(die_with_parent, os.getpid())  # two system calls, no lock
    return subprocess.Popen(command, pass_fds=[connection.fileno() for connection in _inherited], **options)


@functools.cache
def _setpriv() -> list[str]:
    """What to write before a command that is to end with this process; empty where util-linux is older than 2.33.

    With a `preexec_fn` in its place Popen forks, which copies the page tables of this process: 6 ms in a worker, and 30
    where torch and its data are.
    """
    setpriv = ["setpriv", "--pdeathsig", "KILL", "--"]
    try:
        subprocess.run([*setpriv, "true"], check=True, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return []
    return setpriv


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the process `parent`, which started it, ends in whatever way."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
