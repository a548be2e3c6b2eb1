"""Models that are fed straight from DICOM, as the workflow runs them: no MP4, the same files, another name."""

import dataclasses
import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from pydicom.uid import ExplicitVRLittleEndian

from echo_embeddings import load_model
from echo_embeddings.collection.units import Folder
from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.layout import DICOM, Layout
from echo_embeddings.core.manifest import READABLE
from echo_embeddings.embed import folder, inference
from echo_embeddings.embed.direct import DicomReader
from echo_embeddings.qc import pictures
from echo_embeddings.qc.tables import FolderFiles, read_failed
from testing import REPOSITORY
from testing.commands import call_command, pending, run_demo
from testing.dicoms import cine, drawn, save
from testing.embedding_job import CrashingReader, HostileReader
from testing.units import DIRECT, KINDS, MODEL, collection_of, read_headers, run, vectors_of, write_clips

NAMES = [f"p10/s{i}/clip_{i}" for i in range(KINDS)] + ["p11/s9/clip_9"]
BOTH = "models: [vit-tiny, vit-tiny-direct]\nembed: {max_failed_fraction: 0.25}\nqc: {pictures: true}"


# --- the demo ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(finished, tmp_path_factory):
    """The demo after a run with both models, and what that run said."""
    top = tmp_path_factory.mktemp("both")
    shutil.copytree(finished.parent / "config", top / "config")
    work = shutil.copytree(finished, top / "demo", symlinks=True)
    before = mp4s(work)
    done = run_demo(work, change=BOTH)
    assert done.returncode == 0, done.stdout
    assert mp4s(work) == before
    return work, done.stdout


def mp4s(work):
    return {path: path.stat().st_mtime_ns for path in work.rglob("*.mp4")}


def test_a_run_makes_what_another_model_has_and_no_mp4(both):
    work, said = both
    results = work / "results"
    assert set(re.findall(r"^(?:local)?rule (\w+):", said, re.MULTILINE)) == {
        "read_headers", "embed", "merge", "qc_model", "qc_index", "all",
    }  # fmt: skip
    table = pd.concat([pd.read_csv(results / f"dicom/{name}.manifest.tsv", sep="\t") for name in ("p10", "p11")])
    assert table.status.value_counts().to_dict() == {"readable": 9, "skipped": 2}
    assert table.mp4_bytes.isna().all()
    failed = pd.read_csv(results / "embeddings/vit-tiny-direct_embeddings_p10.failed.tsv", sep="\t")
    assert failed.reason.tolist() == ["the file ends within a frame"]
    direct = torch.load(results / "embeddings/vit-tiny-direct_embeddings_all.pt")
    by_mp4 = torch.load(results / "embeddings/vit-tiny_embeddings_all.pt")
    assert direct.keys() == by_mp4.keys() == set(table[table.status == "readable"].mp4) - set(failed.key)
    off = [float((direct[key] - by_mp4[key]).norm() / by_mp4[key].norm()) for key in direct]
    assert 1e-4 < min(off) < max(off) < 0.1  # what the codec does
    assert pending(work, change=BOTH) == set()


def test_vectors_are_those_of_one_call(both, monkeypatch):
    work, _ = both
    monkeypatch.chdir(work)
    config = {"models": ["vit-tiny"], "models_file": "../config/demo-models.yaml", "weights_dir": "weights"}
    config |= {"embed": {"precision": "fp32"}}
    model = load_model("vit-tiny-direct", config=config, device="cpu")
    vectors = torch.load("results/embeddings/vit-tiny-direct_embeddings_p11.pt")
    for key, vector in vectors.items():
        source = work / "dicom/p11" / (key.removesuffix(".mp4") + ".dcm")
        assert (model.embed(source) - vector).norm() < 1e-6 * vector.norm()


def test_records_and_pages_say_what_was_fed(both):
    work, _ = both
    record = json.loads((work / "results/embeddings/vit-tiny-direct_embeddings_p10.json").read_text())
    assert record["recipe"]["source"] == "dicom"
    assert record["preprocessing"].startswith("straight from the DICOM: 16 frames")
    assert record["counts"] == {
        "converted": 5, "left_out": 0, "embedded": 4, "reused": 0, "failed": 1, "short": 0
    }  # fmt: skip
    page = (work / "results/qc/vit-tiny-direct.html").read_text()
    text = re.sub(r"\s+", " ", page)
    assert "All 11 files accounted for: 9 readable, 2 skipped, 0 failed; of those readable 8 embedded, 1 not." in text
    assert "converted" not in re.sub(r"<style.*?</style>|<script.*?</script>", "", text).replace("data-", "")
    assert "../dicom/p10.manifest.tsv" in page
    assert page.count("data:image/jpeg;base64,") >= 8
    index = (work / "results/qc/index.html").read_text()
    assert "vit-tiny-direct.html" in index


def test_commands_know_it(both, monkeypatch):
    work, _ = both
    (work / "both.yaml").write_text(BOTH)
    monkeypatch.chdir(work)
    files = ["--configfile", REPOSITORY / "config/demo.yaml", work / "both.yaml"]
    status = call_command("status", *files).stdout
    assert re.search(r"p10 +read_headers +dicom +done +6", status)
    assert re.search(r"p10 +embed +vit-tiny-direct +done +5 +5 +1", status)
    doctor = call_command("doctor", *files).stdout
    assert re.search(r"read headers +0\.0 +0\.0", doctor)
    assert "embed vit-tiny-direct" in doctor
    scrubbed = call_command("scrub", *files).stdout
    assert "p10 at 256" in scrubbed
    assert "dicom" not in scrubbed
    (work / "direct.yaml").write_text("models: [vit-tiny-direct]")
    scrubbed = call_command("scrub", *files[:2], work / "direct.yaml")
    assert (scrubbed.returncode, scrubbed.stdout) == (0, "there are no videos to look at\n")
    merged = [f"results/embeddings/{name}_embeddings_all.pt" for name in ("vit-tiny", "vit-tiny-direct")]
    compared = call_command("compare", *merged)
    assert compared.returncode == 0, compared.stderr
    assert "recipe guide (source: mp4) and guide (source: dicom)" in (work / "compare.html").read_text()


def test_exports_and_targets_by_name(both):
    work, _ = both
    targets = ("results/parquet/vit-tiny-direct/README.md", "results/embeddings/vit-tiny-direct_embeddings_all.npy")
    done = run_demo(work, "--", *targets, change=BOTH)
    assert done.returncode == 0, done.stdout
    tables = sorted((work / "results/parquet/vit-tiny-direct").glob("*.parquet"))
    assert sum(len(pd.read_parquet(path)) for path in tables) == 8
    assert np.load(work / targets[1]).shape == (8, 192)
    wrong = run_demo(work, "-n", "--", "results/embeddings/vit-tine-direct_embeddings_all.pt")
    assert wrong.returncode != 0
    assert "did you mean" in wrong.stdout


# --- what is made again, and what is not ------------------------------------------------------------


@pytest.mark.parametrize("units", ["folders", 3])
def test_only_what_is_new_or_changed_is_embedded(tmp_path, tiny_weights, computed, units):
    write_clips(tmp_path / "dicom", NAMES)
    collection = collection_of(dicom_dir=str(tmp_path / "dicom"), units=units)
    layout = Layout(tmp_path / "results")
    assert run(collection, tiny_weights, layout, model=DIRECT) == (0, len(NAMES))
    before = vectors_of(collection, layout)
    assert len(before) == len(NAMES)
    assert run(collection, tiny_weights, layout, model=DIRECT) == (0, 0)
    save(tmp_path / "dicom/p10/s1/clip_1", cine(drawn(3, 24, 24, seed=99), "MONOCHROME2"), ExplicitVRLittleEndian)
    write_clips(tmp_path / "dicom", ["p11/s9/new"])
    (tmp_path / "dicom/p10/s2/clip_2").unlink()
    computed.clear()
    assert run(collection, tiny_weights, layout, model=DIRECT) == (0, 2)
    after = vectors_of(collection, layout)
    assert after.keys() == before.keys() - {"p10/s2/clip_2.mp4"} | {"p11/s9/new.mp4"}
    same = before.keys() & after.keys() - {"p10/s1/clip_1.mp4"}
    assert all(torch.equal(before[key], after[key]) for key in same)
    assert not torch.equal(before["p10/s1/clip_1.mp4"], after["p10/s1/clip_1.mp4"])


@pytest.mark.parametrize("model", [MODEL, DIRECT], ids=["by MP4", "direct"])
def test_dividing_into_units_computes_nothing(tmp_path, tiny_weights, model):
    write_clips(tmp_path / "dicom", [*NAMES, "10%/s1/100%"])
    layout = Layout(tmp_path / "results")
    folders = collection_of(dicom_dir=str(tmp_path / "dicom"))
    run(folders, tiny_weights, layout, model=model)
    before = vectors_of(folders, layout)
    units = collection_of(dicom_dir=str(tmp_path / "dicom"), units=3)
    assert run(units, tiny_weights, layout, model=model) == (0, 0)
    after = vectors_of(units, layout)
    assert after.keys() == before.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_beside_the_mp4_nothing_is_shared_or_lost(tmp_path, tiny_weights):
    write_clips(tmp_path / "dicom", NAMES)
    collection = collection_of(dicom_dir=str(tmp_path / "dicom"))
    layout = Layout(tmp_path / "results")
    direct = dataclasses.replace(DIRECT, name="tiny-direct")
    assert run(collection, tiny_weights, layout) == (len(NAMES), len(NAMES))
    assert run(collection, tiny_weights, layout, model=direct) == (0, len(NAMES))
    assert run(collection, tiny_weights, layout) == (0, 0)
    assert run(collection, tiny_weights, layout, model=direct) == (0, 0)
    assert MODEL.fingerprint() != direct.fingerprint()


def test_a_killed_job_goes_on_where_it_was(tmp_path, tiny_weights, monkeypatch):
    write_clips(tmp_path / "dicom", [f"p10/{i:02}" for i in range(40)])
    collection = collection_of(dicom_dir=str(tmp_path / "dicom"))
    layout, calls = Layout(tmp_path / "results"), []
    real = inference.forward

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(inference, "forward", dies)
        run(collection, tiny_weights, layout, model=DIRECT)
    assert run(collection, tiny_weights, layout, model=DIRECT) == (0, 8)
    assert len(vectors_of(collection, layout)) == 40


@pytest.mark.parametrize("what", ["hang", "crash"])
def test_a_decoder_that_hangs_or_crashes_costs_one_clip(tmp_path, tiny_weights, monkeypatch, what):
    write_clips(tmp_path / "dicom", [f"p10/{i:02}" for i in range(12)])
    collection = collection_of(dicom_dir=str(tmp_path / "dicom"))
    layout, attempts = Layout(tmp_path / "results"), tmp_path / "attempts"
    monkeypatch.setattr(folder, "DicomReader", lambda *keys: HostileReader(DicomReader(*keys), what, attempts))
    run(collection, tiny_weights, layout, model=DIRECT, num_workers=2, timeout=6 if what == "hang" else 600)
    assert vectors_of(collection, layout).keys() == {f"p10/{i:02}.mp4" for i in range(12) if i != 5}
    reasons = {"hang": "took longer than 6 s (embed.timeout)", "crash": "the decoder crashed (exit code -6)"}
    assert read_failed(layout.failed_clips("tiny", "p10")) == {"05.mp4": reasons[what]}
    assert attempts.stat().st_size == 1
    monkeypatch.undo()
    assert run(collection, tiny_weights, layout, model=DIRECT) == (0, 1)


def test_a_file_that_crashes_its_decoder_has_no_picture(tmp_path, monkeypatch):
    write_clips(tmp_path / "dicom/p10", ["05", "06"])
    files = FolderFiles(tmp_path / "manifest.tsv", tmp_path / "dicom/p10", tmp_path / "run", tmp_path / "failed")
    rows = [{"key": f"{name}.mp4", "mp4": f"{name}.mp4", "path": name} for name in ("05", "06", "07")]
    clips = pd.DataFrame(rows).assign(folder="p10", status=READABLE, frames=2)
    monkeypatch.setattr(pictures, "DicomReader", CrashingReader)
    found = pictures.read_frames(clips, {"p10": files})
    assert found["05.mp4"] == "the decoder crashed (exit code -6)"
    assert found["06.mp4"].shape == (4, pictures.EDGE, pictures.EDGE, 3)
    assert "No such file" in found["07.mp4"]


def test_with_videos_there_are_no_headers_to_read(both):
    work, _ = both
    before = (work / "results/dicom/p11.manifest.tsv").read_bytes()
    videos = "mp4_dir: results/mp4/256\ndicom_dir: dicom"
    done = run_demo(work, "--", "results/dicom/p12.manifest.tsv", change=videos)
    assert done.returncode != 0
    asked = run_demo(work, "-n", "--", "results/qc/vit-tiny-direct.html", change=videos)
    assert "model vit-tiny-direct is fed straight from DICOM, and these are videos; take vit-tiny" in asked.stdout
    assert (work / "results/dicom/p11.manifest.tsv").read_bytes() == before


# --- the manifest -----------------------------------------------------------------------------------


def rows_of(tmp_path, **options):
    """The rows, by path, of the folder p10."""
    layout = Layout(tmp_path / "results")
    read_headers(Folder("p10", str(tmp_path / "dicom/p10")), layout, **options)
    return {row.path: row for row in manifest.read(layout.manifest(DICOM, "p10"))}


def test_every_file_has_one_row_with_what_its_header_says(tmp_path):
    write_clips(tmp_path / "dicom", ["p10/a/clip", "p10/b/twin", "p10/b/twin.dcm"])
    save(tmp_path / "dicom/p10/still", cine(drawn(1, 24, 24), "MONOCHROME2"), ExplicitVRLittleEndian)
    (tmp_path / "dicom/p10/notes.txt").write_text("not DICOM")
    content = (tmp_path / "dicom/p10/a/clip").read_bytes()
    (tmp_path / "dicom/p10/cut").write_bytes(content[:-100])
    os.symlink("nowhere", tmp_path / "dicom/p10/link")
    rows = rows_of(tmp_path)
    assert {path: (row.status, row.reason) for path, row in rows.items()} == {
        "a/clip": (READABLE, ""),
        "b/twin": ("failed", "name collision with b/twin.dcm"),
        "b/twin.dcm": ("failed", "name collision with b/twin"),
        "cut": ("failed", rows["cut"].reason),
        "link": ("failed", "cannot be opened: No such file or directory"),
        "notes.txt": ("skipped", rows["notes.txt"].reason),
        "still": ("skipped", "single frame"),
    }
    clip = rows["a/clip"]
    assert (clip.mp4, clip.frames, clip.rows, clip.columns, clip.mp4_bytes) == ("a/clip.mp4", 2, 24, 24, None)
    assert clip.bytes == len(content)


def test_a_limit_counts_clips(tmp_path):
    write_clips(tmp_path / "dicom", [f"p10/{i}" for i in range(6)])
    assert list(rows_of(tmp_path, limit=2)) == ["0", "1"]


def test_too_many_that_fail_are_a_line(tmp_path):
    write_clips(tmp_path / "dicom", ["p10/a", "p10/b"])
    content = (tmp_path / "dicom/p10/a").read_bytes()
    (tmp_path / "dicom/p10/a").write_bytes(content[:-100])
    with pytest.raises(UserError, match=r"p10: 1 of 2 clips failed, more than convert\.max_failed_fraction \(0\.05\)"):
        rows_of(tmp_path, max_failed_fraction=0.05)
