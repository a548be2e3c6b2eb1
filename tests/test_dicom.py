"""Every file of pydicom and pydicom-data: what it becomes, and that its pixels are right."""

import dataclasses
import os
import warnings
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_color_lut, pixel_array

from echo_embeddings.collection.units import Folder
from echo_embeddings.dicom.frames import decode_frames
from echo_embeddings.dicom.header import (
    Clip,
    Skip,
    Unreadable,
    check_clip,
    describe_header,
    frame_rate,
    number_of_frames,
    read_header,
)
from testing import REPOSITORY
from testing.conversion import SETTINGS, convert_folder, paths_in
from testing.corpus import CINE, PACKAGES, path_of

# path, status, reason, frames of every file of the two packages but Python's own.
TABLE = [line.split("\t") for line in (REPOSITORY / "tests/data/corpus.tsv").read_text().splitlines()]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("corpus")
    for name, path in PACKAGES.items():
        os.symlink(path, top / name)
    return top


def test_what_every_file_becomes(corpus, tmp_path):
    paths = dataclasses.replace(paths_in(tmp_path), folder="corpus")
    rows = convert_folder(Folder("corpus", str(corpus)), paths, dataclasses.replace(SETTINGS, modalities=())).values()
    found = [
        [row.path, row.status, row.reason, str(row.frames or "")]
        for row in rows
        if not row.path.endswith((".py", ".pyc"))
    ]
    assert found == TABLE
    written = {str(p.relative_to(paths.tree)) for p in paths.tree.rglob("*") if p.is_file()}
    assert written == {row.mp4 for row in rows if row.status == "converted"}


JPIP = uid.UID("1.2.840.10008.1.2.4.94")  # its pixels lie on a server
# Images that no decoder reads: no PixelData, too little of it, a broken codestream, PixelData that is not encapsulated.
BROKEN = {
    "pydicom/charset_files/chrJapMulti.dcm",
    "pydicom/charset_files/chrJapMultiExplicitIR6.dcm",
    "pydicom/charset_files/chrKoreanMulti.dcm",
    "pydicom/test_files/JPEG2000-embedded-sequence-delimiter.dcm",
    "pydicom/test_files/MR_truncated.dcm",
    "pydicom/test_files/SC_rgb_jpeg.dcm",
}
# Which of pydicom's own plugins is the oracle; none of them is what the workflow decodes with.
ORACLE = {
    **dict.fromkeys([uid.JPEGBaseline8Bit], "pillow"),
    **dict.fromkeys([uid.JPEGLossless, uid.JPEGLosslessSV1], "gdcm"),
    **dict.fromkeys([uid.JPEGLSLossless, uid.JPEGLSNearLossless], "pyjpegls"),
    **dict.fromkeys([uid.JPEG2000Lossless, uid.JPEG2000], "pylibjpeg"),
}


def images():
    """Every image of 8 or 16 bits in the packages, still or clip, that has an oracle."""
    for name, status, reason, _ in TABLE:
        if (status == "converted" or reason == "single frame") and name not in BROKEN:
            yield name


@pytest.mark.parametrize("name", list(images()))
def test_pixels_are_those_of_pydicom(name):
    path = path_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset, offset = read_header(path)
        syntax = dataset.file_meta.TransferSyntaxUID
        if dataset.get("BitsAllocated") not in (8, 16):
            pytest.skip("not converted: bit depth")
        clip = Clip(
            path, dataset, number_of_frames(dataset), dataset.Rows, dataset.Columns,
            dataset.PhotometricInterpretation, syntax, offset,
        )  # fmt: skip
        expected = oracle(path, dataset, syntax)
        found = np.stack(list(decode_frames(clip)))
    if clip.number_of_frames == 1 and expected.ndim < found.ndim:
        expected = expected[None]
    assert found.shape == expected.shape
    difference = np.abs(found.astype(np.int32) - expected.astype(np.int32))
    if syntax == uid.JPEGBaseline8Bit:
        assert difference.mean() <= 0.1
        assert difference.max() <= 8
    else:
        assert difference.max() == 0


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_images_that_nothing_reads(name):
    dataset, offset = read_header(path_of(name))
    dataset.NumberOfFrames = 2
    with pytest.raises(Unreadable):
        list(decode_frames(check_clip(path_of(name), dataset, offset, ())))


def oracle(path, dataset, syntax):
    if syntax == uid.JPEGExtended12Bit:  # pydicom's plugins leave 12 bits to a GPL one
        reader = gdcm.ImageReader()
        reader.SetFileName(path)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
        change.SetInput(reader.GetImage())
        assert change.Change()
        buffer = change.GetOutput().GetDataElement().GetByteValue().GetBuffer()
        return np.frombuffer(buffer.encode("utf-8", "surrogateescape"), np.uint16).reshape(dataset.Rows, -1)
    source = path if syntax != uid.DeflatedExplicitVRLittleEndian else pydicom.dcmread(path)
    array = pixel_array(source, decoding_plugin=ORACLE.get(syntax, ""))
    return apply_color_lut(array, dataset) if dataset.PhotometricInterpretation == "PALETTE COLOR" else array


def clip_of(path, modalities=()):
    dataset, offset = read_header(str(path))
    return check_clip(str(path), dataset, offset, modalities)


@pytest.fixture
def cine(tmp_path):
    """Writes the small cine with changes; returns its path."""

    def write(change=lambda ds: None, name="clip.dcm"):
        dataset = pydicom.dcmread(CINE["small"])
        change(dataset)
        dataset.save_as(tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: setattr(ds, "NumberOfFrames", 31), "NumberOfFrames is 31, the file holds only 30"),
        (lambda ds: setattr(ds, "NumberOfFrames", 29), "NumberOfFrames is 29, the file holds more"),
        (lambda ds: setattr(ds, "NumberOfFrames", 0), "NumberOfFrames is 0"),
        (lambda ds: setattr(ds, "NumberOfFrames", -3), "NumberOfFrames is -3"),
        (lambda ds: setattr(ds, "Rows", 65535), "frame 0 is 240 x 320, the header says 65535 x 320"),
        (lambda ds: ds.__delitem__("Columns"), "Columns is missing"),
        (lambda ds: ds.__delitem__("PhotometricInterpretation"), "PhotometricInterpretation is missing"),
        (lambda ds: ds.__delitem__("PixelData"), "PixelData is missing"),
        (lambda ds: setattr(ds, "PhotometricInterpretation", "HSV"), "unsupported PhotometricInterpretation HSV"),
        (lambda ds: setattr(ds, "SamplesPerPixel", 1), "SamplesPerPixel is 1 for YBR_FULL_422"),
        (lambda ds: setattr(ds, "BitsAllocated", 32), "unsupported bit depth: 32"),
        (lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", JPIP), "unsupported transfer syntax JPIP Referenced"),
    ],
)
def test_headers_that_cannot_be_right(cine, change, reason):
    with pytest.raises(Unreadable, match=reason):
        list(decode_frames(clip_of(cine(change))))


def test_a_missing_modality_counts_as_ultrasound(cine):
    assert clip_of(cine(lambda ds: ds.__delitem__("Modality")), ("US",)).number_of_frames == 30
    with pytest.raises(Skip, match="modality CT"):
        clip_of(cine(lambda ds: setattr(ds, "Modality", "CT")), ("US",))
    assert clip_of(cine(lambda ds: setattr(ds, "Modality", "CT")), ()).number_of_frames == 30


@pytest.mark.parametrize("cut", ["in the last frame", "between frames", "in the header", "in the mark"])
def test_truncated_files(cine, cut):
    path = cine()
    content = path.read_bytes()
    lengths = {"in the last frame": len(content) - 2000, "between frames": len(content) // 2}
    path.write_bytes(content[: lengths.get(cut, 700 if cut == "in the header" else 130)])
    with pytest.raises(Skip if cut == "in the mark" else Unreadable):
        list(decode_frames(clip_of(path)))


def test_empty_and_unreadable_files(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(Unreadable, match="empty file"):
        read_header(str(tmp_path / "empty"))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Skip, match="not a regular file"):
        read_header(str(tmp_path / "fifo"))


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("stream", ["no marker", "JFIF", "Adobe"])
def test_colours_of_streams_that_say_something_else(cine, photometric, stream):
    """What pydicom makes of them, but for Adobe streams that say YBR: those it turns into RGB twice."""

    def restate(dataset):
        frames = list(generate_frames(dataset.PixelData, number_of_frames=30))[:2]
        adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"
        jfif = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
        bare = [without_segments(frame) for frame in frames]
        segment = {"no marker": b"", "JFIF": jfif, "Adobe": adobe}[stream]
        dataset.PixelData = encapsulate([frame[:2] + segment + frame[2:] for frame in bare])
        dataset.NumberOfFrames = 2
        dataset.PhotometricInterpretation = photometric

    path = cine(restate)
    found = np.stack(list(decode_frames(clip_of(path))))
    as_rgb = not (stream == "Adobe" and photometric.startswith("YBR"))
    expected = pixel_array(path, decoding_plugin="pillow", as_rgb=as_rgb)
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.mean() <= 0.1
    assert difference.max() <= 8


def without_segments(frame: bytes) -> bytes:
    """The JPEG stream without its application segments."""
    kept, position = frame[:2], 2
    while frame[position] == 0xFF and frame[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(frame[position + 2 : position + 4])
        if not 0xE0 <= frame[position + 1] <= 0xEF:
            kept += frame[position:end]
        position = end
    return kept + frame[position:]


def test_deflated_and_fragmented_clips(cine):
    plain = np.stack(list(decode_frames(clip_of(cine()))))

    def split(dataset):
        frames = generate_frames(dataset.PixelData, number_of_frames=30)
        dataset.PixelData = encapsulate(list(frames), fragments_per_frame=3, has_bot=True)

    np.testing.assert_array_equal(np.stack(list(decode_frames(clip_of(cine(split))))), plain)

    def without_table(dataset):
        frames = generate_frames(dataset.PixelData, number_of_frames=30)
        dataset.PixelData = encapsulate(list(frames), fragments_per_frame=2, has_bot=False)

    np.testing.assert_array_equal(np.stack(list(decode_frames(clip_of(cine(without_table))))), plain)

    def deflate(dataset):
        dataset.PixelData = plain.tobytes()
        dataset.PhotometricInterpretation = "RGB"
        dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        dataset["PixelData"].VR = "OB"

    np.testing.assert_array_equal(np.stack(list(decode_frames(clip_of(cine(deflate))))), plain)


@pytest.mark.parametrize(
    ("attributes", "rate"),
    [
        ({"FrameTime": "33.333"}, 30.0003),
        ({"FrameTime": "0", "RecommendedDisplayFrameRate": "25"}, 25),
        ({"CineRate": "50"}, 50),
        ({"FrameIncrementPointer": 0x00181065, "FrameTimeVector": [0, 20, 20, 20], "FrameTime": "1"}, 50),
        ({}, None),
        ({"FrameIncrementPointer": 0x00181065, "FrameTimeVector": ["0", "", "33"], "CineRate": "25"}, 25),
        ({"FrameTime": "-5", "CineRate": "0"}, None),
    ],
)
def test_frame_rate(attributes, rate):
    dataset = pydicom.Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    found = frame_rate(dataset)
    assert found == (None if rate is None else pytest.approx(rate, abs=1e-3))


def region(data_type, spatial_format, box):
    item = pydicom.Dataset()
    item.RegionDataType, item.RegionSpatialFormat = data_type, spatial_format
    item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1, item.RegionLocationMaxY1 = box
    return item


@pytest.mark.parametrize(
    ("regions", "colour", "expected"),
    [
        ([(1, 1, (10, 5, 90, 60))], 0, {"region_data_types": "1", "tissue_box": "10,5,90,60", "kind": "bmode"}),
        ([(1, 1, (10, 5, 90, 60)), (2, 1, (20, 9, 80, 50))], 1, {"region_data_types": "1,2", "kind": "colour"}),
        ([(1, 1, (10, 5, 90, 30)), (3, 3, (0, 40, 99, 70))], 0, {"region_data_types": "1,3", "kind": "spectral"}),
        ([(1, 2, (10, 5, 90, 60))], 0, {"kind": "unknown", "tissue_box": None}),  # M-mode
        ([(1, 1, (10, 5, 100, 60))], 0, {"kind": "bmode", "tissue_box": None}),  # outside the picture
        ([], 1, {"kind": "colour", "ultrasound_color_data_present": 1}),
        ([], None, {"kind": "unknown", "ultrasound_color_data_present": None, "region_data_types": None}),
    ],
)
def test_what_the_header_tells(regions, colour, expected):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.Rows, dataset.Columns, dataset.HeartRate = 80, 100, 0
    dataset.Manufacturer, dataset.ManufacturerModelName = "Maker", "Model\t9"
    if colour is not None:
        dataset.UltrasoundColorDataPresent = colour
    dataset.SequenceOfUltrasoundRegions = [region(*r) for r in regions]
    found = describe_header(dataset)
    assert {name: found.get(name) for name in expected} == expected
    assert (found["manufacturer"], found["manufacturer_model_name"]) == ("Maker", "Model 9")
    assert "heart_rate" not in found


def test_the_stale_region_of_the_small_cine_gives_no_box():
    dataset, _ = read_header(CINE["small"])
    found = describe_header(dataset)
    assert "tissue_box" not in found
    assert "heart_rate" not in found
    assert found["kind"] == "bmode"
