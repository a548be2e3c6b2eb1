"""Text that can still be read in MP4 files: planted strings are found, and masked ones are gone."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
from pydicom import uid

from echo_embeddings.convert import video
from echo_embeddings.convert.folder import convert_file
from echo_embeddings.convert.sector import spread
from echo_embeddings.core.errors import UserError
from echo_embeddings.qc.base import hashed
from echo_embeddings.tools import tesseract
from echo_embeddings.tools.audit_text import Tree, audit, text_in
from testing import phantoms
from testing.commands import run_demo
from testing.conversion import SETTINGS, ConvertPaths, paths_in
from testing.conversion import convert_folder as convert
from testing.dicoms import cine, save
from testing.sectors import clip_of

from echo_embeddings.collection.units import Folder  # isort: skip

if shutil.which(tesseract.PROGRAM) is None:
    pytest.skip("no tesseract here: apt-get install tesseract-ocr", allow_module_level=True)

NAME = "DOE JANE 1952"
SECTOR = dataclasses.replace(SETTINGS, mask="sector")
SIZES = (8, 12, 16, 24, 32)  # pixels of a letter's height


def planted(frames, size, at, text=NAME):
    """The frames with a text from `at` (column, base line) on, its letters `size` pixels high; and its pixels."""
    scale, thick = size / 21, max(1, round(size / 14))
    out, where = frames.copy(), np.zeros(frames.shape[1:3], np.uint8)
    for frame in out:
        cv2.putText(frame, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (235, 235, 235), thick, cv2.LINE_AA)
    cv2.putText(where, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)
    return out, where > 0


def places(picture, size):
    """Where a text may stand: at every border, and over the ECG."""
    rows, columns = picture.sector.shape
    (width, _), _ = cv2.getTextSize(NAME, cv2.FONT_HERSHEY_SIMPLEX, size / 21, 1)
    return {
        "top": (columns // 2 - width // 2, size + 2),
        "top left": (2, size + 2),
        "top right": (columns - width - 2, size + 2),
        "bottom": (columns // 2 - width // 2, rows - 4),
        "bottom left": (2, rows - 4),
        "ECG": (70, rows - 75),
        "left": (2, rows // 3),
        "right": (columns - width - 2, rows // 3),
    }


def read(frames, made, tmp_path):
    """What can be read in the MP4 that a conversion makes of the frames, by picture."""
    source = save(tmp_path / "a.dcm", cine(frames, "RGB"), uid.ExplicitVRLittleEndian)
    row = convert_file(str(source), "a.dcm", tmp_path / "a.mp4", made)
    assert row.status == "converted", row.reason
    seen = video.read(tmp_path / "a.mp4", spread(row.frames), row.frames)
    return text_in(seen, (row.rows, row.columns))[1]


# Reading takes seconds a layout: a drawn one and a real cine here, the others among the slow tests.
FIRST = ("phased", "large")
OUTSIDE = [
    name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in (*phantoms.LAYOUTS, "large")
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_stands_outside_the_sector_is_found_and_goes(tmp_path, name):
    """Letters of 8 to 32 pixels, at every border and over the ECG, all at once where they do not touch the sector."""
    _, picture = clip_of(name)
    frames = picture.frames[np.linspace(0, len(picture.frames) - 1, 24).astype(int)]
    near = cv2.dilate(picture.sector.astype(np.uint8), np.ones((31, 31), np.uint8)).astype(bool)
    found = {}
    for size in SIZES:
        written, count = frames, 0
        for at in places(picture, size).values():
            more, where = planted(written, size, at)
            if not (where & near).any():
                written, count = more, count + 1
        assert count >= 2
        assert not any(read(written, SECTOR, tmp_path)), f"{name}, {size} pixels"
        words = read(written, SETTINGS, tmp_path)[0]
        found[size] = sum(word.count("1952") for word in words)
    assert found[16] + found[24] + found[32] >= 5, found  # it can be read where there is no mask


@pytest.mark.parametrize("name", [*phantoms.LAYOUTS, "large", "small"])
def test_tissue_is_no_text(tmp_path, name):
    _, picture = clip_of(name)
    assert not any(read(picture.frames, SECTOR, tmp_path))


@pytest.mark.parametrize(
    ("name", "size"), [("large", 16), ("large", 24), ("large", 32), ("linear", 24), ("phased", 32)]
)
def test_what_stands_inside_the_sector_is_reported(tmp_path, name, size):
    """Masks leave it, which the audit is to tell."""
    _, picture = clip_of(name)
    y, x = (int(axis.mean()) for axis in np.nonzero(picture.sector))
    frames, where = planted(picture.frames, size, (x - 5 * size, y))
    assert picture.sector[where].all()
    assert any(read(frames, SECTOR, tmp_path))


def test_no_ocr_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"^audit_text: there is no program tesseract, .*apt-get install tesseract-ocr$"
    ):
        audit([], tmp_path / "text.html", clips=1, threads=1, pictures=True, hash_names=False)


# --- the page --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips of two devices, of which one writes names beside the sector and the other within."""
    top = tmp_path_factory.mktemp("devices")
    _, picture = clip_of("large")
    frames = picture.frames[:24]
    outside, _ = planted(frames, 24, (10, 30))
    y, x = (int(axis.mean()) for axis in np.nonzero(picture.sector))
    inside, _ = planted(frames, 24, (x - 120, y))
    for name, pixels, device in (
        ("a", outside, "Out"),
        ("b", inside, "In"),
        ("c", outside, "Out"),
        ("d", frames, "No"),
    ):
        save(
            top / f"{name}.dcm",
            cine(pixels, "RGB", Manufacturer="M", ManufacturerModelName=device),
            uid.ExplicitVRLittleEndian,
        )
    return Folder("p10", str(top))


def page_of(folder, top, made, **options):
    """The page and its numbers, of the folder converted under these settings."""
    convert(folder, paths := ConvertPaths(paths_in(top).layout, size=made.clips), made)
    tree = Tree(str(made.clips), "p10", paths.table, paths.tree)
    options = {"clips": 1, "threads": 2, "pictures": True, "hash_names": False} | options
    audit([tree], top / "text.html", **options)
    return (top / "text.html").read_text(), json.loads((top / "text.json").read_text())["groups"]


def test_by_device_before_and_after_masking(folder, tmp_path):
    _, groups = page_of(folder, tmp_path / "plain", SETTINGS, clips=9)
    counts = {group["device"]: (group["clips"], group["looked_at"], group["with_text"]) for group in groups}
    assert counts["M Out"] == (2, 2, 2)
    assert counts["M In"] == (1, 1, 1)
    page, groups = page_of(folder, tmp_path / "masked", SECTOR, clips=9)
    counts = {group["device"]: (group["clips"], group["looked_at"], group["with_text"]) for group in groups}
    assert counts == {"M Out": (2, 2, 0), "M In": (1, 1, 1), "M No": (1, 1, 0)}
    assert page.count("data:image/jpeg") == 1
    assert "p10/b.mp4" in page
    assert "JANE" in page
    assert "JANE" not in json.dumps(groups)  # what was read is on the page alone


def test_neither_pictures_nor_names_where_they_are_not_allowed(folder, tmp_path):
    page, groups = page_of(folder, tmp_path, SECTOR, clips=9, pictures=False, hash_names=True)
    assert "data:image" not in page
    for text in (page, json.dumps(groups)):
        assert "JANE" not in text
        assert "b.mp4" not in text
        assert hashed("p10/b.mp4") in text


def test_a_sample_is_the_same_in_every_run_and_what_cannot_be_read_is_told(folder, tmp_path):
    first = page_of(folder, tmp_path, SECTOR)
    assert [len(group["sampled"]) for group in first[1]] == [1, 1, 1]
    assert page_of(folder, tmp_path, SECTOR) == first
    paths = ConvertPaths(paths_in(tmp_path).layout, size=SECTOR.clips)
    (paths.tree / "b.mp4").write_bytes(b"")
    audit(
        [Tree("m", "p10", paths.table, paths.tree)],
        tmp_path / "text.html",
        clips=9,
        threads=1,
        pictures=True,
        hash_names=False,
    )
    groups = {g["device"]: g for g in json.loads((tmp_path / "text.json").read_text())["groups"]}
    assert (groups["M In"]["looked_at"], groups["M In"]["with_text"]) == (0, 0)
    assert groups["M In"]["sampled"][0]["reason"]


def test_the_target(work, monkeypatch):
    """On the demo's MP4 files; the run stops with a line before any work where there is no OCR."""
    done = run_demo(work, "audit_text")
    assert done.returncode == 0, done.stdout
    groups = json.loads((work / "results/audit/text.json").read_text())["groups"]
    assert sum(group["clips"] for group in groups) == 8
    assert {group["tree"] for group in groups} == {"256"}
