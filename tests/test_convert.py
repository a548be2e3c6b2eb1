"""A folder of DICOM to MP4: meaning of the pixels, incremental runs, failures, kills."""

import ctypes
import dataclasses
import hashlib
import os
import shutil
import signal
from pathlib import Path

import av
import cv2
import numpy as np
import pydicom
import pytest
from pydicom.pixels import pixel_array

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert import folder as convert_module
from echo_embeddings.convert import pictures
from echo_embeddings.convert.folder import convert_file
from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.dicom.header import check_clip, read_header
from testing.conversion import SETTINGS, paths_in, small_frames
from testing.conversion import convert_folder as run
from testing.corpus import path_of


@pytest.fixture
def folder(collection_dir, tmp_path):
    shutil.copytree(collection_dir / "p10", tmp_path / "dicom/p10")
    return Folder("p10", str(tmp_path / "dicom/p10"))


@pytest.fixture
def paths(tmp_path):
    return paths_in(tmp_path)


def tree(paths):
    return {str(p.relative_to(paths.tree)): p.stat().st_mtime_ns for p in paths.tree.rglob("*") if p.is_file()}


FIRST = "p10000001/s90000001/90000001_0001"
TRUNCATED = "p10000002/s90000003/90000003_0002.dcm"


def test_every_file_has_a_row_and_every_clip_an_mp4(folder, paths):
    rows = run(folder, paths)
    assert len(rows) == 6
    assert {path: (row.status, row.reason) for path, row in rows.items() if row.status != "converted"} == {
        "p10000001/s90000001/90000001_0003.dcm": ("skipped", "single frame"),
        TRUNCATED: ("failed", "the file ends within a frame"),
    }
    first = rows[f"{FIRST}.dcm"]
    assert (first.mp4, first.frames, first.rows, first.columns) == (f"{FIRST}.mp4", 40, 480, 640)
    assert (first.fps, first.photometric, first.transfer_syntax) == (30.0003, "YBR_FULL_422", "1.2.840.10008.1.2.4.50")
    content = (paths.tree / first.mp4).read_bytes()
    assert first.mp4_bytes == len(content)
    assert first.mp4_blake2b == hashlib.blake2b(content, digest_size=16).hexdigest()
    assert set(tree(paths)) == {row.mp4 for row in rows.values() if row.mp4}


@pytest.mark.parametrize("name", ["pydicom/test_files/examples_ybr_color.dcm", "pydicom-data/emri_small.dcm"])
def test_pixels_mean_what_the_reference_means(name, tmp_path):
    """Stretch over the whole clip, then area resize; here before the codec, in colour and in 12-bit grey."""
    path = path_of(name)
    dataset, offset = read_header(path)
    clip = check_clip(path, dataset, offset, ())
    found = np.stack(list(small_frames(clip, 128, tmp_path)))
    pixels = pixel_array(path).astype(np.float32)
    pixels = ((pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255).astype(np.uint8)
    expected = np.stack([cv2.resize(frame, (128, 128), interpolation=cv2.INTER_AREA) for frame in pixels])
    expected = expected if expected.ndim == 4 else np.repeat(expected[..., None], 3, axis=3)
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert found.shape == expected.shape
    assert difference.mean() < 0.5
    assert difference.max() <= 8


def test_the_stretch_is_the_references_to_the_level(tmp_path):
    """Frames of the target's size, so that nothing is resized: every level of every range is the same."""
    dataset = pydicom.dcmread(path_of("pydicom-data/emri_small.dcm"))
    ramp = np.arange(64 * 64, dtype=np.uint16)
    for top in (237, 220, 254, 1000, 4095):
        pixels = np.stack([np.minimum(ramp, top), np.minimum(ramp[::-1], top)]).reshape(2, 64, 64)
        dataset.PixelData, dataset.NumberOfFrames = pixels.tobytes(), 2
        dataset.save_as(tmp_path / "ramp.dcm")
        header, offset = read_header(str(tmp_path / "ramp.dcm"))
        clip = check_clip(str(tmp_path / "ramp.dcm"), header, offset, ())
        found = np.stack(list(small_frames(clip, 64, tmp_path)))[..., 0]
        exact = pixels.astype(np.float32)
        np.testing.assert_array_equal(found, ((exact - 0) / (exact.max() - 0) * 255.0).astype(np.uint8))
        assert found.max() == 255


def test_monochrome1_is_inverted_and_one_value_is_black(tmp_path):
    dataset = pydicom.dcmread(path_of("pydicom-data/emri_small.dcm"))
    inverted = tmp_path / "m1.dcm"

    def small(path):
        header, offset = read_header(str(path))
        return np.stack(list(small_frames(check_clip(str(path), header, offset, ()), 64, tmp_path)))

    plain = small(path_of("pydicom-data/emri_small.dcm"))
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.save_as(inverted)
    np.testing.assert_array_equal(small(inverted), 255 - plain)
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = b"\x07\x00" * (len(dataset.PixelData) // 2)
    dataset.save_as(inverted)
    assert small(inverted).max() == 0


def test_waiting_on_disk_changes_nothing(folder, tmp_path, monkeypatch):
    path = os.path.join(folder.path, f"{FIRST}.dcm")
    dataset, offset = read_header(path)
    clip = check_clip(path, dataset, offset, ())
    in_memory = np.stack(list(small_frames(clip, 64, tmp_path)))
    monkeypatch.setattr(pictures, "WAITING_MEMORY", 1000)
    np.testing.assert_array_equal(np.stack(list(small_frames(clip, 64, tmp_path))), in_memory)


def test_the_mp4_says_30_fps_and_nothing_of_the_patient(folder, paths):
    run(folder, paths)
    with av.open(str(paths.tree / f"{FIRST}.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.width, stream.height, stream.frames) == (30, 256, 256, 40)
        assert set(container.metadata) <= {"major_brand", "minor_version", "compatible_brands"}
        assert b"90000001" not in (paths.tree / f"{FIRST}.mp4").read_bytes()


def test_the_mp4_can_have_the_dicoms_own_rate(folder, paths):
    dataset = pydicom.dcmread(f"{folder.path}/{FIRST}.dcm")
    dataset.FrameTime = "20"
    dataset.save_as(f"{folder.path}/{FIRST}.dcm")
    rows = run(folder, paths, dataclasses.replace(SETTINGS, fps="source"), limit=1)
    assert rows[f"{FIRST}.dcm"].fps == 50
    with av.open(str(paths.tree / f"{FIRST}.mp4")) as container:
        assert container.streams.video[0].average_rate == 50


def test_settings_that_do_not_go_together_stop_before_any_file(folder, paths):
    with pytest.raises(UserError, match="config: convert: ffmpeg does not take"):
        run(folder, paths, dataclasses.replace(SETTINGS, encoder_options={"trellis": "much"}))
    assert tree(paths) == {}


def test_directories_named_like_our_files_are_left_alone(folder, paths):
    os.makedirs(f"{folder.path}/scan.mp4/x.part")
    shutil.copy(f"{folder.path}/{FIRST}.dcm", f"{folder.path}/scan.mp4/x.part/1.dcm")
    assert run(folder, paths)["scan.mp4/x.part/1.dcm"].status == "converted"
    assert run(folder, paths)["scan.mp4/x.part/1.dcm"].status == "converted"


def test_a_lost_journal_under_a_limit_loses_no_mp4(folder, paths):
    run(folder, paths)
    before = set(tree(paths))
    (paths.state / "rows.jsonl").unlink()
    run(folder, paths, limit=1)
    assert set(tree(paths)) == before


def test_a_second_run_touches_nothing_and_each_change_its_own_mp4(folder, paths):
    before_rows, before = run(folder, paths), tree(paths)
    digest = paths.digest.read_text()
    assert run(folder, paths) == before_rows
    assert tree(paths) == before
    assert paths.digest.read_text() == digest

    second = f"{FIRST[:-1]}2"
    shutil.copy(f"{folder.path}/{FIRST}.dcm", f"{folder.path}/p10000001/new.dcm")  # new
    os.utime(f"{folder.path}/{FIRST}.dcm", ns=(1, 1))  # changed
    os.unlink(f"{folder.path}/{second}.dcm")  # removed
    (paths.tree / "p10000002/s90000003/90000003_0001.mp4").write_bytes(b"cut")  # truncated by hand
    rows, after = run(folder, paths), tree(paths)
    assert len(rows) == 6
    assert set(after) - set(before) == {"p10000001/new.mp4"}
    assert set(before) - set(after) == {f"{second}.mp4"}
    assert after[f"{FIRST}.mp4"] != before[f"{FIRST}.mp4"]
    assert (paths.tree / "p10000002/s90000003/90000003_0001.mp4").stat().st_size > 1000
    untouched = "p10000001/s90000002/90000002_0001.mp4"
    assert after[untouched] == before[untouched]


def test_a_clip_that_breaks_loses_its_mp4(folder, paths):
    run(folder, paths)
    path = f"{folder.path}/{FIRST}.dcm"
    os.truncate(path, 1_000_000)
    assert run(folder, paths)[f"{FIRST}.dcm"].status == "failed"
    assert f"{FIRST}.mp4" not in tree(paths)


def test_a_changed_setting_makes_everything_again(folder, paths):
    run(folder, paths)
    before = tree(paths)
    run(folder, paths, dataclasses.replace(SETTINGS, quality=9))
    after = tree(paths)
    assert all(after[name] != before[name] for name in before)


def test_limit_sees_the_first_clips_only_and_loses_nothing(folder, paths):
    rows = run(folder, paths, limit=2)
    assert list(rows) == [f"{FIRST}.dcm", f"{FIRST[:-1]}2.dcm"]
    two = tree(paths)
    assert len(run(folder, paths)) == 6
    everything = tree(paths)
    assert two.items() <= everything.items()
    assert len(run(folder, paths, limit=3)) == 4  # the still between them is seen
    assert tree(paths) == everything
    # Other settings under a limit leave the rest as it was.
    run(folder, paths, dataclasses.replace(SETTINGS, quality=9), limit=1)
    rest = {name: made for name, made in tree(paths).items() if name != f"{FIRST}.mp4"}
    assert rest.items() <= everything.items()


def test_too_many_failures_fail_the_job_after_the_table_is_saved(folder, paths):
    with pytest.raises(UserError, match=r"p10: 1 of 5 clips failed, .*the reasons are in .*manifest\.tsv"):
        run(folder, paths, max_failed_fraction=0.1)
    assert not paths.table.exists()
    assert len(manifest.read(paths.state / "manifest.tsv")) == 6


def test_two_dicom_with_one_mp4_name_are_both_failed(folder, paths):
    shutil.copy(f"{folder.path}/{FIRST}.dcm", f"{folder.path}/{FIRST}")
    rows = run(folder, paths)
    assert rows[FIRST].reason == f"name collision with {FIRST}.dcm"
    assert rows[f"{FIRST}.dcm"].reason == f"name collision with {FIRST}"
    assert f"{FIRST}.mp4" not in tree(paths)


def test_odd_names_and_things_that_are_no_files(folder, paths):
    top = os.fsencode(folder.path)
    for name in (b"tab\there", b"line\nbreak", b"caf\xe9.dcm", b"100%"):
        shutil.copy(f"{folder.path}/{FIRST}.dcm", os.path.join(top, name))
    os.mkfifo(top + b"/fifo")
    os.symlink("nowhere", top + b"/broken")
    (open(top + b"/empty.dcm", "wb")).close()
    rows = run(folder, paths)
    expected = ["100%25.mp4", "caf%E9.mp4", "line%0Abreak.mp4", "tab%09here.mp4"]
    assert sorted(row.mp4 for row in rows.values() if row.mp4 and "/" not in row.mp4) == expected
    assert rows["fifo"].reason == "not a regular file"
    assert rows["broken"].reason == "cannot be opened: No such file or directory"
    assert (rows["empty.dcm"].status, rows["empty.dcm"].reason) == ("failed", "empty file")


def test_a_link_keeps_what_was_made_of_its_file(folder, paths, tmp_path):
    """As git-annex drops files and gets them again."""
    source, store = Path(folder.path, f"{FIRST}.dcm"), tmp_path / "store.dcm"
    source.rename(store)
    source.symlink_to(store)
    before, made = run(folder, paths), tree(paths)
    store.rename(tmp_path / "away")
    assert run(folder, paths) == before
    (tmp_path / "away").rename(store)
    assert run(folder, paths) == before
    assert tree(paths) == made


def test_a_job_that_fails_deletes_nothing(folder, paths):
    made, content = run(folder, paths) and tree(paths), Path(folder.path, f"{FIRST}.dcm").read_bytes()
    Path(folder.path, f"{FIRST}.dcm").write_bytes(content[:-1000])
    with pytest.raises(UserError, match="2 of 5 clips failed"):
        run(folder, paths, max_failed_fraction=0.1)
    assert tree(paths) == made
    run(folder, paths)
    assert f"{FIRST}.mp4" not in tree(paths)


def _hang(source, path, target, settings, mark):
    ctypes.PyDLL(None).sleep(60)  # in C, holding the interpreter's lock


def _crash(source, path, target, settings, mark):
    if path == f"{FIRST}.dcm":
        os.kill(os.getpid(), signal.SIGSEGV)
    return _REAL(source, path, target, settings, mark)


_REAL = convert_file


def test_a_decoder_that_hangs_is_given_up(folder, paths, monkeypatch):
    monkeypatch.setattr(convert_module, "convert_file", _hang)
    rows = run(folder, paths, timeout=0.5, limit=1)
    assert rows[f"{FIRST}.dcm"].reason == "took longer than 0.5 s (convert.timeout)"


def _run_out_of_memory(source, path, target, settings, mark):
    os.kill(os.getpid(), signal.SIGKILL)


def _raise(source, path, target, settings, mark):
    raise ZeroDivisionError("an odd file")


@pytest.mark.parametrize(
    ("decoder", "reason"),
    [
        (_run_out_of_memory, "the decoder was killed; the job ran out of memory?"),
        (_raise, "ZeroDivisionError: an odd file"),
    ],
)
def test_a_decoder_that_is_killed_or_unforeseen(folder, paths, monkeypatch, decoder, reason):
    monkeypatch.setattr(convert_module, "convert_file", decoder)
    assert run(folder, paths, limit=1)[f"{FIRST}.dcm"].reason == reason


def test_a_decoder_that_crashes_fails_its_file_only(folder, paths, monkeypatch):
    monkeypatch.setattr(convert_module, "convert_file", _crash)
    rows = run(folder, paths)
    assert rows[f"{FIRST}.dcm"].reason == "the decoder crashed (exit code -11)"
    assert sum(row.status == "converted" for row in rows.values()) == 3
