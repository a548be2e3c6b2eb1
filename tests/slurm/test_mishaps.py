"""What else befalls jobs: scancel, running out of time, SIGKILL; and Snakemake itself, killed while they run."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from one_node import (
    PATIENCE,
    SAVE_EVERY,
    attempts,
    check_line,
    cluster,
    equal,
    forget_vectors,
    output,
    process_of,
    record,
    run,
    run_here,
    running,
    said_of,
    saved,
    target,
    until,
    vectors,
    write_world,
)

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures(cluster.__name__)]

SHORT = {"p11": 40, "p12": 40, "p13": 40}  # clips a folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A directory in which the short folders were embedded without a cluster."""
    work = write_world(tmp_path_factory.mktemp("undisturbed"), SHORT)
    run_here(work, *map(target, SHORT))
    return work


@pytest.fixture
def work(undisturbed, tmp_path):
    """A copy of it with the MP4 trees and no embeddings."""
    shutil.copytree(undisturbed.parent / "config", tmp_path / "config")
    copy = shutil.copytree(undisturbed, tmp_path / "demo")
    forget_vectors(copy)
    return copy


def test_cancelled_timed_out_and_killed_jobs_are_tried_again_and_go_on(work, undisturbed):
    folders = list(SHORT)
    with running(work, "--", *map(target, folders)) as snakemake:
        untouched = set(folders)
        while untouched:
            assert snakemake.poll() is None, output(work)
            for folder in sorted(untouched):
                if saved(work, folder):
                    disturb(work, folder)
                    untouched.remove(folder)
            time.sleep(0.1)
        assert snakemake.wait(PATIENCE) == 0, output(work)
    ended = {folder: [job.state for job in attempts(work, folder)] for folder in folders}
    assert ended == {
        "p11": ["CANCELLED", "COMPLETED"],
        "p12": ["TIMEOUT", "COMPLETED"],
        "p13": ["FAILED", "COMPLETED"],
    }
    first, second = attempts(work, "p12")
    assert (first.minutes, second.minutes) == (1, 2 * attempts(work, "p11")[0].minutes)
    for folder in folders:
        assert SAVE_EVERY <= record(work, folder)["reused"] < SHORT[folder]
        assert equal(vectors(work, folder), vectors(undisturbed, folder))
    reasons = {
        "p11": r"slurmstepd.*: error: \*\*\* (STEP|JOB) .* CANCELLED AT .*",
        "p12": r"slurmstepd.*: error: \*\*\* (STEP|JOB) .* CANCELLED AT .* DUE TO TIME LIMIT .*",
        "p13": "died with <Signals.SIGKILL: 9>",
    }
    for folder, reason in reasons.items():
        (line,) = said_of(work, folder)
        check_line(work, line, attempts(work, folder)[0], reason)


def disturb(work, folder):
    """Cancel the job of p11, let that of p12 hang until its time runs out, kill the process of p13."""
    (job,) = attempts(work, folder)
    process = process_of(work, folder)
    if folder == "p11":
        subprocess.run(["scancel", job.number], check=True)
    elif folder == "p12":
        os.kill(process, signal.SIGSTOP)
        subprocess.run(["scontrol", "update", f"JobId={job.number}", "TimeLimit=1"], check=True)
    else:
        os.kill(process, signal.SIGKILL)


def test_snakemake_killed_while_a_job_runs(work, undisturbed):
    with running(work, "--", target("p11")) as snakemake:
        until(lambda: saved(work, "p11"), "p11 is under way")
        process = process_of(work, "p11")
        os.kill(process, signal.SIGSTOP)  # so that the job is at work below, whatever the speed of this machine
        snakemake.kill()
        snakemake.wait()
    (job,) = attempts(work, "p11")
    again = run(work, "--", target("p11"))
    assert again.returncode != 0
    assert "--unlock" in again.stdout
    assert run(work, "--unlock").returncode == 0
    again = run(work, "--", target("p11"))
    assert again.returncode != 0
    assert f"jobs of an earlier run are still in the queue: {job.number} (embed vit-tiny_p11)" in again.stdout
    assert f"scancel {job.number}" in again.stdout
    assert "Traceback" not in again.stdout
    assert [found.number for found in attempts(work, "p11")] == [job.number]
    os.kill(process, signal.SIGCONT)
    until(lambda: attempts(work, "p11")[0].state == "COMPLETED", "the job of the killed Snakemake has ended")
    assert equal(vectors(work, "p11"), vectors(undisturbed, "p11"))
    made = record(work, "p11")
    again = run(work, "--", target("p11"))
    assert again.returncode == 0, again.stdout
    # Whether Snakemake takes the file as it is or asks for it again: no clip is computed a second time.
    assert record(work, "p11") == made or record(work, "p11")["reused"] == SHORT["p11"]
    assert equal(vectors(work, "p11"), vectors(undisturbed, "p11"))
