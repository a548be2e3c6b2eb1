"""Broken and hostile files: each ends as one row with a reason, whatever is wrong with it, and nothing else happens."""

import dataclasses
import errno
import functools
import multiprocessing
import os
import random
import shutil
import tempfile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pydicom
import pytest
import torch
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert import video
from echo_embeddings.convert.folder import convert_file
from echo_embeddings.core import manifest
from echo_embeddings.core.layout import DICOM, Layout
from echo_embeddings.dicom import frames
from echo_embeddings.dicom.frames import decode_frames
from echo_embeddings.dicom.header import Unreadable, check_clip, read_header
from echo_embeddings.qc.tables import read_failed
from testing.conversion import SETTINGS, convert_folder, paths_in
from testing.corpus import CINE
from testing.processes import PATIENCE
from testing.units import DIRECT, collection_of, run


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    """The first five frames of the small cine, as a DICOM file."""
    dataset = pydicom.dcmread(CINE["small"])
    dataset.PixelData = encapsulate(list(generate_frames(dataset.PixelData, number_of_frames=30))[:5])
    dataset.NumberOfFrames = 5
    path = tmp_path_factory.mktemp("clip") / "clip.dcm"
    dataset.save_as(path)
    return path.read_bytes()


def convert_all(top: Path, files: dict[str, bytes]) -> dict[str, manifest.Row]:
    """Convert a folder of these files; every row is checked against what lies in the tree."""
    for name, content in files.items():
        (top / "dicom" / name).parent.mkdir(parents=True, exist_ok=True)
        (top / "dicom" / name).write_bytes(content)
    paths = paths_in(top)
    rows = convert_folder(Folder("p10", str(top / "dicom")), paths)
    assert set(rows) == set(files)
    for row in rows.values():
        assert (row.status == "converted") == (row.reason == ""), row
        assert "Traceback" not in row.reason
        assert len(row.reason) < 400, row
        if row.status == "converted":
            assert len(video.read(paths.tree / row.mp4, range(row.frames), row.frames)) == row.frames
    written = {str(p.relative_to(paths.tree)) for p in paths.tree.rglob("*") if p.is_file()}
    assert written == {row.mp4 for row in rows.values() if row.mp4}
    return rows


@pytest.fixture(params=["converted", "straight"])
def taken(request, tmp_path, tiny_weights):
    """What becomes of files, by name, on the way to a vector: by an MP4, or straight from the DICOM."""
    if request.param == "converted":
        return functools.partial(convert_all, tmp_path)
    return functools.partial(embed_all, tmp_path, tiny_weights)


def embed_all(top: Path, weights: Path, files: dict[str, bytes]) -> dict[str, manifest.Row]:
    """Embed a folder of these files straight; those that the encoder could not be shown are failed rows too."""
    for name, content in files.items():
        (top / "dicom" / name).parent.mkdir(parents=True, exist_ok=True)
        (top / "dicom" / name).write_bytes(content)
    collection = collection_of(dicom_dir=str(top / "dicom"))
    layout, (unit,) = Layout(top / "results"), collection.units().values()
    run(collection, weights, layout, model=DIRECT)
    rows = {row.path: row for row in manifest.read(layout.manifest(DICOM, unit.name))}
    assert set(rows) == set(files)
    vectors = torch.load(layout.vectors("tiny", unit.name))
    failed = read_failed(layout.failed_clips("tiny", unit.name))
    assert {row.mp4 for row in rows.values() if row.is_clip} == vectors.keys() | failed.keys()
    assert not vectors.keys() & failed.keys()
    for row in rows.values():
        reason = failed.get(row.mp4, row.reason)
        assert row.is_clip == (row.reason == ""), row
        assert "Traceback" not in reason
        assert len(reason) < 400, row
        if row.mp4 in failed:
            rows[row.path] = dataclasses.replace(row, status="failed", reason=reason)
    assert not list(layout.root.rglob("*.mp4"))
    return rows


@pytest.mark.parametrize(("number", "last"), [(30, 8), pytest.param(220, 30, marks=pytest.mark.slow)])
def test_truncated_at_any_byte(taken, clip, number, last):
    """At so many paths spread over the file, and at the last bytes of it."""
    cuts = sorted({int(len(clip) * i / number) for i in range(number)} | {len(clip) - i for i in range(1, last)})
    assert len(cuts) >= number
    rows = taken({f"{cut:06d}": clip[:cut] for cut in cuts})
    whole = clip.rfind(b"\xff\xd9") + 2  # what follows the last frame's end closes the sequence and is not missed
    for cut in cuts:
        status = rows[f"{cut:06d}"].status
        if cut < 132 and cut > 0:
            assert status == "skipped"
        elif cut < whole:
            assert status == "failed", (cut, rows[f"{cut:06d}"])


@pytest.mark.parametrize("number", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_bit_flips(taken, clip, number):
    draw = random.Random(7)
    files = {}
    for i in range(number):
        content = bytearray(clip)
        # Half of them in the header, which is a tenth of the file and most of what can go wrong.
        position = draw.randrange(132, 3000) if i % 2 else draw.randrange(len(clip))
        content[position] ^= 1 << draw.randrange(8)
        files[f"{i:03d}"] = bytes(content)
    rows = taken(files)
    assert sum(row.is_clip for row in rows.values()) > number / 5


def edits(number):
    """Runs a test on so many examples, the same each time."""
    settings = hypothesis.settings(max_examples=number, deadline=None, derandomize=True, database=None)
    return lambda test: settings(hypothesis.given(data=st.data())(test))


@edits(30)
def test_a_few_bytes_replaced(clip, data):
    replace_a_few_bytes(clip, data)


@pytest.mark.slow
@edits(150)
def test_a_few_bytes_replaced_more_often(clip, data):
    replace_a_few_bytes(clip, data)


def replace_a_few_bytes(clip, data):
    """What a worker does with one file, for edits that shift, repeat and overwrite parts of it."""
    start = data.draw(st.integers(132, len(clip) - 1))
    length = data.draw(st.integers(0, 64))
    content = clip[:start] + data.draw(st.binary(max_size=64)) + clip[start + length :]
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "in"), Path(directory, "out/clip.mp4")
        source.write_bytes(content)
        row = convert_file(str(source), "in", target, SETTINGS)
        assert (row.status == "converted") == target.exists()
        assert row.status == "converted" or row.reason
        assert os.listdir(directory) == ["in"] or list(target.parent.iterdir()) in ([], [target])


def change(**elements):
    def apply(dataset):
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)

    return apply


def number_of_frames_as_text(dataset):
    dataset.add(pydicom.DataElement("NumberOfFrames", "LO", "many"))


def promises_too_much(dataset):
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.PixelData = bytes(1000)
    dataset.PhotometricInterpretation = "RGB"
    dataset.NumberOfFrames = 100_000


def wrong_stream(dataset):
    dataset.PixelData = encapsulate([b"no jpeg at all \xff\xd9"] * 5)


@pytest.mark.parametrize(
    ("apply", "reason"),
    [
        (change(NumberOfFrames=6), "NumberOfFrames is 6, the file holds only 5"),
        (change(NumberOfFrames=4), "NumberOfFrames is 4, the file holds more"),
        (change(Rows=65535, Columns=65535), "frames of 65535 x 65535 pixels cannot be right"),
        (change(Rows=241), "frame 0 is 240 x 320, the header says 241 x 320"),
        (number_of_frames_as_text, "NumberOfFrames is 'many'"),
        (promises_too_much, "the header promises 23040000000 bytes of pixels, the file holds 1012"),
        (change(Rows=[240, 240]), "Rows is '[240, 240]'"),
        (wrong_stream, "a frame is no JPEG stream, as its transfer syntax demands"),
        (lambda ds: ds.__delitem__("PixelData"), "PixelData is missing"),
    ],
)
def test_headers_that_lie(tmp_path, clip, apply, reason):
    (tmp_path / "in.dcm").write_bytes(clip)
    dataset = pydicom.dcmread(tmp_path / "in.dcm")
    apply(dataset)
    dataset.save_as(tmp_path / "in.dcm")
    row = convert_file(str(tmp_path / "in.dcm"), "in.dcm", tmp_path / "out.mp4", SETTINGS)
    assert (row.status, row.reason) == ("failed", reason)
    assert not (tmp_path / "out.mp4").exists()


def test_an_input_error_is_a_row(tmp_path, clip, monkeypatch):
    (tmp_path / "in.dcm").write_bytes(clip)

    def fails(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(frames, "places", fails)
    row = convert_file(str(tmp_path / "in.dcm"), "in.dcm", tmp_path / "out.mp4", SETTINGS)
    assert (row.status, row.reason) == ("failed", "cannot be read: Input/output error")


def test_a_file_that_vanishes_is_a_row(tmp_path):
    row = convert_file(str(tmp_path / "gone.dcm"), "gone.dcm", tmp_path / "out.mp4", SETTINGS)
    assert (row.status, row.reason) == ("failed", "cannot be opened: No such file or directory")


@pytest.mark.parametrize(
    "syntax", [uid.JPEGBaseline8Bit, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian]
)
def test_a_file_that_vanishes_while_it_is_read_is_unreadable(tmp_path, clip, syntax):
    path = tmp_path / "in.dcm"
    path.write_bytes(clip)
    dataset = pydicom.dcmread(path)
    if syntax != uid.JPEGBaseline8Bit:
        dataset.decompress()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)
    header = read_header(str(path))
    found = check_clip(str(path), *header, ())
    path.unlink()
    with pytest.raises(Unreadable, match="No such file or directory"):
        list(decode_frames(found))
    with pytest.raises(Unreadable, match="No such file or directory"):
        check_clip(str(path), *header, ())


def _as_nobody(directory, results):
    os.setuid(65534)
    results.put(convert_file(f"{directory}/in.dcm", "in.dcm", Path(directory, "out.mp4"), SETTINGS))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_file_without_read_permission_is_a_row(clip):
    directory = tempfile.mkdtemp()
    try:
        Path(directory, "in.dcm").write_bytes(clip)
        os.chmod(f"{directory}/in.dcm", 0)
        os.chmod(directory, 0o755)
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        process = context.Process(target=_as_nobody, args=(directory, results))
        process.start()
        row = results.get(timeout=PATIENCE)
        process.join()
    finally:
        shutil.rmtree(directory)
    assert (row.status, row.reason) == ("failed", "cannot be opened: Permission denied")
