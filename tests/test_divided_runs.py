"""A collection of many patients' folders, divided into a few units, as the workflow runs it."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from echo_embeddings.core.layout import Layout
from testing import REPOSITORY
from testing.commands import environment, run_snakemake
from testing.processes import until
from testing.units import KINDS, collection_of, vectors_of, write_clips
from testing.units import run as run_jobs

ROW_BYTES = 650  # of a journal, about
MERGED = "results/embeddings/tiny_embeddings_all.pt"


def configure(work, weights, **keys):
    """A working directory for the collection beside it."""
    work.mkdir()
    config = {
        "dicom_dir": "../dicom", "checkpoints": {"tiny": str(weights)},
        "models": ["tiny"], "models_file": "models.yaml",
        "convert": {"workers": 2}, "embed": {"device": "cpu", "num_workers": 0, "precision": "fp32", "save_every": 20},
    }  # fmt: skip
    model = {"constructor": "vit_tiny", "resolution": 32, "embed_dim": 192, "batch_size": 16, "entry": "encoder"}
    (work / "config").mkdir()
    (work / "config/config.yaml").write_text(yaml.safe_dump(config | keys))
    (work / "models.yaml").write_text(yaml.safe_dump({"tiny": model | {"checkpoint": "tiny.pt"}}))


def start(work, *arguments):
    command = [sys.executable, "-m", "snakemake", "-s", REPOSITORY / "workflow/Snakefile", "-d", work, "--cores", "2"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*command, *arguments], start_new_session=True, env=environment(), **quiet)


def run(work, *arguments):
    done = run_snakemake(work, "--cores", "2", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def done(work):
    """How much a run has behind it, about: files converted, and shards of vectors."""
    journals = work.glob("results/state/convert/32/buckets/*/rows.jsonl")
    shards = work.glob("results/state/embed/tiny/buckets/*/*.pt")
    return sum(path.stat().st_size for path in journals) // ROW_BYTES + 10 * len(list(shards))


@pytest.mark.parametrize(
    ("patients", "units", "kills"), [(120, 2, 2), pytest.param(10_000, 16, 4, marks=pytest.mark.slow)]
)
def test_many_patients_folders_killed_on_the_way(tmp_path, tiny_weights, patients, units, kills):
    names = [f"pat{i:05}/s1/IM_0001" for i in range(patients)]
    write_clips(tmp_path / "dicom", names)
    write_clips(tmp_path / "kinds", [str(i) for i in range(KINDS)])  # all that there are, undisturbed
    kinds = collection_of(dicom_dir=str(tmp_path / "kinds"), units=1)
    run_jobs(kinds, tiny_weights, Layout(tmp_path / "undisturbed"))
    expected = vectors_of(kinds, Layout(tmp_path / "undisturbed"))
    work = tmp_path / "killed"
    configure(work, tiny_weights, units=units)
    draw, behind = random.Random(0), 0
    for _ in range(kills):
        # A kill between a job's output and Snakemake's note of it leaves that output incomplete.
        process = start(work, "--rerun-incomplete", MERGED)
        until(lambda least=behind + patients // 4: done(work) >= least, process, pause=0.1)
        time.sleep(draw.uniform(0, 0.3))
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert done(work) >= behind
        behind = min(done(work), patients // 2)
        run(work, "--unlock")
    run(work, "--rerun-incomplete", MERGED)
    found = torch.load(work / MERGED)
    assert sorted(found) == [f"{name}.mp4" for name in names]
    # Another number of clips in a batch may change the last bits.
    for i, name in enumerate(names):
        assert torch.allclose(found[f"{name}.mp4"], expected[f"{i % KINDS}.mp4"], rtol=0, atol=1e-5), name
    assert not torch.allclose(expected["0.mp4"], expected["1.mp4"], rtol=0, atol=1e-3)
    assert "Nothing to be done" in run(work, "-n", MERGED)
    write_clips(tmp_path / "dicom", ["a new patient/s1/IM_0001"])
    said = run(work, "-n", MERGED)
    assert said.count("\nrule convert:") == said.count("\nrule embed:") == said.count("\nrule merge:") == 1


def test_a_unit_is_a_target_and_what_is_none_is_one_line(tmp_path, tiny_weights):
    write_clips(tmp_path / "dicom", [f"pat{i}/IM_0001" for i in range(4)])
    work = tmp_path / "work"
    configure(work, tiny_weights, units=4)
    assert "\nrule embed:" in run(work, "-n", "results/embeddings/tiny_embeddings_u003.pt")
    done = run_snakemake(work, "-n", "results/mp4/32/u004.manifest.tsv")
    assert done.returncode
    assert "unit 'u004': there is none; config: units: 4 makes u000 to u003" in done.stdout
    done = run_snakemake(work, "-n", "--config", "merge={prefix_folder: true}")
    assert "config: merge.prefix_folder: keys begin with the folder where units is a number" in done.stdout
