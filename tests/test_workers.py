"""Worker processes: whatever becomes of one of them, each task has an outcome, and nobody waits for ever."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from echo_embeddings.core.errors import TransientError
from echo_embeddings.core.workers import Failure, at_work
from testing import tasks
from testing.processes import processes_of, start_python, until


def outcomes(directory: Path, *whats: str, number=2, timeout=600.0, in_order=False):
    """What becomes of tasks that are to do this, by number, in the order in which they end."""
    given = [(what, directory, str(i)) for i, what in enumerate(whats)]
    with at_work(tasks.do, given, number, timeout, limit="seconds", in_order=in_order) as results:
        return {int(name): made for (_, _, name), made in results}


def attempts(directory: Path, number: int) -> int:
    return len((directory / f"{number}.attempts").read_text().split())


def test_what_goes_wrong_is_the_failure_of_its_own_task(tmp_path):
    made = outcomes(tmp_path, "work", "raise", "crash", "hang", *["work"] * 8, timeout=5.0)
    assert made == {
        **{i: str(i) for i in range(12)},
        1: "ValueError: two lines",
        2: f"the decoder crashed (exit code {-signal.SIGABRT})",
        3: "took longer than 5 s (seconds)",
    }
    assert all(isinstance(made[i], Failure) == (i in (1, 2, 3)) for i in made)
    assert all(attempts(tmp_path, i) == 1 for i in made)  # not even those that waited behind the one that hung


def test_what_was_killed_is_tried_twice_more_alone(tmp_path):
    made = outcomes(tmp_path, "die", "die twice", *["slow"] * 6, in_order=True)
    assert list(made) == [2, 3, 4, 5, 6, 7, 0, 1]
    assert made.pop(0) == "the decoder was killed; the job ran out of memory?"
    assert made.pop(1) == ["0"]  # which was killed for good; nobody else was at work
    assert made == {i: str(i) for i in range(2, 8)}
    assert [attempts(tmp_path, i) for i in range(8)] == [3, 3, *[1] * 6]


def test_order(tmp_path):
    whats = ["slow", "work", "work", "raise", "slow", "work", "hang", "work"]
    assert list(outcomes(tmp_path, *whats, timeout=5.0, in_order=True)) == list(range(8))


def test_a_full_disk_ends_the_work(tmp_path):
    with pytest.raises(OSError, match="No space left on device"):
        outcomes(tmp_path, "work", "full disk", "work")


def test_an_idle_worker_that_is_killed_holds_nobody_up(tmp_path):
    given = [("work", tmp_path, str(i)) for i in range(4)] + [("slow", tmp_path, str(i)) for i in range(4, 8)]
    with at_work(tasks.do, given, 2, 600.0, limit="seconds", ahead=1) as results:
        first = [next(results) for _ in range(2)]
        until(lambda: len(list(tmp_path.glob("*.attempts"))) >= 2)
        pids = {int(pid) for path in tmp_path.glob("*.attempts") for pid in path.read_text().split()}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        rest = list(results)
    assert sorted(made for _, made in first + rest) == [str(i) for i in range(8)]


def test_processes_that_cannot_start_end_the_job(tmp_path):
    with (
        pytest.raises(TransientError, match=r"worker processes do not start \(exit code 3\)"),
        at_work(tasks.EndsItsProcess(), [()], 2, 600.0, limit="seconds") as results,
    ):
        list(results)


STARTS = "import time; from echo_embeddings.core.workers import program; program(['sleep', '900']); time.sleep(900)"


@pytest.mark.parametrize("setpriv", ["the host's", "too old"])
def test_a_program_ends_with_what_started_it(tmp_path, monkeypatch, setpriv):
    if setpriv == "too old":
        (tmp_path / "setpriv").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "setpriv").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    process = start_python("-c", STARTS, stdout=subprocess.DEVNULL)
    until(lambda: any("sleep" in name for name in processes_of(process.pid)), process)
    process.kill()
    process.wait()
    until(lambda: not processes_of(process.pid))
