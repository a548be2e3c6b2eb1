"""What surrounds a job: its log through retries and requeues, and that no attempt repeats what cannot succeed."""

import shutil
import subprocess
import sys

import pytest

from testing.commands import environment, run_demo, run_snakemake

SNAKEFILE = """
NAMES = ["killed", "broken", "transient", "wrong"]

rule all:
    input: NAMES

rule job:
    output: "{name}"
    log: "results/logs/{name}.log"
    resources:
        attempt=lambda wildcards, attempt: attempt
    script: "job.py"
"""
SCRIPT = """
import os
import signal

from echo_embeddings.core import job
from echo_embeddings.core.errors import TransientError, UserError

with job.logged(snakemake.log[0], snakemake.resources.attempt):
    name = snakemake.wildcards.name
    print("at work", flush=True)
    if snakemake.resources.attempt < 3:
        if name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif name == "broken":
            raise ValueError("no luck")
        elif name == "transient":
            raise TransientError("the server does not answer")
        else:
            raise UserError("the checkpoint is another one")
    open(snakemake.output[0], "w").close()
"""


def test_a_retry_tries_what_may_succeed_and_its_log_keeps_every_attempt(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "job.py").write_text(SCRIPT)
    run = ("--cores", "2", "--retries", "2", "--keep-going")
    done = run_snakemake(tmp_path, *run, snakefile=tmp_path / "Snakefile")
    assert done.returncode != 0
    for name in ("killed", "broken", "transient"):
        assert (tmp_path / name).exists(), done.stdout
        log = (tmp_path / f"results/logs/{name}.log").read_text()
        assert log.count("at work") == log.count(", process ") == 3
        assert "not tried" not in log
    assert (tmp_path / "results/logs/broken.log").read_text().count("failed: ValueError: no luck\n") == 2
    assert not (tmp_path / "wrong").exists()
    assert done.stdout.count("the checkpoint is another one  [log: results/logs/wrong.log]") == 3
    log = (tmp_path / "results/logs/wrong.log").read_text()
    assert log.count("at work") == 1
    assert [attempt for attempt in (1, 2, 3) if f"attempt {attempt}: not tried" in log] == [2, 3]
    assert log.endswith("error: the checkpoint is another one\n")
    again = run_snakemake(tmp_path, *run, snakefile=tmp_path / "Snakefile")  # the user may have corrected it
    assert again.returncode != 0
    log = (tmp_path / "results/logs/wrong.log").read_text()
    assert (log.count("at work"), log.count(", process ")) == (1, 3)  # of this run alone


def test_too_many_failed_files_are_not_converted_again_by_a_retry(finished, tmp_path):
    work = tmp_path / "demo"
    (work / "weights").mkdir(parents=True)
    (work / "dicom").symlink_to(finished / "dicom")
    target = "results/mp4/256/p10.manifest.tsv"
    models = f"models_file: {finished.parent}/config/demo-models.yaml\n"
    done = run_demo(work, "--retries", "1", "--", target, change=models + "convert: {max_failed_fraction: 0}")
    assert done.returncode != 0
    assert done.stdout.count("p10: 1 of 5 clips failed, more than convert.max_failed_fraction (0) allows") == 2
    log = (work / "results/logs/convert/256/p10.log").read_text()
    assert log.count("p10: 6 files") == 1
    assert "attempt 2: not tried" in log
    corrected = run_demo(work, "--retries", "1", "--", target, change=models)
    assert corrected.returncode == 0, corrected.stdout
    assert "error: " not in (work / "results/logs/convert/256/p10.log").read_text()


def run(directory, slurm_job, words, before=""):
    """A job that prints `words`; Snakemake has deleted its log."""
    (directory / "results/logs/x.log").unlink(missing_ok=True)
    program = f"{before}\nfrom echo_embeddings.core import job\nwith job.logged('results/logs/x.log'): print({words!r})"
    known = environment() | ({"SLURM_JOB_ID": slurm_job} if slurm_job else {})
    subprocess.run([sys.executable, "-c", program], cwd=directory, env=known, check=True)
    return (directory / "results/logs/x.log").read_text()


def test_a_job_that_slurm_starts_again_keeps_its_log_and_another_one_does_not(tmp_path):
    """SLURM preempts a job and starts it again under its number, of which Snakemake counts no attempt."""
    run(tmp_path, "17", "first")
    log = run(tmp_path, "17", "second")
    assert [line for line in log.splitlines() if line in ("first", "second")] == ["first", "second"]
    assert "second" not in run(tmp_path, "170", "third")
    assert "third" not in run(tmp_path, None, "fourth")


def test_a_file_system_without_hard_links_does_with_a_symbolic_one(tmp_path):
    refuse = "import os\ndef refuse(*_): raise PermissionError(1, 'Operation not permitted')\nos.link = refuse"
    assert run(tmp_path, "17", "first", refuse).splitlines()[-1] == "first"
    assert (tmp_path / "results/logs/x.log").is_symlink()
    assert "first\n" in run(tmp_path, "17", "second", refuse)


COMPILES = """
import torch
from echo_embeddings.core import job

with job.logged("results/logs/x.log"):
    print(torch.compile(lambda x: 2 * x)(torch.ones(1)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on a CPU needs g++")
def test_torch_compiles_although_a_job_s_script_is_hidden_from_workers(tmp_path):
    (tmp_path / "compiles.py").write_text(COMPILES)
    subprocess.run([sys.executable, "compiles.py"], cwd=tmp_path, env=environment(), check=True)
    assert "tensor([2.])" in (tmp_path / "results/logs/x.log").read_text()
