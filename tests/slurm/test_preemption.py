"""A job of a higher partition takes the node from an embedding job."""

import os
import signal
import subprocess

import pytest
from one_node import (
    PATIENCE,
    SAVE_EVERY,
    attempts,
    cluster,
    done,
    equal,
    forget_vectors,
    output,
    process_of,
    record,
    run_here,
    running,
    target,
    until,
    vectors,
    write_world,
)

from echo_embeddings.core import progress

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures(cluster.__name__)]

LONG = {"p10": 64}  # clips a folder
BEFORE = 24  # of them, until it is preempted


def test_a_preempted_job_goes_on_where_it_was(tmp_path):
    work = write_world(tmp_path, LONG)
    run_here(work, "results/mp4/256/p10.manifest.tsv")
    clips = LONG["p10"]
    with running(work, "--", target("p10")) as snakemake:
        until(lambda: done(work, "p10") >= BEFORE, f"{BEFORE} clips are done")
        # So that it is at work below, whatever the speed of this machine; SLURM wakes what it ends.
        os.kill(process_of(work, "p10"), signal.SIGSTOP)
        higher = ["sbatch", "--parsable", "-p", "mit_normal", "-c", "64", "-o", "/dev/null", "--wrap", "sleep 5"]
        subprocess.run(higher, check=True, stdout=subprocess.DEVNULL)
        until(lambda: attempts(work, "p10")[0].restarts, "the job is requeued")
        # Its last word before it starts again, a quarter of a minute later: how many clips it had computed.
        told = until(lambda: stopped(work, "p10"), "the job has stopped")
        assert snakemake.wait(PATIENCE) == 0, output(work)
    (job,) = attempts(work, "p10")  # one job, requeued by SLURM, not a second one by Snakemake
    assert (job.state, job.restarts) == ("COMPLETED", 1)
    counts = record(work, "p10")
    assert BEFORE - SAVE_EVERY <= counts["reused"] < clips
    assert told - counts["reused"] <= SAVE_EVERY
    disturbed = vectors(work, "p10")
    forget_vectors(work)
    run_here(work, target("p10"))
    counts = record(work, "p10")
    assert (counts["reused"], counts["embedded"]) == (0, clips)
    assert equal(disturbed, vectors(work, "p10"))


def stopped(work, folder):
    """How many clips the folder's job had done when it was stopped, None until then."""
    found = progress.read(work / "results/state/embed/vit-tiny" / folder)
    return found.done if found and found.state == "broken" else None
