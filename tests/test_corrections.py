"""What version 0.2.0 corrects of conversions: rows that 0.1.0 made wrong are made again, and no others.

0.1.0's row of each file is written out here, as its journal has it; the file itself is real.
"""

import dataclasses
import json
import os

import numpy as np
import pytest
from pydicom import uid

from echo_embeddings.collection.units import Folder
from echo_embeddings.core.manifest import Row
from testing.conversion import SETTINGS, convert_folder, paths_in
from testing.dicoms import FRAMES, NATIVE, cine, drawn, save, subsampled

IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED = NATIVE
PICTURES = drawn(FRAMES, 200, 240, 3)  # of a size of which a frame is more than a header
RGB = cine(PICTURES, "RGB", FrameTime="33.333")
GREY = cine(drawn(FRAMES, 200, 240, dtype=np.uint16), "MONOCHROME2")
LONGER = cine(PICTURES, "RGB", NumberOfFrames=FRAMES - 1)
SUBSAMPLED = cine(PICTURES, "YBR_FULL_422", PixelData=subsampled(PICTURES))

# Name -> data set, transfer syntax, whether its VR is implicit in spite of that, 0.1.0's rate, what comes of the row.
AGAIN = {
    "called subsampled": (SUBSAMPLED, EXPLICIT, None, None, "converted"),
    "called subsampled and is not": (cine(PICTURES, "YBR_FULL_422"), IMPLICIT, None, None, "failed"),
    "explicit in implicit": (RGB, IMPLICIT, False, None, "converted"),
    "implicit in explicit": (RGB, EXPLICIT, True, None, "converted"),
    "longer": (LONGER, EXPLICIT, None, None, "failed"),
    "longer, big endian": (LONGER, BIG_ENDIAN, None, None, "failed"),
    "longer, 16 bits": (cine(drawn(6, 200, 240, dtype=np.uint16), "MONOCHROME2", NumberOfFrames=2), EXPLICIT, None,
                        None, "failed"),
    "deflated": (RGB, DEFLATED, None, None, "converted"),
    "in seconds": (cine(PICTURES, "RGB", FrameTime="0.0333"), EXPLICIT, None, 30030.03, "converted"),
    "in days": (cine(PICTURES, "RGB", FrameTime="1e9"), EXPLICIT, None, 1e-6, "converted"),
}  # fmt: skip
KEPT = {
    "implicit": (RGB, IMPLICIT, None, 30.0003, "converted"),
    "explicit": (RGB, EXPLICIT, None, 30.0003, "converted"),
    "big endian": (RGB, BIG_ENDIAN, None, 30.0003, "converted"),
    "16 bits": (GREY, EXPLICIT, None, None, "converted"),
    "slow": (cine(PICTURES, "RGB", FrameTime="1000"), EXPLICIT, None, 1.0, "converted"),
    "fast": (cine(PICTURES, "RGB", FrameTime="1"), EXPLICIT, None, 1000.0, "converted"),
    "padded": (cine(PICTURES, "RGB", PixelData=PICTURES.tobytes() + bytes(100)), EXPLICIT, None, None, "converted"),
}


def as_0_1_0_left(top, name):
    """The folder with the file of that name, and what a job of 0.1.0 left of it; returns folder and paths."""
    dataset, syntax, implicit, fps, _ = (AGAIN | KEPT)[name]
    paths = paths_in(top / "results")
    (top / "p10").mkdir(parents=True)
    file = save(top / "p10/clip.dcm", dataset, syntax, implicit)
    mp4 = paths.tree / "clip.mp4"
    mp4.parent.mkdir(parents=True)
    mp4.write_bytes(b"as 0.1.0 made it")
    row = Row(
        "clip.dcm", "clip.mp4", "converted", "", frames=int(dataset.NumberOfFrames), rows=dataset.Rows,
        columns=dataset.Columns, fps=fps, photometric=dataset.PhotometricInterpretation, transfer_syntax=str(syntax),
        bytes=file.stat().st_size, mtime_ns=file.stat().st_mtime_ns, mp4_bytes=mp4.stat().st_size, kind="unknown",
    )  # fmt: skip
    paths.state.mkdir(parents=True)
    record = {"settings": SETTINGS.fingerprint(), "row": dataclasses.asdict(row)}
    (paths.state / "rows.jsonl").write_text(json.dumps(record) + "\n")
    return Folder("p10", str(top / "p10")), paths, row


@pytest.mark.parametrize("name", AGAIN)
def test_what_was_wrong_is_made_again_once(tmp_path, capsys, name):
    folder, paths, before = as_0_1_0_left(tmp_path, name)
    rows = convert_folder(folder, paths)
    assert "1 to do" in capsys.readouterr().out
    row = rows["clip.dcm"]
    assert row.status == AGAIN[name][-1]
    assert row.status == "failed" or row.mp4_bytes != before.mp4_bytes
    assert row.fps is None or 1 <= row.fps <= 1000
    if row.status == "converted":
        written = (paths.tree / "clip.mp4").stat().st_mtime_ns
        convert_folder(folder, paths)
        assert "1 files, 0 to do" in capsys.readouterr().out
        assert (paths.tree / "clip.mp4").stat().st_mtime_ns == written


@pytest.mark.parametrize("name", KEPT)
def test_what_was_right_stays(tmp_path, capsys, name):
    folder, paths, before = as_0_1_0_left(tmp_path, name)
    assert convert_folder(folder, paths) == {"clip.dcm": dataclasses.replace(before)}
    assert "1 files, 0 to do" in capsys.readouterr().out
    assert (paths.tree / "clip.mp4").read_bytes() == b"as 0.1.0 made it"


@pytest.mark.parametrize("name", [*AGAIN, *KEPT])
def test_what_is_made_now_stays(tmp_path, capsys, name):
    dataset, syntax, implicit, _, status = (AGAIN | KEPT)[name]
    (tmp_path / "p10").mkdir()
    save(tmp_path / "p10/clip.dcm", dataset, syntax, implicit)
    folder, paths = Folder("p10", str(tmp_path / "p10")), paths_in(tmp_path / "results")
    for to_do in (1, int(status == "failed")):  # failures are tried again
        assert convert_folder(folder, paths)["clip.dcm"].status == status
        assert f"1 files, {to_do} to do" in capsys.readouterr().out


def test_a_file_that_is_gone_has_nothing_to_correct(tmp_path, capsys):
    folder, paths, _ = as_0_1_0_left(tmp_path, "explicit")
    os.unlink(tmp_path / "p10/clip.dcm")
    save(tmp_path / "p10/other.dcm", RGB, uid.ExplicitVRLittleEndian)
    assert set(convert_folder(folder, paths)) == {"other.dcm"}
