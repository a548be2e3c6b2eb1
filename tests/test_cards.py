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
import sys, time
from echo_embeddings.embed import devices

names = sys.argv[2].split(",")
card = names[devices.take(names, sys.argv[1] or None)]
print("has", card, time.monotonic(), flush=True)
time.sleep(float(sys.argv[3]))
print("leaves", card, time.monotonic(), flush=True)
"""


def start(locks: Path | str, names: str, seconds: float) -> subprocess.Popen:
    return start_python("-c", JOB, locks, names, str(seconds), stdout=subprocess.PIPE)


def test_no_card_is_held_twice(tmp_path):
    # CUDA_VISIBLE_DEVICES may show the same cards in another order, or fewer of them.
    jobs = [start(tmp_path, names, 1.5) for names in ("a,b", "b,a", "a,b", "b", "a,b")]
    held: dict[str, list[tuple[float, float]]] = {"a": [], "b": []}
    for job in jobs:
        said = [line.split() for line in job.communicate()[0].splitlines() if line.startswith(("has", "leaves"))]
        (_, card, begin), (_, _, end) = said
        held[card].append((float(begin), float(end)))
    assert sum(map(len, held.values())) == len(jobs)
    assert held["a"]
    for spans in held.values():
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_a_killed_job_frees_its_card(tmp_path):
    job = start(tmp_path, "a", 600)
    assert job.stdout.readline().startswith("has a")
    waits = start(tmp_path, "a", 0)
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
        held.append(start("", names, 600))
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
    waits = start(tmp_path, "b,a", 0)
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
