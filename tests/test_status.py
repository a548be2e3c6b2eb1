"""The files that jobs leave while they run, and the table that is read from them."""

import dataclasses
import json
import subprocess
import sys
import time

import pytest

from conftest import REPOSITORY
from echo_embeddings import job, manifest, progress, slurm, status
from echo_embeddings.files import UserError
from echo_embeddings.progress import Progress

REGISTRY = {"m": {"resolution": 256}}


def lines(tmp_path):
    return {line.stage: line for line in status.collect(tmp_path, ["p10"], ["m"], REGISTRY)}


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


def test_a_killed_job_and_a_broken_one_are_told_from_a_running_one(tmp_path):
    state = state_of(tmp_path)
    with pytest.raises(UserError), Progress("p10", 10, "files", state=state):
        raise UserError("stopped")
    assert lines(tmp_path)["convert"].state == status.BROKEN
    record = progress.read(state)
    for age, expected in ((0, status.RUNNING), (status.SILENT + 1, status.LOST)):
        left = dataclasses.replace(record, state="running", updated=time.time() - age)
        (state / progress.RECORD).write_text(json.dumps(dataclasses.asdict(left)))
        assert lines(tmp_path)["convert"].state == expected
    assert "lost: no sign for 120 s" in status.table(lines(tmp_path).values())


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
    command = [sys.executable, REPOSITORY / "workflow/scripts/status.py", "--directory", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("config: dicom_dir: no directory 'resources/dicom' in ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("own", "of_slurm", "expected"),
    [
        ("Traceback\nerror: the disk is full\n", "srun: error: exit 1\n", "the disk is full"),
        (
            "p10: 3 of 9 clips\n",
            "x\nslurmstepd-a: error: *** JOB 5 ON a CANCELLED AT b DUE TO TIME LIMIT ***\ny\n",
            "slurmstepd-a: error: *** JOB 5 ON a CANCELLED AT b DUE TO TIME LIMIT ***",
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
