"""Jobs on one machine agree on its cards; the cards are pretended, the processes and locks are real."""

import gc
import os
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from echo_embeddings.core.errors import UserError
from echo_embeddings.embed import devices
from testing.processes import start_python

JOB = """
import os, sys, time
from echo_embeddings.embed import devices

locks, seconds, first, *others = sys.argv[1:]
for names in others:  # each a process; forked, since the import of torch is most of what one takes
    if not os.fork():
        first, others = names, []
        break
names = first.split(",")
card = names[devices.take(names, locks or None)]
print("has", card, time.monotonic(), os.getpid(), flush=True)
time.sleep(float(seconds))
print("leaves", card, time.monotonic(), os.getpid(), flush=True)
for _ in others:
    assert os.wait()[1] == 0
"""


def start(locks: Path | str, seconds: float, *names: str) -> subprocess.Popen:
    """A job for each of the `names` of cards, which holds one for so many seconds."""
    return start_python("-c", JOB, locks, str(seconds), *names, stdout=subprocess.PIPE)


def test_no_card_is_held_twice(tmp_path):
    # CUDA_VISIBLE_DEVICES may show the same cards in another order, or fewer of them.
    jobs = ("a,b", "b,a", "a,b", "b", "a,b")
    process = start(tmp_path, 1.5, *jobs)
    said = [line.split() for line in process.communicate()[0].splitlines() if line.startswith(("has", "leaves"))]
    assert process.returncode == 0
    held: dict[str, list[tuple[float, float]]] = {"a": [], "b": []}
    for job in {job for *_, job in said}:
        (begun, card, begin), (ended, same, end) = [line[:3] for line in said if line[3] == job]
        assert (begun, ended, same) == ("has", "leaves", card)
        held[card].append((float(begin), float(end)))
    assert sum(map(len, held.values())) == len(jobs)
    assert held["a"]
    for spans in held.values():
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_a_killed_job_frees_its_card(tmp_path):
    job = start(tmp_path, 600, "a")
    assert job.stdout.readline().startswith("has a")
    waits = start(tmp_path, 0, "a")
    assert "all 1 GPUs are at work for other jobs; waiting for one" in waits.stdout.readline()
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    assert waits.communicate()[0].startswith("has a")


def test_a_job_with_a_tmpdir_of_its_own_sees_the_locks_of_the_others(tmp_path, monkeypatch):
    names = f"test-{tmp_path.name}-{os.getpid()}-a,test-{tmp_path.name}-{os.getpid()}-b"
    held = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))
        held.append(start("", 600, names))
        assert held[-1].stdout.readline().split()[1][-1] == "ab"[len(held) - 1]
    for job in held:
        job.kill()
        job.communicate()
    for card in names.split(","):
        Path(devices.LOCKS.format(os.getuid()), f"{card}.lock").unlink()


def test_a_card_is_held_until_its_process_ends(tmp_path):
    assert devices.take(["a", "b"], tmp_path) == 0
    gc.collect()
    assert devices.take(["a", "b"], tmp_path) == 1
    waits = start(tmp_path, 0, "b,a")
    assert "all 2 GPUs are at work" in waits.stdout.readline()
    waits.kill()
    waits.communicate()


def test_slurm_has_decided_already(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert [devices.take(["a"], tmp_path) for _ in range(2)] == [0, 0]
    assert [devices.take(["a", "b"], tmp_path) for _ in range(2)] == [0, 1]


def test_no_card_is_one_line():
    with pytest.raises(UserError, match="torch sees no GPU here"):
        devices.take([])


@pytest.mark.gpu
def test_the_cards_of_this_machine_have_names():
    assert len(set(devices.visible())) == torch.cuda.device_count()
