"""Video streams inside DICOM: MPEG-2, H.264 and HEVC as ffmpeg makes them, encapsulated, and decoded again."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert import video
from echo_embeddings.dicom.frames import decode_frames
from testing.conversion import convert_folder, paths_in
from testing.dicoms import clip_of, converted, decoded, save
from testing.processes import small_disk, start_python, until
from testing.streams import COLUMNS, FFMPEG, FRAMES, H264, MPEG2, RATE, ROWS, STREAMS, dicom, encoded, moving, stream_of


@pytest.mark.parametrize("fragments", [1, 7])
@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_becomes_its_frames(tmp_path, name, fragments):
    path = dicom(tmp_path / "clip.dcm", stream_of(name), STREAMS[name][0], fragments)
    found, expected = decoded(path), moving()
    assert found.shape == expected.shape
    distance = np.abs(found[:, None].astype(int) - expected[None].astype(int)).mean(axis=(2, 3, 4))
    np.testing.assert_array_equal(distance.argmin(axis=1), np.arange(FRAMES))  # each frame is its own, in order
    assert distance.diagonal().max() < 4, "levels of 255: what the codec loses"
    row = converted(path)
    assert (row.status, row.frames, row.rows, row.columns, row.fps) == (
        "converted", FRAMES, ROWS, COLUMNS, pytest.approx(RATE),
    )  # fmt: skip
    assert row.transfer_syntax == STREAMS[name][0]


def test_progressive_frames_are_left_as_they_are(tmp_path):
    """What decides whether a frame is deinterlaced changes no other: pixels are those of ffmpeg without the filter."""
    stream = stream_of("H.264")
    plain = subprocess.run(
        [FFMPEG, "-loglevel", "error", "-i", "-", "-fps_mode", "passthrough",
         "-sws_flags", "accurate_rnd+full_chroma_int", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"],
        input=stream, check=True, capture_output=True,
    ).stdout  # fmt: skip
    expected = np.frombuffer(plain, np.uint8).reshape(FRAMES, ROWS, COLUMNS, 3)
    np.testing.assert_array_equal(decoded(dicom(tmp_path / "clip.dcm", stream, uid.MPEG4HP41)), expected)


INTERLACED = {
    "MPEG-2": (uid.MPEG2MPML, [*MPEG2, "-flags", "+ildct+ilme", "-f", "mpeg2video"]),
    "H.264": (uid.MPEG4HP41, [*H264, "-x264-params", "tff=1", "-f", "h264"]),
}


@pytest.mark.parametrize("codec", INTERLACED)
def test_interlaced_streams_are_deinterlaced(tmp_path, codec):
    """A bar that moves on with each field: in woven frames every second line has it elsewhere."""
    fields = np.full((2 * FRAMES, ROWS, COLUMNS, 3), 16, np.uint8)
    for i, field in enumerate(fields):
        field[:, 4 + 2 * i : 24 + 2 * i] = 235
    syntax, options = INTERLACED[codec]
    stream = encoded(fields, options, 2 * RATE, "interlace=lowpass=off")
    found = decoded(dicom(tmp_path / "clip.dcm", stream, syntax))
    assert found.shape == (FRAMES, ROWS, COLUMNS, 3)
    woven = np.where(np.arange(ROWS)[:, None, None] % 2, fields[1::2], fields[::2])
    combing, before = (np.abs(np.diff(frames[2:-2].astype(int), axis=1)).mean() for frames in (found, woven))
    assert combing < before / 5
    assert converted(tmp_path / "clip.dcm").status == "converted"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"NumberOfFrames": FRAMES + 1}, f"NumberOfFrames is {FRAMES + 1}, the file holds only {FRAMES}"),
        ({"NumberOfFrames": FRAMES - 1}, f"NumberOfFrames is {FRAMES - 1}, the file holds more"),
        ({"NumberOfFrames": 2}, "NumberOfFrames is 2, the file holds more"),
        ({"Rows": ROWS + 1}, f"frame 0 is {ROWS} x {COLUMNS}, the header says {ROWS + 1} x {COLUMNS}"),
        ({"FrameTime": "40"}, "its video stream has 30 frames a second, the header says 25"),
        ({"FrameTime": "16.7"}, "its video stream has 30 frames a second, the header says 59.8802"),
        ({"Rows": 8, "Columns": 8}, f"frame 0 is {ROWS} x {COLUMNS}, the header says 8 x 8"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unsupported PhotometricInterpretation PALETTE COLOR"),
    ],
)
def test_frames_and_rate_are_held_against_the_header(tmp_path, changes, reason):
    row = converted(dicom(tmp_path / "clip.dcm", stream_of("H.264"), uid.MPEG4HP41, **changes))
    assert row.status == "failed"
    assert row.reason.startswith(reason)


@pytest.mark.parametrize("name", STREAMS)
def test_a_rate_nearly_that_of_the_header(tmp_path, name):
    """29.97 is called 30; other rates are told, whatever the stream lies in."""
    syntax, options = STREAMS[name]
    assert converted(dicom(tmp_path / "a.dcm", encoded(moving(), options, "30000/1001"), syntax)).status == "converted"
    row = converted(dicom(tmp_path / "b.dcm", encoded(moving(), options, "25"), syntax))
    assert row.reason == "its video stream has 25 frames a second, the header says 30"


def test_a_stream_of_frames_that_are_much_too_large(tmp_path):
    """Refused before ffmpeg allocates them."""
    stream = encoded(np.zeros((2, 2160, 3840, 3), np.uint8), STREAMS["H.264"][1])
    row = converted(dicom(tmp_path / "clip.dcm", stream, uid.MPEG4HP41, NumberOfFrames=2))
    assert row.status == "failed"
    assert row.reason.startswith("its h264 stream cannot be decoded: ")
    assert "exceeds specified max pixel count" in row.reason


def test_a_stream_that_states_no_rate(tmp_path):
    """ffmpeg gives it 25 frames a second, which is nobody's statement."""
    stream = encoded(moving(), ["-c:v", "libopenh264", "-pix_fmt", "yuv420p", "-f", "h264"], 50)
    said = subprocess.run([FFMPEG, "-hide_banner", "-i", "-"], input=stream, capture_output=True, check=False).stderr
    assert b"25 fps" in said
    row = converted(dicom(tmp_path / "clip.dcm", stream, uid.MPEG4HP41, FrameTime="20"))
    assert (row.status, row.fps) == ("converted", 50)


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("vp9", ["-c:v", "libvpx-vp9", "-f", "mp4"]),
        ("mjpeg", ["-c:v", "mjpeg", "-f", "mp4"]),
        ("av1", ["-c:v", "libaom-av1", "-cpu-used", "8", "-f", "mp4"]),
    ],
)
def test_what_cannot_be_decoded_names_its_codec(tmp_path, codec, options):
    row = converted(dicom(tmp_path / "clip.dcm", encoded(moving(), options), uid.MPEG4HP41))
    assert row.status == "failed"
    assert row.reason.startswith(f"its {codec} stream cannot be decoded: Codec (")
    assert "0x" not in row.reason


def test_a_stream_that_names_other_files_reads_none_of_them(tmp_path):
    """A playlist in the place of a stream would have ffmpeg read, and show, any file or address."""
    (tmp_path / "secret.ts").write_bytes(stream_of("H.264 in a transport stream"))
    for playlist in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{tmp_path}/secret.ts'\n",
    ):
        row = converted(dicom(tmp_path / "clip.dcm", playlist.encode(), uid.MPEG4HP41))
        assert row.status == "failed"
        assert row.reason.startswith("its video stream cannot be decoded: ")


@pytest.mark.parametrize("name", ["MPEG-2", "H.264", "H.264 in MP4", "HEVC"])
def test_damaged_streams(tmp_path, name):
    """Cut anywhere, a stream fails; with bytes overwritten it fails too, and is not concealed."""
    stream, syntax = stream_of(name), STREAMS[name][0]
    for cut in (1, 1000, len(stream) // 3, len(stream) * 2 // 3):
        row = converted(dicom(tmp_path / "clip.dcm", stream[:cut], syntax))
        assert row.status == "failed"
        assert row.reason
    start = stream.find(b"mdat") + 3000 if "MP4" in name else 3000
    spoiled = bytearray(stream)
    for i in range(start, len(stream) - 3000, 200):
        spoiled[i : i + 100] = os.urandom(100)
    assert converted(dicom(tmp_path / "clip.dcm", bytes(spoiled), syntax)).status == "failed"


def test_a_file_cut_off_within_its_stream(tmp_path):
    path = dicom(tmp_path / "clip.dcm", stream_of("H.264"), uid.MPEG4HP41)
    path.write_bytes(path.read_bytes()[:-5000])
    assert converted(path).reason == "the file ends within its video stream"


def test_a_video_that_is_not_encapsulated(tmp_path):
    stream = stream_of("H.264")
    path = dicom(tmp_path / "clip.dcm", stream, uid.MPEG4HP41)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = stream + bytes(len(stream) % 2)
    dataset["PixelData"].is_undefined_length = False
    assert converted(save(path, dataset, uid.MPEG4HP41)).reason == (
        "PixelData is not encapsulated, as its transfer syntax demands"
    )


def test_a_folder_of_streams(tmp_path):
    """Through the workers, beside other files."""
    (tmp_path / "p10").mkdir()
    for name, (syntax, _) in STREAMS.items():
        dicom(tmp_path / f"p10/{name}.dcm", stream_of(name), syntax)
    (tmp_path / "p10/other.txt").write_text("no DICOM")
    paths = paths_in(tmp_path / "results")
    rows = convert_folder(Folder("p10", str(tmp_path / "p10")), paths)
    assert {path for path, row in rows.items() if row.status == "converted"} == {f"{name}.dcm" for name in STREAMS}
    for row in rows.values():
        if row.status == "converted":
            video.read(paths.tree / row.mp4, range(FRAMES), FRAMES)


# --- the process ------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_ffmpeg_ends_when_nobody_wants_more_frames(tmp_path):
    frames = decode_frames(clip_of(dicom(tmp_path / "clip.dcm", stream_of("H.264"), uid.MPEG4HP41)))
    next(frames)
    (child,) = [pid for pid in children(os.getpid()) if "ffmpeg" in Path(f"/proc/{pid}/cmdline").read_text()]
    frames.close()
    assert not Path(f"/proc/{child}").exists()  # it has been waited for


DECODE_ONE = """
import sys, time
from echo_embeddings.dicom.frames import decode_frames
from testing.dicoms import clip_of
frames = decode_frames(clip_of(sys.argv[1]))
next(frames)
print("decoding", flush=True)
time.sleep(3600)
"""


def test_ffmpeg_ends_with_its_worker(tmp_path):
    stream = encoded(moving(200), STREAMS["H.264"][1])
    path = dicom(tmp_path / "clip.dcm", stream, uid.MPEG4HP41, NumberOfFrames=200)
    worker = start_python("-c", DECODE_ONE, path, stdout=subprocess.PIPE)
    assert worker.stdout.readline() == "decoding\n"
    (child,) = children(worker.pid)
    assert "ffmpeg" in Path(f"/proc/{child}/cmdline").read_text()
    worker.kill()
    worker.communicate()
    until(lambda: state_of(child) in ("", "Z"))


def state_of(pid: int) -> str:
    """A letter, as proc(5) has it; nothing if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_no_room_for_the_stream_is_no_fault_of_the_file(tmp_path, monkeypatch):
    """The directory of temporary files is full: the job ends with that, and the file has no row."""
    path = dicom(tmp_path / "clip.dcm", stream_of("H.264") * 40, uid.MPEG4HP41)
    with small_disk(tmp_path / "small", "64k"):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "small"))
        with pytest.raises(OSError, match="No space left on device"):
            decoded(path)


ROOM = """
import resource, sys
from pathlib import Path
from testing.conversion import SETTINGS
from testing.processes import peak_memory
from echo_embeddings.convert.folder import convert_file
before = peak_memory()
row = convert_file(sys.argv[1], "clip", Path(sys.argv[2], "clip.mp4"), SETTINGS)
programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(row.status, row.reason, peak_memory() - before, programs, sep="|")
"""


def test_a_stream_is_decoded_frame_by_frame(tmp_path):
    """120 frames of 708 x 1016 are 260 MB; what is held is a frame or so, here and in ffmpeg."""
    frames = np.tile(moving(20, 708, 1016), (6, 1, 1, 1))
    stream = encoded(frames, ["-c:v", "mpeg2video", "-q:v", "4", "-f", "mpeg2video"])
    changes = {"NumberOfFrames": 120, "Rows": 708, "Columns": 1016}
    path = dicom(tmp_path / "clip.dcm", stream, uid.MPEG2MPHL, **changes)
    process = start_python("-c", ROOM, path, tmp_path, stdout=subprocess.PIPE)
    status, reason, own, programs = process.communicate()[0].strip().split("|")
    assert (status, reason) == ("converted", "")
    assert int(own) < 150 * 1024, "KiB, of which 24 MB are small frames that wait"
    assert int(programs) < 200 * 1024, "KiB"


def test_every_video_syntax_of_pydicom_is_one_that_is_meant():
    """One that a later pydicom knows would be taken for a video unseen."""
    assert all(re.fullmatch(r"1\.2\.840\.10008\.1\.2\.4\.10[0-8](\.1)?", one) for one in uid.MPEGTransferSyntaxes)
    assert len(uid.MPEGTransferSyntaxes) == 16
