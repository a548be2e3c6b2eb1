"""The files that jobs leave while they run, and the table that is read from them."""

import dataclasses
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from echo_embeddings.core import job, manifest, progress
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.progress import Progress
from echo_embeddings.tools import slurm, status
from testing.commands import call_command
from testing.processes import PATIENCE


def lines(tmp_path):
    return {line.stage: line for line in status.collect(Layout(tmp_path), ["p10"], {"m": 256})}


def state_of(tmp_path):
    state = tmp_path / "state/convert/256/p10"
    state.mkdir(parents=True, exist_ok=True)
    return state


def test_a_job_waits_runs_and_is_done(tmp_path):
    assert lines(tmp_path)["convert"].state == status.WAITING
    with Progress("p10", 10, "files", state=state_of(tmp_path), before=5) as told:
        while lines(tmp_path)["convert"].state != status.RUNNING:
            time.sleep(0.01)
        told.step(3, failed=1)
    line = lines(tmp_path)["convert"]  # it has still to write its manifest
    assert (line.state, line.done, line.total, line.failed) == (status.RUNNING, 8, 15, 1)
    rows = [manifest.Row("a", "a.mp4", manifest.CONVERTED, ""), manifest.Row("b", "", manifest.FAILED, "why")]
    manifest.write(tmp_path / "mp4/256/p10.manifest.tsv", rows)
    line = lines(tmp_path)["convert"]
    assert (line.state, line.done, line.total, line.failed) == (status.DONE, 2, 2, 1)


def test_a_job_that_stopped_says_why_and_a_killed_one_is_lost(tmp_path):
    state = state_of(tmp_path)
    log = tmp_path / "logs/convert/256/p10.log"
    log.parent.mkdir(parents=True)
    log.write_text("p10: 10 files\nTraceback\nerror: no room on disk\n")
    with pytest.raises(UserError), Progress("p10", 10, "files", state=state):
        raise UserError("no room on disk")
    line = lines(tmp_path)["convert"]
    assert (line.state, line.why) == (status.BROKEN, "no room on disk")
    assert "stopped: convert 256 p10: no room on disk" in status.table([line])
    log.write_text("p10: 10 files\n")
    with pytest.raises(SystemExit), Progress("p10", 10, "files", state=state):
        raise SystemExit(143)  # as SIGTERM does: preempted, cancelled or out of time
    assert lines(tmp_path)["convert"].state == status.LOST
    record = progress.read(state)
    for kind, age, expected in (
        ("running", 0, status.RUNNING),
        ("running", status.SILENT + 1, status.LOST),
        ("ended", 0, status.RUNNING),
        ("ended", status.SILENT + 1, status.WAITING),  # its output was taken away to make it again
    ):
        left = dataclasses.replace(record, state=kind, updated=time.time() - age)
        (state / progress.RECORD).write_text(json.dumps(dataclasses.asdict(left)))
        assert lines(tmp_path)["convert"].state == expected


def test_a_small_terminal_shows_what_is_in_trouble_or_at_work_first():
    every = [status.Line(f"p{i:03}", "convert", "256", status.DONE, 1, 1) for i in range(100)]
    every[60] = dataclasses.replace(every[60], state=status.RUNNING, where="a-node-of-a-very-long-name" * 3)
    every[70] = dataclasses.replace(every[70], state=status.BROKEN, why="the disk is full")
    shown = status.fitted(every, os.terminal_size((60, 10)), "12:00:00, every 5 s")
    assert len(shown) == 10
    assert max(map(len, shown)) == 60
    assert [row.split()[:4] for row in shown[1:6]] == [
        ["p000", "convert", "256", "done"],
        ["p001", "convert", "256", "done"],
        ["p002", "convert", "256", "done"],
        ["p060", "convert", "256", "running"],
        ["p070", "convert", "256", "stopped"],
    ]
    assert shown[6:] == [
        "... and 95 more: 95 done",
        "100 jobs: 98 done, 1 running, 1 stopped",
        "stopped: convert 256 p070: the disk is full",
        "12:00:00, every 5 s",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_watch_goes_on_through_an_error_and_leaves_the_terminal_as_it_was(tmp_path, terminal):
    """On a real terminal, and into a pipe."""
    (tmp_path / "resources/dicom/p10").mkdir(parents=True)
    clip = tmp_path / "resources/dicom/p10/a"
    clip.write_bytes(bytes(128) + b"DICM")
    ours, theirs = pty.openpty() if terminal else os.pipe()
    command = [sys.executable, "-m", "echo_embeddings.tools.cli", "status", "--directory", tmp_path, "--watch", "0.1"]
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.STDOUT)
    try:
        read_until(ours, "waiting")
        clip.rename(tmp_path / "away")
        read_until(ours, "cannot check just now: config: dicom_dir")
        (tmp_path / "away").rename(clip)
        read_until(ours, "Ctrl-C ends it")
        process.send_signal(signal.SIGINT)
        if terminal:
            assert "Traceback" not in read_until(ours, status.LEAVE)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


def read_until(descriptor, text):
    """What the other side writes, until it has written `text`."""
    found, deadline = "", time.monotonic() + PATIENCE
    while text not in found:
        ready = select.select([descriptor], [], [], deadline - time.monotonic())[0]
        assert ready and time.monotonic() < deadline, found
        found += os.read(descriptor, 65536).decode()
    return found


def test_the_record_is_kept_up_while_nothing_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "RECORD_EVERY", 0.01)
    with Progress("p10", 10, "files", state=tmp_path):
        while not (first := progress.read(tmp_path)):
            time.sleep(0.01)
        while progress.read(tmp_path).updated == first.updated:
            time.sleep(0.01)
    assert progress.read(tmp_path).state == "ended"


def test_vectors_done_are_counted_from_the_run_record(tmp_path):
    vectors = tmp_path / "embeddings/m_embeddings_p10.pt"
    vectors.parent.mkdir()
    vectors.touch()
    with pytest.raises(UserError, match=r"has no m_embeddings_p10\.json beside it; delete it and run again"):
        lines(tmp_path)
    vectors.with_suffix(".json").write_text(json.dumps({"counts": {"converted": 7, "failed": 2}}))
    line = lines(tmp_path)["embed"]
    assert (line.state, line.done, line.failed) == (status.DONE, 7, 2)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path):
    result = call_command("status", "--directory", tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("echo-embeddings: config: dicom_dir: no directory 'resources/dicom' in ")
    assert result.stderr.count("\n") == 1


def test_a_job_that_slurm_refuses_is_told_in_one_line():
    message = "SLURM sbatch failed. The error message was 'sbatch: error: a\nsbatch: error: b'.\n    sbatch call: x"
    line = slurm.failure_line(None, message, ["results/logs/embed/vitl/p10.log"])
    assert line.startswith("embed vitl p10: SLURM takes no such job: sbatch: error: a sbatch: error: b; change ")
    assert slurm.refusal("Error in rule embed") is None


@pytest.mark.parametrize(
    ("own", "of_slurm", "expected"),
    [
        ("Traceback\nerror: the disk is full\n", "srun: error: exit 1\n", "the disk is full"),
        (
            "p10: 3 of 9 clips\n",
            "x\nslurmstepd-a: error: *** JOB 5 ON a CANCELLED AT b DUE TO TIME LIMIT ***\ny\n",
            "slurmstepd-a: error: *** JOB 5 ON a CANCELLED AT b DUE TO TIME LIMIT ***",
        ),
        (
            "p10: 3 of 9 clips\n",
            "slurmstepd: error: Step 7.0 exceeded memory limit (9 > 8), being killed\ny\n",
            "slurmstepd: error: Step 7.0 exceeded memory limit (9 > 8), being killed",
        ),
        ("p10: 3 of 9 clips\n", "nothing\n", "p10: 3 of 9 clips"),
        (None, None, "it left no log"),
    ],
)
def test_the_line_that_matters_is_found(tmp_path, own, of_slurm, expected):
    for name, text in (("own", own), ("slurm", of_slurm)):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert job.last_words(str(tmp_path / "own"), str(tmp_path / "slurm")) == expected


def test_no_slurm_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="SLURM: there is none here"):
        slurm.check(tmp_path)
