"""Frames of a DICOM by their indices, and the encoder's input made of them: what the conversion has, or a reason."""

import itertools
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.pixels.encoders import RLELosslessEncoder

from echo_embeddings.convert.folder import convert_file
from echo_embeddings.core.manifest import CONVERTED, Row
from echo_embeddings.core.names import encode_name
from echo_embeddings.core.recipe import GUIDE, RECIPES, Recipe
from echo_embeddings.core.workers import Failure
from echo_embeddings.dicom.frames import decode_frames
from echo_embeddings.dicom.header import Skip, Unreadable, check_clip, read_header
from echo_embeddings.embed import masks, sampling
from echo_embeddings.embed.direct import DicomReader
from testing import REPOSITORY
from testing.conversion import SETTINGS, small_frames
from testing.corpus import CINE, path_of
from testing.dicoms import COLUMNS, NATIVE, ROWS, STORED, cine, clip_of, converted, decoded, drawn, save
from testing.streams import FRAMES as PICTURES
from testing.streams import STREAMS, dicom, stream_of

TABLE = [line.split("\t") for line in (REPOSITORY / "tests/data/corpus.tsv").read_text().splitlines()]
CLIPS = [name for name, status, *_ in TABLE if status == "converted"]


def picks(frames: int) -> list[list[int]]:
    """Which frames are asked for: one at either end and within, some, all."""
    return [[0], [frames // 2], [frames - 1], list(range(1, frames, 2)), list(range(frames))]


def check_picks(path, expected: np.ndarray) -> None:
    """By their indices the frames are those of `expected`."""
    for picked in picks(len(expected)):
        np.testing.assert_array_equal(decoded(path, picked), expected[picked])


# --- frames by their indices ------------------------------------------------------------------------


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("syntax", NATIVE)
def test_uncompressed_frames(tmp_path, syntax, stored):
    path = save(tmp_path / "clip.dcm", STORED[stored](), syntax)
    check_picks(path, decoded(path))


@pytest.mark.parametrize("name", CLIPS)
def test_every_clip_of_the_packages(name):
    clip = check_clip(path_of(name), *read_header(path_of(name)), ())
    expected = np.stack(list(decode_frames(clip)))
    for picked in picks(len(expected)):
        np.testing.assert_array_equal(np.stack(list(decode_frames(clip, picked))), expected[picked])


@pytest.mark.parametrize("name", STREAMS)
def test_video_streams(tmp_path, name):
    path = dicom(tmp_path / "clip.dcm", stream_of(name), STREAMS[name][0], 3)
    check_picks(path, decoded(path))


def grey(**elements) -> Dataset:
    return cine(drawn(5, ROWS, COLUMNS), "MONOCHROME2", **elements)


def colour(photometric: str) -> Dataset:
    return cine(drawn(5, ROWS, COLUMNS, 3), photometric)


def deep() -> Dataset:
    return cine(drawn(5, ROWS, COLUMNS, dtype=np.uint16) * 20, "MONOCHROME2", BitsStored=12, HighBit=11)


def runs(frame: np.ndarray) -> bytes:
    """The frame as RLE."""
    options = {
        "rows": frame.shape[0], "columns": frame.shape[1], "samples_per_pixel": 3 if frame.ndim == 3 else 1,
        "bits_allocated": 8 * frame.itemsize, "bits_stored": 8 * frame.itemsize, "pixel_representation": 0,
        "photometric_interpretation": "RGB" if frame.ndim == 3 else "MONOCHROME2", "number_of_frames": 1,
        "planar_configuration": 0,
    }  # fmt: skip
    return RLELosslessEncoder.encode(frame.tobytes(), **options)


def jpeg_2000(frame: np.ndarray) -> bytes:
    return imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True)


def lossless(frame: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(frame, lossless=True)


# What a compressed clip is: its transfer syntax, its data set without compression, how a frame is compressed.
COMPRESSED = {
    "JPEG": (uid.JPEGBaseline8Bit, lambda: colour("YBR_FULL_422"), imagecodecs.jpeg8_encode),
    "JPEG, grey": (uid.JPEGBaseline8Bit, grey, imagecodecs.jpeg8_encode),
    "JPEG, MONOCHROME1": (
        uid.JPEGBaseline8Bit, lambda: grey(PhotometricInterpretation="MONOCHROME1"), imagecodecs.jpeg8_encode
    ),
    "JPEG, 12 bits": (
        uid.JPEGExtended12Bit, deep, lambda frame: imagecodecs.jpeg8_encode(frame, bitspersample=12)
    ),
    "JPEG, lossless": (uid.JPEGLosslessSV1, grey, lossless),
    "JPEG-LS": (uid.JPEGLSLossless, lambda: colour("RGB"), imagecodecs.jpegls_encode),
    "JPEG-LS, 12 bits": (uid.JPEGLSLossless, deep, imagecodecs.jpegls_encode),
    "JPEG 2000": (uid.JPEG2000Lossless, lambda: colour("YBR_RCT"), jpeg_2000),
    "JPEG 2000, 12 bits": (uid.JPEG2000, deep, jpeg_2000),
    "RLE": (uid.RLELossless, lambda: colour("RGB"), runs),
    "RLE, YBR": (uid.RLELossless, lambda: colour("YBR_FULL"), runs),
    "RLE, 12 bits": (uid.RLELossless, deep, runs),
}  # fmt: skip


def compressed(path: Path, name: str, table: str = "none", fragments: int = 1) -> Path:
    """Write a compressed clip of five frames, with an offset table of that kind."""
    syntax, make, compress = COMPRESSED[name]
    dataset = make()
    pixels = np.frombuffer(dataset.PixelData, f"u{dataset.BitsAllocated // 8}")
    frames = [compress(frame) for frame in pixels.reshape(5, ROWS, COLUMNS, -1).squeeze()]
    if table == "extended":
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
            frames
        )
    else:
        dataset.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=table == "basic")
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return save(path, dataset, syntax)


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_frames(tmp_path, name):
    """However they are reached, and in however many fragments each lies."""
    several = [] if "RLE" in name else [("none", 3), ("basic", 3), ("basic", 2)]
    paths = [
        compressed(tmp_path / f"{table}-{fragments}.dcm", name, table, fragments)
        for table, fragments in [("none", 1), ("basic", 1), ("extended", 1), *several]
    ]
    expected = decoded(paths[0])
    assert len(np.unique(expected.reshape(5, -1), axis=0)) == 5
    for path in paths:
        assert converted(path).status == "converted"
        check_picks(path, expected)


def test_what_lies_between_is_not_read(tmp_path):
    """By a table, and by the items' headers where there is none."""
    dataset = pydicom.dcmread(CINE["large"])
    frames = list(generate_frames(dataset.PixelData, number_of_frames=120))
    for table in (False, True):
        dataset.PixelData = encapsulate(frames, has_bot=table)
        dataset.save_as(tmp_path / "clip.dcm")
        clip = clip_of(tmp_path / "clip.dcm")
        before = bytes_read()
        decoded(clip.path, [5, 60])
        assert bytes_read() - before < (0.1 if table else 0.5) * (tmp_path / "clip.dcm").stat().st_size


def bytes_read() -> int:
    """By this process, from whatever file."""
    return int(Path("/proc/self/io").read_text().split()[1])


# --- what is broken ---------------------------------------------------------------------------------

BROKEN_TABLES = {
    "from where the table begins": lambda table: [offset + 8 + 4 * len(table) for offset in table],
    "lengths of items' headers left out": lambda table: [offset - 8 * i for i, offset in enumerate(table)],
    "one late": lambda table: [*table[1:], table[-1] + 100],
    "two exchanged": lambda table: [table[0], table[2], table[1], *table[3:]],
    "one twice": lambda table: [*table[:2], table[1], *table[3:]],
    "one too many": lambda table: [*table, table[-1] + 8],
    "one too few": lambda table: table[:-1],
    "the second left out": lambda table: [table[0], *table[2:], table[-1] + 8],
    "one off": lambda table: [*table[:3], table[3] + 2, table[4]],
    "the last beyond the end": lambda table: [*table[:4], 2**31],
    "zeros": lambda table: [0] * len(table),
}


@pytest.mark.parametrize("name", ["JPEG", "RLE", "JPEG 2000"])
@pytest.mark.parametrize("broken", BROKEN_TABLES)
@pytest.mark.parametrize("kind", ["basic", "extended"])
def test_a_broken_offset_table(tmp_path, name, broken, kind):
    """The items' headers say where the frames are."""
    sound = compressed(tmp_path / "sound.dcm", name, kind)
    expected, dataset = decoded(sound), pydicom.dcmread(sound)
    if kind == "extended":
        table = struct.unpack("<5Q", dataset.ExtendedOffsetTable)
        wrong = BROKEN_TABLES[broken](list(table))
        dataset.ExtendedOffsetTable = struct.pack(f"<{len(wrong)}Q", *wrong)
    else:
        table = struct.unpack("<5L", dataset.PixelData[8:28])
        wrong = BROKEN_TABLES[broken](list(table))
        item = struct.pack(f"<HHL{len(wrong)}L", 0xFFFE, 0xE000, 4 * len(wrong), *wrong)
        dataset.PixelData = item + dataset.PixelData[28:]
    assert wrong != list(table)
    dataset.save_as(tmp_path / "broken.dcm")
    check_picks(tmp_path / "broken.dcm", expected)
    assert converted(tmp_path / "broken.dcm").status == "converted"


def test_an_extended_offset_beyond_all_files(tmp_path):
    dataset = pydicom.dcmread(compressed(tmp_path / "clip.dcm", "JPEG", "extended"))
    expected = decoded(tmp_path / "clip.dcm")
    dataset.ExtendedOffsetTable = dataset.ExtendedOffsetTable[:-8] + b"\xff" * 8
    dataset.save_as(tmp_path / "clip.dcm")
    check_picks(tmp_path / "clip.dcm", expected)


def clips(top: Path) -> dict[str, Path]:
    """A clip of each way to reach a frame."""
    made = {
        f"{name}, {table}": compressed(top / f"{i}.dcm", name, table)
        for i, (name, table) in enumerate(itertools.product(("JPEG", "RLE"), ("none", "basic", "extended")))
    }
    made["fragments"] = compressed(top / "fragments.dcm", "JPEG", "basic", 3)
    made["native"] = save(top / "native.dcm", colour("RGB"), uid.ExplicitVRLittleEndian)
    made["deflated"] = save(top / "deflated.dcm", colour("RGB"), uid.DeflatedExplicitVRLittleEndian)
    return made


def check_damaged(path: Path, sound: np.ndarray) -> bool:
    """A damaged file's frames are the conversion's; where that fails they are right, or fail too. Whether all fail."""
    try:
        expected = decoded(path)
    except (Skip, Unreadable):
        expected = None
    failed = 0
    for picked in picks(5):
        try:
            found = decoded(path, picked)
        except (Skip, Unreadable) as reason:
            assert str(reason)
            assert expected is None
            failed += 1
        else:
            np.testing.assert_array_equal(found, (sound if expected is None else expected)[picked])
    return failed == len(picks(5))


def test_truncated_files(tmp_path):
    for path in clips(tmp_path).values():
        content, sound = path.read_bytes(), decoded(path)
        lengths = range(200, len(content) - 200, len(content) // 25)
        damaged = tmp_path / "damaged.dcm"
        for length in lengths:
            damaged.write_bytes(content[:length])
            check_damaged(damaged, sound)
            with pytest.raises((Skip, Unreadable)):
                decoded(damaged, [4])


def test_flipped_bits(tmp_path):
    rng = np.random.default_rng(0)
    for path in clips(tmp_path).values():
        content, sound = path.read_bytes(), decoded(path)
        damaged = tmp_path / "damaged.dcm"
        for place in rng.integers(132, len(content), 40):
            changed = bytearray(content)
            changed[place] ^= 1 << rng.integers(8)
            damaged.write_bytes(changed)
            check_damaged(damaged, sound)


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_video_stream_that_is_cut_off(tmp_path, cut):
    stream = stream_of("H.264")
    path = dicom(tmp_path / "clip.dcm", stream[: int(cut * len(stream)) // 2 * 2], STREAMS["H.264"][0])
    sound = decoded(dicom(tmp_path / "sound.dcm", stream, STREAMS["H.264"][0]))
    for picked in ([0], [PICTURES // 2], [PICTURES - 1]):
        try:
            np.testing.assert_array_equal(decoded(path, picked), sound[picked])
        except Unreadable as reason:
            assert str(reason)
    with pytest.raises(Unreadable):
        decoded(path, [PICTURES - 1])


def test_a_video_stream_of_another_rate_than_the_header_says(tmp_path):
    """It is told of the first frames too."""
    path = dicom(tmp_path / "clip.dcm", stream_of("MPEG-2"), STREAMS["MPEG-2"][0], FrameTime="40")
    with pytest.raises(Unreadable, match="its video stream has 30 frames a second, the header says 25"):
        decoded(path, [0, 3])


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("name", ["JPEG", "RLE"])
def test_another_number_of_frames_than_the_header_says(tmp_path, name, change):
    for table in ("none", "basic", "extended"):
        dataset = pydicom.dcmread(compressed(tmp_path / "clip.dcm", name, table))
        dataset.NumberOfFrames += change
        dataset.save_as(tmp_path / "clip.dcm")
        for picked in (None, [0], [0, 3]):
            with pytest.raises(Unreadable, match=f"NumberOfFrames is {5 + change}, the file holds"):
                decoded(tmp_path / "clip.dcm", picked)


# --- what the encoder sees --------------------------------------------------------------------------


def with_extremes(pixels: np.ndarray, high: int = 255) -> np.ndarray:
    """The pixels, with 0 and `high` in every frame."""
    pixels[:, 0, 0], pixels[:, 0, 1] = 0, high
    return pixels


def row_of(path: Path) -> Row:
    """As the conversion's, without its MP4."""
    row = converted(path)
    assert row.status == CONVERTED, row.reason
    return row


def handed_over(path: Path, size: int, tmp_path: Path) -> np.ndarray:
    """The frames that the conversion hands to ffmpeg."""
    return np.stack(list(small_frames(clip_of(path), size, tmp_path)))


SHOWN = {
    "RGB": lambda: cine(with_extremes(drawn(40, 60, 80, 3)), "RGB"),
    "grey": lambda: cine(with_extremes(drawn(40, 60, 80)), "MONOCHROME2"),
    "MONOCHROME1": lambda: cine(with_extremes(drawn(40, 60, 80)), "MONOCHROME1"),
    "fewer frames than are sampled": lambda: cine(with_extremes(drawn(5, 60, 80, 3)), "RGB"),
    "extremes of 16 bits in a frame that is not sampled": lambda: cine(
        np.concatenate([drawn(40, 60, 80, dtype=np.uint16), np.full((1, 60, 80), 9000, np.uint16), drawn(40, 60, 80)]),
        "MONOCHROME2",
    ),
    "signed": lambda: cine(drawn(40, 60, 80, dtype=np.int16) - 100, "MONOCHROME2", PixelRepresentation=1),
    "palette": STORED["palette"],
}


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("shown", SHOWN)
def test_frames_are_those_that_the_conversion_hands_to_the_codec(tmp_path, shown, size):
    path = save(tmp_path / "a clip.dcm", SHOWN[shown](), uid.ExplicitVRLittleEndian)
    row = row_of(path)
    indices = sampling.frame_indices(row.frames, 16)
    expected = handed_over(path, size, tmp_path)
    np.testing.assert_array_equal(DicomReader(tmp_path, 16, GUIDE, size).read(row), expected[indices])


def test_the_real_cine(tmp_path):
    """Its sampled frames have the extremes of all of them."""
    path = Path(CINE["large"])
    row = convert_file(str(path), encode_name(path.name), tmp_path / "clip.mp4", SETTINGS)
    expected = handed_over(path, 256, tmp_path)[sampling.frame_indices(120, 16)]
    np.testing.assert_array_equal(DicomReader(path.parent, 16, GUIDE, 256).read(row), expected)


def test_eight_bits_are_stretched_from_the_frames_that_are_shown(tmp_path):
    pixels = drawn(40, 60, 80)
    pixels[1] = 255  # not sampled
    path = save(tmp_path / "clip.dcm", cine(pixels, "MONOCHROME2"), uid.ExplicitVRLittleEndian)
    indices = sampling.frame_indices(40, 16)
    alone = save(tmp_path / "alone.dcm", cine(pixels[indices], "MONOCHROME2"), uid.ExplicitVRLittleEndian)
    found = DicomReader(tmp_path, 16, GUIDE, 64).read(row_of(path))
    np.testing.assert_array_equal(found, handed_over(alone, 64, tmp_path))
    assert not np.array_equal(found, handed_over(path, 64, tmp_path)[indices])


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPES["echojepa"],
        Recipe("letterboxed", aspect="letterboxed"),
        Recipe("sector", mask="sector"),
        Recipe("two clips, looped", sampling="stride", stride=4, clips_per_video=2, padding="loop"),
    ],
    ids=lambda recipe: recipe.name,
)
def test_recipes(tmp_path, recipe):
    pixels = np.zeros((40, 60, 80, 3), np.uint8)
    pixels[:, 10:50, 20:60] = with_extremes(drawn(40, 40, 40, 3))
    path = save(tmp_path / "clip.dcm", cine(pixels, "RGB"), uid.ExplicitVRLittleEndian)
    row, whole = row_of(path), handed_over(path, 64, tmp_path)
    wanted = sampling.sample(40, 16, recipe, row.fps).flatten()
    expected = masks.show(whole[wanted], recipe, whole[masks.overview(recipe, row)], row)
    np.testing.assert_array_equal(DicomReader(tmp_path, 16, recipe, 64).read(row), expected)


def test_native_pictures_are_as_they_are_stored(tmp_path):
    pixels = with_extremes(drawn(40, 60, 80, 3))
    path = save(tmp_path / "clip.dcm", cine(pixels, "RGB"), uid.ExplicitVRLittleEndian)
    indices = sampling.frame_indices(40, 16)
    found = DicomReader(tmp_path, 16, Recipe("native", aspect="native"), 64).read(row_of(path))
    np.testing.assert_array_equal(found, pixels[indices])
    boxed = DicomReader(tmp_path, 16, Recipe("boxed", aspect="native", mask="echojepa-boxes"), 64).read(row_of(path))
    np.testing.assert_array_equal(boxed, pixels[indices] * masks.boxes(60, 80)[None, :, :, None])


def test_why_a_clip_cannot_be_shown(tmp_path):
    path = compressed(tmp_path / "clip.dcm", "JPEG")
    row, reader = row_of(path), DicomReader(tmp_path, 16, GUIDE, 64)
    path.write_bytes(path.read_bytes()[:-600])
    assert reader.read(row) == Failure("the file ends within a frame")
    path.write_bytes(b"")
    assert reader.read(row) == Failure("empty file")
    path.write_bytes(b"text")
    assert reader.read(row) == Failure("not DICOM")
    path.unlink()
    assert "No such file" in reader.read(row)
    save(path, grey(NumberOfFrames=4, PixelData=drawn(4, ROWS, COLUMNS).tobytes()), uid.ExplicitVRLittleEndian)
    assert reader.read(row) == Failure("NumberOfFrames is 4, the file holds more")
    still = Recipe("sector", mask="sector")
    save(path, cine(np.zeros((5, 60, 80), np.uint8), "MONOCHROME2"), uid.ExplicitVRLittleEndian)
    assert DicomReader(tmp_path, 16, still, 64).read(row) == Failure("no sector found: nothing moves")
