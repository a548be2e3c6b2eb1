"""The SLURM profile where there is no SLURM; tests/slurm has the real one."""

import os
import re
from pathlib import Path

import pytest

from testing import REPOSITORY
from testing.commands import pending, run_demo, run_snakemake

SLURM_PROFILE = ("--profile", str(REPOSITORY / "profiles/slurm"))


@pytest.fixture
def without_slurm(tmp_path, monkeypatch):
    """A PATH with everything that this machine has but SLURM."""
    (tmp_path / "bin").mkdir()
    for directory in reversed(os.environ["PATH"].split(os.pathsep)):  # the first one that has a program wins
        for program in Path(directory).glob("*"):
            if not re.fullmatch(r"s(acct|batch|info|queue|run|cancel|control|acctmgr)", program.name):
                (tmp_path / "bin" / program.name).unlink(missing_ok=True)
                (tmp_path / "bin" / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def resources_of(rule, text):
    """What the first job of the rule asks for."""
    return set(re.search(rf"^rule {rule}:\n(?:    .*\n)*?    resources: (.*)", text, re.MULTILINE)[1].split(", "))


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_slurm_profile_plans_without_slurm(finished, without_slurm, device):
    result = run_demo(finished, "-n", "--forceall", *SLURM_PROFILE, change=f"embed: {{device: {device}}}")
    assert result.returncode == 0, result.stdout
    assert {"gpu=1", "gpu_model=l40s", "slurm_partition=mit_preemptable"} <= resources_of("embed", result.stdout)
    convert = resources_of("convert", result.stdout)
    assert "slurm_partition=mit_normal" in convert
    assert not any(resource.startswith("gpu") for resource in convert)


# The thread of the executor begins its work when Python is about to end, at the latest after a second and a half.
LATE = """
import concurrent.futures.thread
import time

from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

real = RemoteExecutor._wait_for_jobs

async def late(self):
    deadline = time.monotonic() + 1.5
    while not concurrent.futures.thread._shutdown and time.monotonic() < deadline:
        time.sleep(0.001)
    await real(self)

RemoteExecutor._wait_for_jobs = late
"""


def test_an_executor_that_begins_late_says_nothing_below_our_line(work, without_slurm, tmp_path, monkeypatch):
    (tmp_path / "late").mkdir()
    (tmp_path / "late/sitecustomize.py").write_text(LATE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "late"), prepend=os.pathsep)
    result = run_demo(work, "--forceall", *SLURM_PROFILE)
    assert result.returncode == 1
    assert result.stdout.strip().splitlines()[-1].startswith("SLURM: there is none here (no sbatch in PATH)")


def test_a_real_run_with_the_slurm_profile_and_without_slurm_stops_with_one_line(work, without_slurm):
    files = ["--configfile", str(REPOSITORY / "config/demo.yaml")]
    result = run_snakemake(work, *files, "--forceall", *SLURM_PROFILE)
    assert result.returncode == 1
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("SLURM: there is none here (no sbatch in PATH)")
    assert "Traceback" not in result.stdout
    assert (work / "results/embeddings/vit-tiny_embeddings_all.pt").is_file()
    assert pending(work) == set()
