"""The whole workflow as users run it: the demo, what is pending and when, wrong configurations."""

import dataclasses
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pydicom
import pytest
import torch
import yaml

from conftest import REPOSITORY, run_command, run_demo, run_snakemake
from echo_embeddings.core import manifest


def pending(directory, *arguments, **options) -> set[str]:
    """The jobs of a dry run, as `rule folder` or `rule model` and so on; `options` are those of `run_demo`."""
    result = run_demo(directory, "-n", *arguments, **options)
    assert result.returncode == 0, result.stdout
    jobs = set()
    for rule, block in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", result.stdout, re.MULTILINE):
        wildcards = re.search(r"wildcards: (.*)", block)
        values = [pair.split("=")[1] for pair in wildcards[1].split(", ")] if wildcards else []
        jobs.add(" ".join([rule, *values]))
    if not jobs:
        assert "Nothing to be done" in result.stdout
    return jobs


ALL_AFTER_MERGE = {"merge vit-tiny", "qc_model vit-tiny", "qc_index", "all"}


@pytest.fixture
def work(finished, tmp_path):
    """A copy of it to change."""
    shutil.copytree(finished.parent / "config", tmp_path / "config")
    return shutil.copytree(finished, tmp_path / "demo", symlinks=True)


def test_everything_is_pending_before_the_first_run(finished, tmp_path):
    shutil.copytree(finished.parent / "config", tmp_path / "config")
    for name in ("dicom", "weights"):
        shutil.copytree(finished / name, tmp_path / "demo" / name)
    assert pending(tmp_path / "demo") == {
        *("convert 256 p10", "convert 256 p11", "embed vit-tiny p10", "embed vit-tiny p11"),
        *ALL_AFTER_MERGE,
    }


def test_a_configuration_in_the_working_directory_is_laid_over_the_defaults(finished, tmp_path):
    (tmp_path / "config").mkdir()
    own = {"dicom_dir": str(finished / "dicom"), "weights_dir": str(finished / "weights"), "models": ["vit-tiny"]}
    own |= {"models_file": str(REPOSITORY / "config/demo-models.yaml"), "embed": {"device": "cpu"}, "limit": 1}
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump(own))
    listed = run_snakemake(tmp_path, "-n", "--quiet", "rules")
    assert listed.returncode == 0, listed.stdout
    assert "embed " in listed.stdout
    wrong = run_snakemake(tmp_path, "-n", "--config", "embed={device: gpu}", "limit=2")
    assert "config: embed.device: 'gpu' is not one of ['cuda', 'cpu']" in wrong.stdout


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


def test_nothing_is_pending_after_a_run(finished):
    assert pending(finished) == set()


def test_a_new_dicom_deep_in_a_folder_makes_that_folders_jobs_pending(work):
    source = work / "dicom/p11/p11000001/s90000004/90000004_0003.dcm"
    dataset = pydicom.dcmread(source)
    dataset.save_as(source.with_name("90000004_0009.dcm"))
    expected = {"convert 256 p11", "embed vit-tiny p11", *ALL_AFTER_MERGE}
    assert pending(work) == expected
    untouched = (work / "results/embeddings/vit-tiny_embeddings_p10.pt").stat().st_mtime_ns
    assert run_demo(work).returncode == 0
    assert pending(work) == set()
    assert len(torch.load(work / "results/embeddings/vit-tiny_embeddings_all.pt")) == 9
    assert (work / "results/embeddings/vit-tiny_embeddings_p10.pt").stat().st_mtime_ns == untouched
    source.with_name("90000004_0009.dcm").unlink()
    assert pending(work) == expected
    assert run_demo(work).returncode == 0
    assert pending(work) == set()
    assert len(torch.load(work / "results/embeddings/vit-tiny_embeddings_all.pt")) == 8
    assert not (work / "results/mp4/256/p11/p11000001/s90000004/90000004_0009.mp4").exists()


def test_a_table_that_stays_the_same_computes_no_vector(work):
    """Files that come and go between two runs: the folder is converted again, and nothing is computed twice."""
    digest = work / "results/mp4/256/p10.manifest.sha256"
    os.utime(digest)
    os.utime(digest.with_suffix(".tsv"))
    assert pending(work) == set()
    folder = work / "dicom/p10/p10000001"
    (folder / "x").mkdir()
    (folder / "x").rmdir()
    content, mp4 = digest.read_text(), mp4_times(work)
    assert "convert 256 p10" in pending(work)
    assert run_demo(work).returncode == 0
    assert (digest.read_text(), mp4_times(work)) == (content, mp4)
    record = json.loads((work / "results/embeddings/vit-tiny_embeddings_p10.json").read_text())
    assert record["counts"]["reused"] == record["counts"]["embedded"] == 4
    assert pending(work) == set()


def mp4_times(work):
    return {path: path.stat().st_mtime_ns for path in (work / "results/mp4").rglob("*.mp4")}


def test_a_changed_parameter_and_checkpoint_make_their_jobs_pending(work):
    embed = {"embed vit-tiny p10", "embed vit-tiny p11", *ALL_AFTER_MERGE}
    assert pending(work, change="embed: {num_frames: 8}") == embed
    assert pending(work, change="convert: {quality: 9}") == {"convert 256 p10", "convert 256 p11", *embed}
    assert pending(work, change="limit: 1") == {"convert 256 p10", "convert 256 p11", *embed}
    assert pending(work, change="embed: {batch_size: 2, save_every: 5, num_workers: 0}") == set()
    weights = work / "weights/vit-tiny.pt"
    content = torch.load(weights)
    content["encoder"]["module.backbone.norm.bias"] += 1
    torch.save(content, weights)
    assert pending(work) == embed


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("QC_VERSION", {"qc_model vit-tiny", "qc_index", "all"}),
        ("EMBED_VERSION", {"embed vit-tiny p10", "embed vit-tiny p11", *ALL_AFTER_MERGE}),
    ],
)
def test_a_raised_version_makes_its_stage_pending(finished, tmp_path, monkeypatch, version, expected):
    for name in ("workflow", "config"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "workflow/scripts"))
    settings = tmp_path / "workflow/scripts/echo_embeddings/core/settings.py"
    settings.write_text(settings.read_text().replace(f"{version} = ", f"{version} = 1 + "))
    assert pending(finished, snakefile=tmp_path / "workflow/Snakefile") == expected


def test_features_are_made_said_and_read_as_the_page_tells(work):
    """Tokens asked for after a run: every clip once more, the vectors as they were, nothing pending either way."""
    before = torch.load(work / "results/embeddings/vit-tiny_embeddings_all.pt")
    tokens = "embed: {pool: tokens}"
    planned = run_demo(work, "-n", change=tokens).stdout
    assert "features of at most 11 clips take about 8.65 MB in results/features/tokens (vit-tiny 8.65 MB); " in planned
    assert pending(work, change=tokens) == {"embed vit-tiny p10", "embed vit-tiny p11", *ALL_AFTER_MERGE}
    result = run_demo(work, change=tokens)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("features of at most") == 1  # not once more for each job
    assert pending(work, change=tokens) == pending(work) == set()
    after = torch.load(work / "results/embeddings/vit-tiny_embeddings_all.pt")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], vector) for key, vector in before.items())
    page = (REPOSITORY / "docs/features.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = code.replace('"results/', f'"{work}/results/').replace("vitl", "vit-tiny")
    read = {}
    exec(code, read)
    assert (read["tokens"].dtype, read["tokens"].shape) == (torch.float16, (1, 8, 256, 192))
    vector = before[read["index"].key[0]]
    assert (read["tokens"].float().mean(dim=(0, 1, 2)) - vector).norm() < 1e-5 * vector.norm()
    (work / "results/features/tokens/vit-tiny/p11.index.tsv").unlink()
    assert "embed vit-tiny p11" in pending(work, change=tokens)


def test_one_model_by_target_and_targets_that_cannot_be(work):
    target = "results/embeddings/vit-tiny_embeddings_p10.pt"
    (work / target).unlink()
    assert pending(work, "--", target) == {"embed vit-tiny p10"}
    wrong = run_demo(work, "-n", "--", "results/embeddings/vit-tiny_embeddings_p99.pt")
    assert wrong.returncode != 0
    assert "folder 'p99': there is none in dicom_dir 'dicom'" in wrong.stdout
    assert "Traceback" not in wrong.stdout


def test_folders_can_be_chosen_and_a_missing_one_is_named(work):
    assert pending(work, change="folders: [p11]") == ALL_AFTER_MERGE
    result = run_demo(work, "-n", change="folders: [p11, p77]")
    assert result.returncode != 0
    assert "folder 'p77': there is none in dicom_dir 'dicom'" in result.stdout


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "{limti: 3, dicom_dir: nowhere, models: [vitz], embed: {precision: fp16}}",
            [
                "config: unknown key 'limti'; did you mean 'limit'?",
                "config: embed.precision: 'fp16' is not one of ['bf16', 'fp32']",
                "config: models.0: 'vitz' is not in",
                "config: dicom_dir: no directory 'nowhere' in",
            ],
        ),
        ("weights_dir: elsewhere", ["model vit-tiny: no checkpoint elsewhere/vit-tiny.pt"]),
    ],
)
def test_wrong_configurations_stop_with_their_lines(finished, text, lines):
    result = run_demo(finished, "-n", change=text)
    assert result.returncode != 0
    assert "Traceback" not in result.stdout
    for line in lines:
        assert line in result.stdout
    said = [line for line in result.stdout.splitlines() if not line.startswith("Config file ")]
    assert sum(line.startswith(("config:", "model ")) for line in said) == len(lines)


def test_a_key_that_stands_twice_stops_with_one_line(finished, tmp_path):
    (tmp_path / "my.yaml").write_text("limit: 5\nlimit: 0\n")
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        REPOSITORY / "workflow/Snakefile",
        "--directory",
        finished,
        "-n",
    ]
    files = [REPOSITORY / "config/demo.yaml", tmp_path / "my.yaml"]
    done = subprocess.run([*command, "--configfile", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        f"config: {tmp_path}/my.yaml is not YAML: line 2: 'limit' stands in line 1 already" in done.stdout + done.stderr
    )


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


def test_a_real_run_with_the_slurm_profile_and_without_slurm_stops_with_one_line(work, without_slurm):
    files = ["--configfile", str(REPOSITORY / "config/demo.yaml")]
    result = run_snakemake(work, *files, "--forceall", *SLURM_PROFILE)
    assert result.returncode == 1
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("SLURM: there is none here (no sbatch in PATH)")
    assert "Traceback" not in result.stdout
    assert (work / "results/embeddings/vit-tiny_embeddings_all.pt").is_file()
    assert pending(work) == set()


def test_resources_that_change_make_no_job_pending(work):
    """They follow from the number of files and from settings that say how the work is done."""
    assert pending(work, change="embed: {num_workers: 3, batch_size: 1}") == set()


def test_status_tells_of_a_finished_run(finished):
    result = run_command("status", "--directory", finished, "--configfile", REPOSITORY / "config/demo.yaml")
    assert result.returncode == 0, result.stderr
    assert "4 jobs: 4 done" in result.stdout
    assert re.search(r"^p10 +convert +256 +done +6 +6 +1 ", result.stdout, re.MULTILINE)
    assert re.search(r"^p11 +embed +vit-tiny +done +4 +4 +0 ", result.stdout, re.MULTILINE)


def test_a_large_table_that_stays_the_same_makes_no_gpu_job_pending(work):
    """50,000 rows are 10 MB, beyond what Snakemake compares by content: its digest is what `embed` depends on."""
    table = work / "results/mp4/256/p10.manifest.tsv"
    rows = manifest.read(table)
    extra = [dataclasses.replace(rows[2], path=f"p10000009/s{i:08d}/still_of_a_study.dcm") for i in range(50_000)]
    manifest.write(table, [*rows, *extra])
    manifest.write_digest(table, table.with_suffix(".sha256"))
    assert table.stat().st_size > 5_000_000
    embed = "results/embeddings/vit-tiny_embeddings_p10.pt"
    assert pending(work, "--", embed) == {"embed vit-tiny p10"}
    assert run_demo(work, "--", embed).returncode == 0
    manifest.write(table, [*extra, *rows])
    manifest.write_digest(table, table.with_suffix(".sha256"))
    assert pending(work) == {"qc_model vit-tiny", "qc_index", "all"}


TABLES = """
record_list: record.csv
tables: [{file: views.csv, by: path, key: video}]
select: "frames >= 16 and view in ['A4C', 'PLAX']"
"""


@pytest.fixture
def listed(work):
    """A record list of the demo's files but one, and of one that is not there; a table of views."""
    names = sorted(path.relative_to(work / "dicom").as_posix() for path in (work / "dicom").rglob("*.dcm"))
    names = [*names[1:], "p10/p10000001/s90000001/90000001_0099.dcm"]
    (work / "record.csv").write_text("dicom_filepath\n" + "".join(f"files/{name}\n" for name in names))
    keys = list(torch.load(work / "results/embeddings/vit-tiny_embeddings_all.pt"))
    lines = [f"{key},{'PLAX' if i % 2 else 'A2C'}\n" for i, key in enumerate(keys)]
    (work / "views.csv").write_text("video,view\n" + "".join(lines))
    return work


def test_a_selection_makes_its_jobs_pending_computes_nothing_twice_and_can_be_taken_back(listed):
    embed = {"embed vit-tiny p10", "embed vit-tiny p11", *ALL_AFTER_MERGE}
    before = torch.load(listed / "results/embeddings/vit-tiny_embeddings_all.pt")
    assert pending(listed, change="record_list: record.csv") == {
        "check_record_list", "qc_model vit-tiny", "qc_index", "all"
    }  # fmt: skip
    assert pending(listed, change=TABLES) == {*embed, "check_record_list"}
    targets = ["export", "export_studies", "export_matrices", "all"]
    done = run_demo(listed, *targets, change=TABLES)
    assert done.returncode == 0, done.stdout
    assert pending(listed, *targets, change=TABLES) == set()
    results = listed / "results"
    chosen = torch.load(results / "embeddings/vit-tiny_embeddings_all.pt")
    assert 0 < len(chosen) < len(before)
    assert all(torch.equal(vector, before[key]) for key, vector in chosen.items())
    records = [results / f"embeddings/vit-tiny_embeddings_{folder}.json" for folder in ("p10", "p11")]
    counts = [json.loads(record.read_text())["counts"] for record in records]
    assert all(c["embedded"] == c["reused"] and c["embedded"] + c["left_out"] == c["converted"] == 4 for c in counts)
    table = pd.concat(map(pd.read_parquet, sorted((results / "parquet/vit-tiny").glob("*.parquet"))))
    assert table.file_path.tolist() == list(chosen)
    card = (results / "parquet/vit-tiny/README.md").read_text()
    assert f"it leaves out {8 - len(chosen)} clips" in card
    assert pd.read_parquet(results / "study/vit-tiny.parquet").n_clips.sum() == len(chosen)
    assert len(pd.read_csv(results / "embeddings/vit-tiny_embeddings_all.keys.tsv", sep="\t")) == len(chosen)
    accounting = json.loads((results / "qc/vit-tiny.json").read_text())["accounting"]["folders"][-1]
    assert (accounting["left_out"], accounting["embedded"]) == (8 - len(chosen), len(chosen))
    assert (accounting["listed"], accounting["listed_unseen"], accounting["seen_unlisted"]) == (11, 1, 1)

    os.utime(listed / "record.csv")
    text = (listed / "views.csv").read_text()
    (listed / "views.csv").write_text(text + "nowhere,A4C\n")
    after_views = {*embed, "export_parquet vit-tiny", "export_study vit-tiny", "export_matrix vit-tiny", *targets}
    assert pending(listed, *targets, change=TABLES) == after_views
    by_manifest = TABLES.replace(" and view in ['A4C', 'PLAX']", "")
    assert pending(listed, change=by_manifest) == embed
    assert run_demo(listed, change="record_list: record.csv").returncode == 0
    after = torch.load(results / "embeddings/vit-tiny_embeddings_all.pt")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], vector) for key, vector in before.items())


def test_an_incomplete_collection_stops_before_the_merge(listed):
    result = run_demo(listed, "--keep-going", "--forcerun", "merge", change=TABLES + "require_complete: true")
    assert result.returncode != 0
    assert "record.csv lists 11 files: 1 of them are not on the disk, 1 files of the disk are not" in result.stdout
    assert "their names stand in results/record_list/differences.tsv" in result.stdout
    assert "Traceback" not in result.stdout
    differences = pd.read_csv(listed / "results/record_list/differences.tsv", sep="\t")
    assert differences["what"].tolist() == ["listed, not on the disk", "on the disk, not listed"]
    assert not re.search(r"^rule merge:", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("select: kind == bmode", "config: select: no column 'bmode'; a text stands in quotes; columns: folder, "),
        ("select: frames.max() > 3", "config: select: 'frames.max()' is not allowed"),
        ("{select: view == 'A4C', tables: [{file: no.csv, by: path}]}", "config: tables.0: no file 'no.csv' in "),
        ("tables: [{file: x.csv, by: clip}]", "config: tables.0.by: 'clip' is not one of ['path', 'study', 'patient']"),
        ("require_complete: true", "config: require_complete: set record_list too"),
        ("export: {columns: [default, colour]}", "config: export.columns: no column 'colour'; did you mean 'columns'?"),
        ("record_list: no.csv", "config: record_list: no file 'no.csv' in "),
    ],
)
def test_wrong_words_about_tables_stop_with_one_line(finished, text, line):
    result = run_demo(finished, "-n", change=text)
    assert result.returncode != 0
    assert line in result.stdout
    assert "Traceback" not in result.stdout
    said = [one for one in result.stdout.splitlines() if not one.startswith("Config file ")]
    assert sum(one.startswith("config:") for one in said) == 1
