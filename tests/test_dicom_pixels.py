"""Pixels that are stored in unusual ways, headers with broken values: what pydicom's `pixel_array` has, or a reason."""

import dataclasses
import math
import subprocess
import tempfile
import zlib
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import pixel_array

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert import video
from echo_embeddings.convert.folder import convert_file
from echo_embeddings.core import manifest
from echo_embeddings.dicom.frames import decode_frames
from echo_embeddings.dicom.header import Unreadable, describe_header, frame_rate, read_header
from testing.conversion import SETTINGS, convert_folder, paths_in
from testing.dicoms import (
    COLUMNS,
    FRAMES,
    NATIVE,
    ROWS,
    STORED,
    body_of,
    cine,
    clip_of,
    converted,
    decoded,
    deflated,
    drawn,
    save,
    save_bytes,
    subsampled,
)
from testing.processes import start_python

SCRIPTS = Path(video.__file__).parents[2]
# --- uncompressed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", NATIVE)
def test_uncompressed_subsampled_colour(tmp_path, syntax):
    pixels = drawn(FRAMES, ROWS, COLUMNS, 3)
    dataset = cine(pixels, "YBR_FULL_422", PixelData=subsampled(pixels))
    path = save(tmp_path / "clip.dcm", dataset, syntax)
    expected = pixel_array(pydicom.dcmread(path))
    assert len(np.unique(expected.mean(axis=(1, 2, 3)))) == FRAMES
    np.testing.assert_array_equal(decoded(path), expected)
    assert converted(path).status == "converted"


@pytest.mark.parametrize("syntax", NATIVE)
def test_colour_that_is_called_subsampled_and_is_not(tmp_path, syntax):
    """`pixel_array` refuses it: it may be YBR_FULL or RGB."""
    path = save(tmp_path / "clip.dcm", cine(drawn(FRAMES, ROWS, COLUMNS, 3), "YBR_FULL_422"), syntax)
    with pytest.raises(ValueError, match="may need to be changed to either 'RGB' or 'YBR_FULL'"):
        pixel_array(pydicom.dcmread(path))
    row = converted(path)
    assert (row.status, row.reason) == (
        "failed", "PhotometricInterpretation is YBR_FULL_422, and the pixels are not subsampled: RGB or YBR_FULL?"
    )  # fmt: skip


def expected_of(path) -> np.ndarray:
    dataset = pydicom.dcmread(path)
    array = pixel_array(dataset)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        array = pydicom.pixels.apply_color_lut(array, dataset)
    return array


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("syntax", NATIVE)
def test_uncompressed_pixels_are_those_of_pixel_array(tmp_path, syntax, stored):
    path = save(tmp_path / "clip.dcm", STORED[stored](), syntax)
    np.testing.assert_array_equal(decoded(path), expected_of(path))


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("says", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
def test_a_data_set_encoded_otherwise_than_the_meta_header_says(tmp_path, says, stored):
    implicit = says != uid.ImplicitVRLittleEndian
    tail = b"\xfc\xff\xfc\xff\x04\x00\x00\x00TAIL" if implicit else b"\xfc\xff\xfc\xffOB\x00\x00\x04\x00\x00\x00TAIL"
    for further in (b"", tail):  # of an element behind the pixels, which a shifted reader would take for some
        path = save(tmp_path / "clip.dcm", STORED[stored](), says, implicit=implicit, tail=further)
        np.testing.assert_array_equal(decoded(path), expected_of(path))
    assert converted(path).status == "converted"


COMPRESSED = {
    uid.JPEGBaseline8Bit: "pydicom/test_files/examples_ybr_color.dcm",
    uid.RLELossless: "OBXXXX1A_rle_2frame.dcm",
    uid.JPEG2000Lossless: "examples_jpeg2k.dcm",
}


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_compressed_frames_in_a_data_set_of_implicit_vr(tmp_path, syntax):
    dataset = pydicom.dcmread(get_testdata_file(Path(COMPRESSED[syntax]).name))
    assert dataset.file_meta.TransferSyntaxUID == syntax
    if dataset.get("NumberOfFrames", 1) == 1:  # a still, twice
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        dataset.PixelData, dataset.NumberOfFrames = encapsulate([frame, frame]), 2
    paths = [save(tmp_path / f"{implicit}.dcm", dataset, syntax, implicit) for implicit in (False, True)]
    np.testing.assert_array_equal(*map(decoded, paths))


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"NumberOfFrames": FRAMES - 1}, f"NumberOfFrames is {FRAMES - 1}, the file holds more"),
        ({"NumberOfFrames": FRAMES + 1}, None),
        ({"Rows": ROWS - 1}, "the header promises 8832 bytes of pixels, the file holds 9216"),
        ({"Columns": COLUMNS - 1}, "the header promises 8928 bytes of pixels, the file holds 9216"),
    ],
)
def test_more_or_fewer_pixels_than_the_header_says(tmp_path, syntax, change, reason):
    path = save(tmp_path / "clip.dcm", cine(drawn(FRAMES, ROWS, COLUMNS, 3), "RGB", **change), syntax)
    row = converted(path)
    assert row.status == "failed"
    assert reason is None or row.reason == reason
    assert reason or "holds" in row.reason


@pytest.mark.parametrize("syntax", NATIVE)
def test_padding_is_no_frame(tmp_path, syntax):
    pixels = drawn(FRAMES, ROWS, COLUMNS, 3)
    dataset = cine(pixels, "RGB", PixelData=pixels.tobytes() + bytes(14))
    np.testing.assert_array_equal(decoded(save(tmp_path / "clip.dcm", dataset, syntax)), pixels)


def test_uncompressed_syntax_with_encapsulated_pixels(tmp_path):
    source = pydicom.dcmread(get_testdata_file("examples_ybr_color.dcm"))
    path = save(tmp_path / "clip.dcm", source, uid.ExplicitVRLittleEndian)
    content = path.read_bytes()
    assert converted(path).reason.startswith("the header promises")
    source.Rows = source.Columns = 8  # so that there are bytes enough
    path = save(tmp_path / "clip.dcm", source, uid.ExplicitVRLittleEndian)
    assert len(path.read_bytes()) == len(content)
    assert converted(path).reason == "PixelData is encapsulated, which its transfer syntax is not"


# --- deflated ---------------------------------------------------------------------------------------

ROOM = """
import sys
from pathlib import Path
from testing.conversion import SETTINGS
from testing.processes import peak_memory
from echo_embeddings.convert.folder import convert_file
first, path, out = sys.argv[1:]
convert_file(first, "first", Path(out, "first.mp4"), SETTINGS)  # what is imported and kept for good
before = peak_memory()
row = convert_file(path, "second", Path(out, "second.mp4"), SETTINGS)
print(row.status, peak_memory() - before, row.reason, sep="|")
"""


def room(top: Path, path: Path) -> tuple[str, str, int]:
    """Status and reason of the file's row, and the KiB by which the process grew that converted it."""
    first = save(top / "first.dcm", cine(drawn(FRAMES, ROWS, COLUMNS, 3), "RGB"), NATIVE[-1])
    process = start_python("-c", ROOM, first, path, top, stdout=subprocess.PIPE)
    status, grown, reason = process.communicate()[0].strip().split("|")
    return status, reason, int(grown)


def zeros(mebibytes: int) -> bytes:
    """That many MiB of zeros as part of a deflated stream."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return (compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_FULL_FLUSH)) * mebibytes


def in_pieces(head: bytes, mebibytes: int, tail: bytes) -> bytes:
    """A deflated stream of head, zeros and tail."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(head) + compressor.flush(zlib.Z_FULL_FLUSH) + zeros(mebibytes) + deflated(tail)


def bomb(place: str) -> bytes:
    """The deflated data set of a clip with 1 GiB of zeros in an element of its header, or among its pixels."""
    dataset = cine(drawn(FRAMES, ROWS, COLUMNS, 3), "RGB")
    length = (2**30).to_bytes(4, "little")
    if place == "header":
        body = body_of(dataset)
        return in_pieces(b"\x05\x00\x00\x10UN\x00\x00" + length, 1024, body)
    del dataset.PixelData
    return in_pieces(body_of(dataset) + b"\xe0\x7f\x10\x00OB\x00\x00" + length, 1024, b"")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("header", "unreadable header: it inflates to more than 64 MB"),
        ("pixels", f"NumberOfFrames is {FRAMES}, the file holds more"),
    ],
)
def test_a_small_deflated_file_that_inflates_to_a_gibibyte(tmp_path, place, reason):
    path = save_bytes(tmp_path / "bomb.dcm", bomb(place), NATIVE[-1])
    assert path.stat().st_size < 2 * 2**20
    status, why, grown = room(tmp_path, path)
    assert (status, why) == ("failed", reason)
    assert grown < 150 * 1024


def test_a_deflated_clip_is_decoded_frame_by_frame(tmp_path):
    """Of 300 MB of pixels that deflate well only a frame or so is held."""
    pixels = np.zeros((320, 512, 640, 3), np.uint8)
    pixels[:, ::7] = np.arange(320, dtype=np.uint16).astype(np.uint8)[:, None, None, None]
    status, _, grown = room(tmp_path, save(tmp_path / "long.dcm", cine(pixels, "RGB"), NATIVE[-1]))
    assert status == "converted"
    assert grown < 200 * 1024


def test_a_deflated_clip_is_inflated_once(tmp_path):
    """And its header once more; not from its start for each frame."""
    path = save(tmp_path / "clip.dcm", cine(drawn(60, 100, 120, 3), "RGB"), NATIVE[-1])
    clip = clip_of(path)
    before = bytes_read()
    assert len(list(decode_frames(clip))) == 60
    assert bytes_read() - before < 2 * path.stat().st_size


def bytes_read() -> int:
    """By this process, from whatever file."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_deflated_file_that_is_cut_off(tmp_path):
    path = save(tmp_path / "clip.dcm", cine(drawn(FRAMES, ROWS, COLUMNS, 3), "RGB"), NATIVE[-1])
    content = path.read_bytes()
    for length in range(400, len(content), len(content) // 40):
        path.write_bytes(content[:length])
        assert converted(path).status == "failed"


# --- JPEG -------------------------------------------------------------------------------------------


def with_fill_bytes(frame: bytes) -> bytes:
    """The JPEG stream with one to three fill bytes before each marker of its header (ITU T.81, B.1.1.2)."""
    made, position, fill = frame[:2], 2, 1
    while frame[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(frame[position + 2 : position + 4])
        made, position, fill = made + b"\xff" * fill + frame[position:end], end, fill % 3 + 1
    return made + b"\xff" + frame[position:]


def test_fill_bytes_before_markers(tmp_path):
    path = get_testdata_file("examples_ybr_color.dcm")
    dataset = pydicom.dcmread(path)
    frames = [with_fill_bytes(frame) for frame in generate_frames(dataset.PixelData, number_of_frames=30)]
    dataset.PixelData = encapsulate(frames)
    dataset.save_as(tmp_path / "clip.dcm")
    np.testing.assert_array_equal(decoded(tmp_path / "clip.dcm"), decoded(path))


@pytest.mark.parametrize("name", ["examples_jpeg2k.dcm", "JPEGLSNearLossless_08.dcm", "JPEG2000.dcm"])
def test_a_codestream_of_another_size_than_the_header_says(tmp_path, name):
    """Refused before anything is allocated for it: 60,000 x 60,000 pixels in a stream of a few bytes are a bomb."""
    dataset = pydicom.dcmread(get_testdata_file(name))
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    size = dataset.Rows.to_bytes(2), dataset.Columns.to_bytes(2)
    huge = (60_000).to_bytes(2)
    jls = frame.find(b"\xff\xf7")
    if jls >= 0:
        place = jls + 5
        assert frame[place : place + 4] == size[0] + size[1]
        changed = frame[:place] + huge + huge + frame[place + 4 :]
    else:
        place = frame.find(b"\xff\x51") + 6
        assert frame[place : place + 8] == bytes(2) + size[1] + bytes(2) + size[0]
        changed = frame[:place] + bytes(2) + huge + bytes(2) + huge + frame[place + 8 :]
    dataset.PixelData, dataset.NumberOfFrames, dataset.Modality = encapsulate([changed, changed]), 2, "US"
    dataset.save_as(tmp_path / "clip.dcm")
    row = converted(tmp_path / "clip.dcm")
    assert row.status == "failed"
    assert f"60000 x 60000, the header says {dataset.Rows} x {dataset.Columns}" in row.reason


# --- headers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "rate"),
    [
        ({"FrameTime": "0.033333"}, None),  # in seconds
        ({"FrameTime": "0.033333", "RecommendedDisplayFrameRate": "30"}, 30),
        ({"FrameTime": "1E-16", "CineRate": "25"}, 25),
        ({"FrameTime": "1001"}, None),
        ({"FrameTime": "1000"}, 1),
        ({"FrameTime": "1"}, 1000),
        ({"CineRate": "1001"}, None),
        ({"RecommendedDisplayFrameRate": "2000", "CineRate": "60"}, 60),
        ({"FrameIncrementPointer": 0x00181065, "FrameTimeVector": [0, 0.02, 0.02], "CineRate": "50"}, 50),
        ({"FrameTime": "1e300"}, None),
        ({"FrameTime": "1e-320"}, None),
    ],
)
def test_absurd_rates_are_not_believed(tmp_path, attributes, rate):
    pixels = drawn(FRAMES, ROWS, COLUMNS, 3)
    path = save(tmp_path / "clip.dcm", cine(pixels, "RGB", **attributes), uid.ExplicitVRLittleEndian)
    assert frame_rate(read_header(str(path))[0]) == (None if rate is None else pytest.approx(rate))
    row = converted(path)
    assert (row.status, row.fps) == ("converted", None if rate is None else pytest.approx(rate))
    settings = dataclasses.replace(SETTINGS, fps="source")
    assert convert_file(str(path), path.name, tmp_path / "clip.mp4", settings).status == "converted"
    assert video.facts(tmp_path / "clip.mp4")[3] == pytest.approx(rate or 30, rel=1e-3)


# What is written into a header that is asked for by somebody, of whatever type it should be.
ASKED = [
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel",
    "PixelRepresentation", "PlanarConfiguration", "PhotometricInterpretation", "Modality", "FrameTime",
    "FrameTimeVector", "FrameIncrementPointer", "RecommendedDisplayFrameRate", "CineRate", "HeartRate",
    "Manufacturer", "ManufacturerModelName", "UltrasoundColorDataPresent", "SequenceOfUltrasoundRegions",
    "SOPClassUID", "SpecificCharacterSet", "ExtendedOffsetTable", "PatientWeight", "PatientName", "StudyDate",
]  # fmt: skip
TOLD_ONLY = {
    "FrameTime", "FrameTimeVector", "FrameIncrementPointer", "RecommendedDisplayFrameRate", "CineRate", "HeartRate",
    "Manufacturer", "ManufacturerModelName", "UltrasoundColorDataPresent", "SequenceOfUltrasoundRegions",
    "PatientWeight", "StudyDate",
}  # fmt: skip
REGION = [
    "RegionDataType", "RegionSpatialFormat", "RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1",
    "RegionLocationMaxY1",
]  # fmt: skip
TEXTS = st.sampled_from(
    [
        "1e300", "-1e300", "1e-300", "inf", "-inf", "nan", "abc", "1,5", "0x10", "1E", "", " ", "\\", "1\\2",
        "1e300\\inf", "9" * 30, "-5", "0", "2.5", "\x00", "\r\n\t", "é", "30 ", "1_000", "٣",
    ]
) | st.text(max_size=20)  # fmt: skip
VRS = ["DS", "IS", "US", "SS", "UL", "FD", "FL", "LO", "CS", "UI", "UN", "OB", "SQ", "AT", "PN", "DA", "UV", "OW", "LT"]
VALUES = TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=24)


def element(keyword: str, vr: str, value: bytes) -> bytes:
    """An element in explicit VR, little endian, whatever its value is worth."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    value += b" " * (len(value) % 2)
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode()
    if vr in ("OB", "OW", "UN", "SQ", "UV"):
        return head + bytes(2) + len(value).to_bytes(4, "little") + value
    return head + len(value).to_bytes(2, "little") + value


def with_elements(dataset: Dataset, changed: dict[str, bytes]) -> bytes:
    """The data set's bytes, with these elements in place of its own."""
    own = {e.keyword: e for e in dataset}
    keywords = sorted({*own, *changed}, key=pydicom.datadict.tag_for_keyword)
    parts = []
    for keyword in keywords:
        if keyword in changed:
            parts.append(changed[keyword])
        else:
            only = Dataset()
            only.add(own[keyword])
            parts.append(body_of(only))
    return b"".join(parts)


def item(elements: list[bytes]) -> bytes:
    body = b"".join(elements)
    return b"\xfe\xff\x00\xe0" + len(body).to_bytes(4, "little") + body


BASE = cine(drawn(2, ROWS, COLUMNS, 3), "RGB", FrameTime="33", HeartRate=70, Manufacturer="Maker")
OWN_VR = st.none() | st.sampled_from(VRS)


@st.composite
def bad_elements(draw):
    """A few elements of the header with values that they should not have, in VRs that they should not have."""
    changed = {}
    for keyword in draw(st.lists(st.sampled_from(ASKED), min_size=1, max_size=3, unique=True)):
        vr = draw(OWN_VR) or dictionary_VR(pydicom.datadict.tag_for_keyword(keyword)).split(" or ")[0]
        value = draw(VALUES)
        if keyword == "SequenceOfUltrasoundRegions" and vr == "SQ":
            regions = draw(st.lists(st.lists(st.tuples(st.sampled_from(REGION), st.sampled_from(VRS), VALUES))))
            value = b"".join(item([element(*one) for one in region]) for region in regions)
        changed[keyword] = element(keyword, vr, value)
    return changed


def check_row(row: manifest.Row, directory: Path) -> None:
    """A manifest holds the row as it is, and any reader of tables takes its numbers."""
    for name in manifest.INTEGERS:
        value = getattr(row, name)
        assert value is None or (type(value) is int and 0 <= value < 2**63), (name, value)
    assert row.fps is None or 1 <= row.fps <= 1000
    manifest.write(directory / "m.tsv", [row])
    (read,) = manifest.read(directory / "m.tsv")
    assert dataclasses.replace(read, fps=row.fps) == dataclasses.replace(row, reason=read.reason)
    assert read.fps == (None if row.fps is None else float(f"{row.fps:.6g}"))
    assert row.reason == "" or read.reason.strip()


@hypothesis.settings(max_examples=120, deadline=None, derandomize=True, database=None)
@hypothesis.given(changed=bad_elements())
def test_whatever_stands_in_a_header_ends_as_a_row(changed):
    with tempfile.TemporaryDirectory() as directory:
        path = save_bytes(Path(directory, "in.dcm"), with_elements(BASE, changed), uid.ExplicitVRLittleEndian)
        row = converted(path)
        check_row(row, Path(directory))
        if set(changed) <= TOLD_ONLY:  # what is only told of a clip never costs the clip
            assert (row.status, row.reason) == ("converted", "")


NUMBERS = ["1e300", "-1e300", "inf", "nan", "abc", "2.5", "9" * 30, "1e-300", ""]


@pytest.mark.parametrize("vr", ["DS", "IS"])
@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("keyword", ["NumberOfFrames", "FrameTime", "CineRate", "HeartRate", "Rows", "BitsAllocated"])
def test_numbers_that_are_none(tmp_path, keyword, vr, value):
    changed = {keyword: element(keyword, vr, value.encode())}
    path = save_bytes(tmp_path / "in.dcm", with_elements(BASE, changed), uid.ExplicitVRLittleEndian)
    row = converted(path)
    check_row(row, tmp_path)
    if keyword in TOLD_ONLY:
        assert row.status == "converted"
    elif keyword == "NumberOfFrames" and value == "":
        assert row.reason == "single frame"
    else:
        assert row.status == "failed"
        assert keyword in row.reason


def test_regions_whose_numbers_are_none_are_left_out(tmp_path):
    whole = [("RegionDataType", "US", b"\x01\x00"), ("RegionSpatialFormat", "US", b"\x01\x00")]
    corners = zip(REGION[2:], (2, 3, 20, 18), strict=True)
    whole += [(keyword, "UL", number.to_bytes(4, "little")) for keyword, number in corners]
    broken = [("RegionDataType", "DS", b"inf "), ("RegionSpatialFormat", "DS", b"1e300 "), *whole[2:]]
    for regions, box in (([broken], None), ([broken, whole], "2,3,20,18"), ([whole, broken], "2,3,20,18")):
        value = b"".join(item([element(*one) for one in region]) for region in regions)
        changed = {"SequenceOfUltrasoundRegions": element("SequenceOfUltrasoundRegions", "SQ", value)}
        path = save_bytes(tmp_path / "in.dcm", with_elements(BASE, changed), uid.ExplicitVRLittleEndian)
        row = converted(path)
        assert (row.status, row.tissue_box, row.kind) == ("converted", box, "bmode" if box else "unknown")


def test_a_limit_counts_past_headers_that_cannot_be_read(tmp_path):
    """`limit` reads headers in the main process: a broken one must not end it."""
    (tmp_path / "p10").mkdir()
    for i, value in enumerate(NUMBERS):
        for keyword in ("NumberOfFrames", "Rows"):
            changed = {keyword: element(keyword, "DS", value.encode())}
            name = tmp_path / f"p10/{keyword}{i}.dcm"
            save_bytes(name, with_elements(BASE, changed), uid.ExplicitVRLittleEndian)
    save(tmp_path / "p10/x.dcm", BASE, uid.ExplicitVRLittleEndian)
    limit = 1 + len(NUMBERS)
    rows = convert_folder(Folder("p10", str(tmp_path / "p10")), paths_in(tmp_path / "results"), limit=limit)
    assert rows["x.dcm"].status == "converted"
    assert len(rows) == 2 * len(NUMBERS) + 1


# --- kinds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        (uid.UltrasoundMultiFrameImageStorage, "bmode"),
        (uid.EnhancedUSVolumeStorage, "volume"),
        (uid.EnhancedMRImageStorage, "volume"),
        (uid.SecondaryCaptureImageStorage, "capture"),
        (uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage, "capture"),
        (uid.MultiFrameTrueColorSecondaryCaptureImageStorage, "capture"),
        (uid.EnhancedXAImageStorage, "bmode"),
        ("1.2.3.4", "bmode"),
    ],
)
@pytest.mark.parametrize("where", ["data set", "meta header"])
def test_volumes_and_captures_are_told_from_cines(tmp_path, sop_class, kind, where):
    region = Dataset()
    region.RegionDataType = region.RegionSpatialFormat = 1
    for keyword, number in zip(REGION[2:], (2, 3, 20, 18), strict=True):
        setattr(region, keyword, number)
    dataset = cine(drawn(FRAMES, ROWS, COLUMNS, 3), "RGB", SequenceOfUltrasoundRegions=[region], SOPClassUID=sop_class)
    if where == "meta header":
        path = tmp_path / "clip.dcm"
        del dataset.SOPClassUID
        save_bytes(path, body_of(dataset), uid.ExplicitVRLittleEndian, sop_class)
    else:
        path = save(tmp_path / "clip.dcm", dataset, uid.ExplicitVRLittleEndian)
    row = converted(path)
    assert (row.status, row.kind) == ("converted", kind)
    assert describe_header(read_header(str(path))[0])["kind"] == kind


def test_nothing_but_a_reason_comes_of_reading(tmp_path):
    """What a header's readers raise, for values of every kind."""
    for number in (math.inf, 1e300, -1.0):
        dataset = cine(drawn(2, ROWS, COLUMNS, 3), "RGB")
        dataset.NumberOfFrames = None
        body = with_elements(dataset, {"NumberOfFrames": element("NumberOfFrames", "FD", np.float64(number).tobytes())})
        path = save_bytes(tmp_path / "in.dcm", body, uid.ExplicitVRLittleEndian)
        with pytest.raises(Unreadable, match="NumberOfFrames"):
            clip_of(path)
