"""Which jobs are pending, and after which change."""

import dataclasses
import json
import os
import shutil

import pydicom
import pytest
import torch

from echo_embeddings.core import manifest
from echo_embeddings.core.keys import Key
from testing import REPOSITORY
from testing.commands import ALL_AFTER_MERGE, pending, run_demo


def test_everything_is_pending_before_the_first_run(finished, tmp_path):
    shutil.copytree(finished.parent / "config", tmp_path / "config")
    for name in ("dicom", "weights"):
        shutil.copytree(finished / name, tmp_path / "demo" / name)
    assert pending(tmp_path / "demo") == {
        *("convert 256 p10", "convert 256 p11", "embed vit-tiny p10", "embed vit-tiny p11"),
        *ALL_AFTER_MERGE,
    }


def test_nothing_is_pending_after_a_run(finished):
    assert pending(finished) == set()


def test_a_new_dicom_deep_in_a_folder_makes_that_folders_jobs_pending(work):
    source = work / "dicom/p11/p11000001/s90000004/90000004_0003.dcm"
    dataset = pydicom.dcmread(source)
    dataset.save_as(source.with_name("90000004_0009.dcm"))
    expected = {"convert 256 p11", "embed vit-tiny p11", *ALL_AFTER_MERGE}
    assert pending(work) == expected
    untouched = (work / "results/embeddings/vit-tiny_embeddings_p10.pt").stat().st_mtime_ns
    merged = "results/embeddings/vit-tiny_embeddings_all.pt"
    assert run_demo(work, "--", merged).returncode == 0
    assert pending(work) == {"qc_model vit-tiny", "qc_index", "all"}
    assert len(torch.load(work / merged)) == 9
    assert (work / "results/embeddings/vit-tiny_embeddings_p10.pt").stat().st_mtime_ns == untouched
    source.with_name("90000004_0009.dcm").unlink()
    assert pending(work) == expected
    assert run_demo(work, "--", merged).returncode == 0
    assert pending(work) == set()  # the pages are still those of these eight
    assert len(torch.load(work / merged)) == 8
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
    assert run_demo(work, "--", "results/embeddings/vit-tiny_embeddings_p10.pt").returncode == 0
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
    settings = tmp_path / "workflow/scripts/echo_embeddings/core/settings.py"
    settings.write_text(settings.read_text().replace(f"{version} = ", f"{version} = 1 + "))
    other = run_demo(finished, "-n", snakefile=tmp_path / "workflow/Snakefile")
    assert other.returncode == 1
    assert "whose code is not that of this clone" in other.stdout
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "workflow/scripts"))
    assert pending(finished, snakefile=tmp_path / "workflow/Snakefile") == expected


def test_tables_and_what_says_whose_the_clips_are_make_the_pages_pending(work):
    """What pages only show need not be there."""
    pages = {"qc_model vit-tiny", "qc_index", "all"}
    assert pending(work, change="layout: '*/{patient}/{study}/*'") == pages
    assert pending(work, change="tables: [{file: gone.csv, by: patient}]") == set()
    (work / "views.csv").write_text("dicom_filepath,view\n")
    table = "tables: [{file: views.csv, by: path}]"
    assert pending(work, change=table) == pages
    (work / "views.csv").write_text("dicom_filepath,view,subject_id\nx,A4C,7\n")
    assert pending(work, change=table) == pages
    done = run_demo(work, "all", change=table)
    assert done.returncode == 0, done.stdout
    assert pending(work, change=table) == set()
    (work / "views.csv").write_text("dicom_filepath,view,subject_id\nx,A4C,8\n")
    assert pending(work, change=table) == pages


def test_hashes_of_identifiers_are_added_to_what_is_there(work):
    """Headers are read, and nothing is decoded or embedded again; the key and what it hides are nowhere."""
    secret = os.urandom(32)
    (work / "ids.key").write_bytes(secret)
    change = "{key_file: ids.key, convert: {keep_ids: hashed}, folders: [p10]}"
    every = {"convert 256 p10", "embed vit-tiny p10", *ALL_AFTER_MERGE}
    assert pending(work, change="key_file: ids.key") == set()
    assert pending(work, change=change) == every
    before = mp4_times(work)
    done = run_demo(work, "all", change=change)
    assert done.returncode == 0, done.stdout
    assert pending(work, change=change) == set()
    assert mp4_times(work) == before
    counts = json.loads((work / "results/embeddings/vit-tiny_embeddings_p10.json").read_text())["counts"]
    assert counts["reused"] == counts["embedded"] == 4
    source = work / "dicom/p10/p10000001/s90000001/90000001_0001.dcm"
    (row,) = (row for row in manifest.read(work / "results/mp4/256/p10.manifest.tsv") if row.path in str(source))
    study = pydicom.dcmread(source, stop_before_pixels=True).StudyInstanceUID
    assert row.study_instance_uid_hash == Key(secret).hash("StudyInstanceUID", study)
    for top in (work / "results", work / ".snakemake"):
        content = b"".join(path.read_bytes() for path in top.rglob("*") if path.is_file())
        assert not [one for one in (study.encode(), secret, secret.hex().encode()) if one in content]
    (work / "ids.key").write_bytes(os.urandom(32))
    assert pending(work, change=change) == every


def test_folders_can_be_chosen_and_a_missing_one_is_named(work):
    assert pending(work, change="folders: [p11]") == ALL_AFTER_MERGE
    result = run_demo(work, "-n", change="folders: [p11, p77]")
    assert result.returncode != 0
    assert "folder 'p77': there is none in dicom_dir 'dicom'" in result.stdout


def test_one_model_by_target_and_targets_that_cannot_be(work):
    target = "results/embeddings/vit-tiny_embeddings_p10.pt"
    (work / target).unlink()
    assert pending(work, "--", target) == {"embed vit-tiny p10"}
    wrong = run_demo(work, "-n", "--", "results/embeddings/vit-tiny_embeddings_p99.pt")
    assert wrong.returncode != 0
    assert "folder 'p99': there is none in dicom_dir 'dicom'" in wrong.stdout
    assert "Traceback" not in wrong.stdout


def test_resources_that_change_make_no_job_pending(work):
    """They follow from the number of files and from settings that say how the work is done."""
    assert pending(work, change="embed: {num_workers: 3, batch_size: 1}") == set()


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
