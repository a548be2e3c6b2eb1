"""The whole workflow as users run it: the demo, its results and pages, and what it says."""

import html.parser
import json
import re
import shutil
from typing import ClassVar

import pandas as pd
import pytest
import torch

from testing import REPOSITORY
from testing.commands import (
    ALL_AFTER_MERGE,
    SNAKEMAKE,
    forking,
    pending,
    run_command,
    run_demo,
    run_module,
    run_snakemake,
)


def test_runs_are_forked_in_the_environment_of_now(tmp_path, monkeypatch):
    """Else each of these tests would import Snakemake anew, which takes four times as long as a dry run."""
    (tmp_path / "tell.py").write_text("import os; print(os.environ['TOLD'], os.getppid())")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOLD", "now")
    assert run_module("tell", imported=SNAKEMAKE).stdout == f"now {forking(*SNAKEMAKE).pid}\n"


def test_the_linter_and_the_catalog_take_the_workflow(finished, tmp_path):
    files = ("--configfile", str(REPOSITORY / "config/demo.yaml"))
    linted = run_snakemake(finished, "--lint", *files)
    assert linted.returncode == 0, linted.stdout
    shutil.copytree(REPOSITORY / ".test", tmp_path / "test")
    drawn = run_snakemake(tmp_path / "test", "--cores", "1", "--forceall", "--rulegraph")
    assert drawn.returncode == 0, drawn.stdout
    found = re.findall(r'label = "(\w+)"', drawn.stdout)
    assert {"convert", "embed", "merge", "qc_model", "qc_index", "all"} <= set(found)


def test_counts_add_up_from_dicom_to_report(finished):
    results = finished / "results"
    tables = [pd.read_csv(results / f"mp4/256/{f}.manifest.tsv", sep="\t") for f in ("p10", "p11")]
    table = pd.concat(tables)
    dicom = [p for p in (finished / "dicom").rglob("*/*") if p.is_file()]
    assert len(table) == len(dicom) == 11
    assert table.status.value_counts().to_dict() == {"converted": 8, "skipped": 2, "failed": 1}
    assert table[table.status != "converted"].reason.notna().all()
    merged = torch.load(results / "embeddings/vit-tiny_embeddings_all.pt")
    assert set(merged) == set(table.mp4.dropna())
    assert all(v.shape == (192,) and v.dtype == torch.float32 for v in merged.values())
    for folder in ("p10", "p11"):
        part = torch.load(results / f"embeddings/vit-tiny_embeddings_{folder}.pt")
        assert list(part) == sorted(part)
        assert all(torch.equal(vector, merged[key]) for key, vector in part.items())
    numbers = json.loads((results / "qc/vit-tiny.json").read_text())
    assert (numbers["vectors"], numbers["dim"]) == (8, 192)


def test_the_pages_are_whole_and_say_that_the_vectors_mean_nothing(finished):
    page = (finished / "results/qc/vit-tiny.html").read_text()
    assert "drawn at random from seed 0: the vectors mean nothing" in page
    assert "the file ends within a frame" in page

    class Links(html.parser.HTMLParser):
        found: ClassVar[list[str]] = []

        def handle_starttag(self, tag, attributes):
            self.found += [value for name, value in attributes if name in ("src", "href") and value]

    Links().feed(page)
    files = [link for link in Links.found if not link.startswith(("#", "data:"))]
    assert {"index.html", "vit-tiny.json", "../mp4/256/p10.manifest.tsv"} <= set(files)
    assert all((finished / "results/qc" / link).is_file() for link in files)
    assert 'href="vit-tiny.html"' in (finished / "results/qc/index.html").read_text()


def test_features_of_one_clip_are_made_said_and_read_as_the_page_tells(work):
    """As below, of the clip of 30 frames alone."""
    tokens = "embed: {pool: tokens}\nselect: frames == 30\n"
    vectors = "results/embeddings/vit-tiny_embeddings_p10.pt"
    before = torch.load(work / vectors)
    index = "results/features/tokens/vit-tiny/p10.index.tsv"
    result = run_demo(work, "--", vectors, index, change=tokens)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("features of at most") == 1
    ((key, vector),) = torch.load(work / vectors).items()
    assert torch.equal(vector, before[key])
    the_page_reads_the_tokens_of(work, before)
    (work / index).unlink()
    assert pending(work, "--", vectors, index, change=tokens) == {"embed vit-tiny p10"}


def the_page_reads_the_tokens_of(work, vectors):
    page = (REPOSITORY / "docs/features.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = code.replace('"results/', f'"{work}/results/').replace("vitl", "vit-tiny")
    read = {}
    exec(code, read)
    assert (read["tokens"].dtype, read["tokens"].shape) == (torch.float16, (1, 8, 256, 192))
    vector = vectors[read["index"].key[0]]
    assert (read["tokens"].float().mean(dim=(0, 1, 2)) - vector).norm() < 1e-5 * vector.norm()


@pytest.mark.slow
def test_features_are_made_said_and_read_as_the_page_tells(work):
    """Tokens asked for after a run: every clip once more, the vectors as they were, nothing pending either way."""
    before = torch.load(work / "results/embeddings/vit-tiny_embeddings_all.pt")
    tokens = "embed: {pool: tokens}"
    planned = run_demo(work, "-n", change=tokens).stdout
    assert "features of at most 11 clips take about 8.65 MB in results/features/tokens (vit-tiny 8.65 MB); " in planned
    assert pending(work, change=tokens) == {"embed vit-tiny p10", "embed vit-tiny p11", *ALL_AFTER_MERGE}
    merged = "results/embeddings/vit-tiny_embeddings_all.pt"
    indices = [f"results/features/tokens/vit-tiny/{folder}.index.tsv" for folder in ("p10", "p11")]
    result = run_demo(work, "--", merged, *indices, change=tokens)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("features of at most") == 1  # not once more for each job
    assert pending(work, change=tokens) == pending(work) == set()
    after = torch.load(work / merged)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], vector) for key, vector in before.items())
    the_page_reads_the_tokens_of(work, before)
    (work / "results/features/tokens/vit-tiny/p11.index.tsv").unlink()
    assert "embed vit-tiny p11" in pending(work, change=tokens)


def test_a_job_that_fails_says_why_in_one_line(work):
    for path in (work / "results/mp4/256/p10").rglob("*.mp4"):
        path.write_bytes(b"not a video")
    (work / "results/embeddings/vit-tiny_embeddings_p10.pt").unlink()
    result = run_demo(work, "--", "results/embeddings/vit-tiny_embeddings_p10.pt")
    assert result.returncode != 0
    assert "p10: 4 of 4 clips have no vector, more than embed.max_failed_fraction (0.05) allows" in result.stdout
    assert "[log: results/logs/embed/vit-tiny/p10.log]" in result.stdout
    assert "Traceback" not in result.stdout
    assert (work / "results/embeddings/vit-tiny_embeddings_p10.failed.tsv").read_text().count("\n") == 5


def test_parsing_imports_neither_torch_nor_pydicom(finished, monkeypatch):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", run_demo(finished, "-n").stdout, re.MULTILINE))
    assert "echo_embeddings.collection" in imported
    assert not {"torch", "pydicom", "cv2", "imagecodecs"} & imported


def test_status_tells_of_a_finished_run(finished):
    result = run_command("status", "--directory", finished, "--configfile", REPOSITORY / "config/demo.yaml")
    assert result.returncode == 0, result.stderr
    assert "4 jobs: 4 done" in result.stdout
    assert re.search(r"^p10 +convert +256 +done +6 +6 +1 ", result.stdout, re.MULTILINE)
    assert re.search(r"^p11 +embed +vit-tiny +done +4 +4 +0 ", result.stdout, re.MULTILINE)
