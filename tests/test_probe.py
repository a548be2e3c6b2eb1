"""Videos that are there already: probed, embedded, not touched."""

import errno
import hashlib
import os
import shutil

import cv2
import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file

from echo_embeddings.collection.folders import find_folder, find_folders
from echo_embeddings.collection.kinds import VIDEO
from echo_embeddings.convert import probe
from echo_embeddings.core import configuration, manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.layout import Layout
from echo_embeddings.dicom.frames import decode_frames
from echo_embeddings.dicom.header import Clip, read_header
from testing import REPOSITORY, sectors
from testing.commands import run_demo
from testing.conversion import write_pattern


def rows_as_frames(path, still):
    """What the reference makes of a colour still: each row of the picture a frame of three grey columns."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (256, 256), isColor=True)
    for row in still:
        writer.write(cv2.cvtColor(cv2.resize(row, (256, 256), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR))
    writer.release()


def write_tree(top):
    """Two clips, and what else lies about."""
    for name in ("a/one.mp4", "a/two.MP4"):
        write_pattern(top / name, seed=len(name))
    write_pattern(top / "single.mp4", frames=1)
    shutil.copy(top / "a/one.mp4", top / "cut.mp4")
    os.truncate(top / "cut.mp4", 900)
    shutil.copy(top / "a/one.mp4", top / "100%.mp4")
    for name in ("notes.txt", ".DS_Store", "a/._one.mp4", "a/._one.avi"):
        (top / name).write_text("not a video")
    (top / "empty.mp4").touch()
    _, picture = sectors.clip_of("large")
    for name, frames in (("still.mp4", picture.frames[:1].repeat(12, axis=0)), ("echo.mp4", picture.frames[:20])):
        sectors.as_mp4(type(picture)(frames, picture.sector, picture.text), 256, top / name)
    still = next(decode_frames(_clip(get_testdata_file("examples_rgb_color.dcm"))))
    rows_as_frames(top / "rows.mp4", still)


@pytest.fixture
def tree(tmp_path, made_once):
    """Folder p10 of a tree of videos."""
    return shutil.copytree(made_once("videos", write_tree), tmp_path / "mp4/p10")


def _clip(path):
    """The still as a clip of one frame."""
    dataset, offset = read_header(str(path))
    return Clip(
        str(path), dataset, 1, dataset.Rows, dataset.Columns, str(dataset.PhotometricInterpretation),
        dataset.file_meta.TransferSyntaxUID, offset,
    )  # fmt: skip


def run(tree, tmp_path, limit=0, max_failed_fraction=0.9):
    folder = find_folders(str(tmp_path / "mp4"), [], VIDEO)["p10"]
    layout = Layout(tmp_path / "results")
    probe.probe_folder(
        folder, layout, 256, limit=limit, workers=1, timeout=600, max_failed_fraction=max_failed_fraction
    )
    return {row.path: row for row in manifest.read(layout.manifest(256, "p10"))}


def test_every_file_is_a_row_and_none_is_touched(tree, tmp_path):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tree.rglob("*") if path.is_file()}
    rows = run(tree, tmp_path)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tree.rglob("*") if path.is_file()} == before
    assert len(rows) == len(before)
    found = {path: (row.status, row.reason) for path, row in rows.items()}
    assert {path for path, (status, _) in found.items() if status == "converted"} == {
        "a/one.mp4",
        "a/two.MP4",
        "echo.mp4",
    }
    for name in ("notes.txt", ".DS_Store", "a/._one.mp4", "a/._one.avi"):
        assert found[name] == ("skipped", "not a video by its name")
    assert found["single.mp4"] == ("skipped", "single frame")
    assert found["still.mp4"] == ("skipped", "suspected still: nothing moves")
    assert found["rows.mp4"][1].startswith("suspected still: its frames are bands, ")
    assert found["cut.mp4"] == found["empty.mp4"] == ("failed", "cannot be opened as a video")
    assert found["100%25.mp4"][0] == "failed"
    clip = rows["a/two.MP4"]
    assert (clip.mp4, clip.frames, clip.rows, clip.columns, clip.fps) == ("a/two.MP4", 20, 64, 64, 30.0)
    content = (tree / "a/two.MP4").read_bytes()
    assert clip.bytes == clip.mp4_bytes == len(content)
    assert clip.mp4_blake2b == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_a_file_that_cannot_be_read_to_its_end(tree, monkeypatch):
    """By a disk that fails: stood in for, since none is at hand."""

    def fails(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(probe, "blake2b_of", fails)
    row = probe.probe_file(str(tree), "a/one.mp4")
    assert (row.status, row.reason) == ("failed", "cannot be opened: Input/output error")
    assert row.bytes == (tree / "a/one.mp4").stat().st_size


def test_limit_and_too_many_failures(tree, tmp_path):
    assert [row.mp4 for row in run(tree, tmp_path, limit=1).values() if row.mp4] == ["a/one.mp4"]
    with pytest.raises(UserError, match=r"p10: 3 of 6 videos cannot be read, .* reasons are in .*manifest\.tsv"):
        run(tree, tmp_path, max_failed_fraction=0.1)


def test_folders_of_mp4(tree, tmp_path):
    shutil.copy(tree / "a/one.mp4", tmp_path / "mp4/loose.mp4")
    (tmp_path / "mp4/nothing").mkdir()
    (tmp_path / "mp4/nothing/._one.mp4").touch()
    assert list(find_folders(str(tmp_path / "mp4"), [], VIDEO)) == ["p10", "mp4"]
    with pytest.raises(UserError, match=r"folder 'nothing': no video below .*names that end with \.mp4, \.avi"):
        find_folder(str(tmp_path / "mp4"), "nothing", VIDEO)
    with pytest.raises(UserError, match="config: mp4_dir: no directory 'nowhere' in "):
        configuration.check(configuration.defaults() | {"mp4_dir": "nowhere"})


@pytest.fixture
def theirs(finished, tmp_path):
    """Embeds the demo's own MP4, as somebody else's; returns the working directory and the vectors of p11."""
    work = tmp_path / "work"
    work.mkdir()
    shutil.copytree(finished / "results/mp4/256", tmp_path / "theirs", ignore=shutil.ignore_patterns("*.manifest.*"))
    shutil.copytree(finished / "weights", work / "weights")
    (tmp_path / "config").mkdir()
    shutil.copy(REPOSITORY / "config/demo-models.yaml", tmp_path / "config")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "theirs").rglob("*")}

    def embed(*targets, change):
        result = run_demo(work, "--", *targets, change=f"mp4_dir: {tmp_path}/theirs\n{change}")
        assert result.returncode == 0, result.stdout
        assert "rule probe:" in result.stdout
        assert "rule convert:" not in result.stdout
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "theirs").rglob("*")} == before
        ours, first = (torch.load(top / "results/embeddings/vit-tiny_embeddings_p11.pt") for top in (work, finished))
        assert all(np.allclose(ours[key], first[key], atol=1e-6) for key in ours)
        return work, ours, first

    return embed


def test_the_workflow_embeds_a_clip_of_a_tree_that_is_there(theirs):
    """The same vector, and no conversion."""
    tables = [f"results/mp4/256/{folder}.manifest.tsv" for folder in ("p10", "p11")]
    work, ours, _ = theirs("results/embeddings/vit-tiny_embeddings_p11.pt", *tables, change="limit: 1\n")
    assert len(ours) == 1
    assert all((work / table).is_file() for table in tables)


@pytest.mark.slow
def test_the_workflow_embeds_a_tree_that_is_there(theirs):
    work, ours, first = theirs("all", change="folders: [p11]\n")
    assert ours.keys() == first.keys()
    assert (work / "results/qc/vit-tiny.html").exists()
