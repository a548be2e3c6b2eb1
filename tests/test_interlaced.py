"""MP4 files of other makers: interlaced, cut by an edit list, without motion; every frame is what the file holds."""

import dataclasses
import subprocess

import av
import imageio_ffmpeg
import numpy as np
import pytest

from echo_embeddings.convert import probe, video
from echo_embeddings.core.manifest import CONVERTED
from echo_embeddings.embed.folder import corrected
from testing.embedding import MODEL

MOVING = "testsrc2=size=256x256:rate=30:duration=1"
INTERLACED = {
    "mpeg2video": ("-q:v", "3"),
    "mpeg4": ("-q:v", "3"),
    "libx264": ("-x264opts", "tff=1"),
}


def ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


def make(path, codec, *options, interlaced=False, source=MOVING):
    weave = ("-vf", "interlace", "-flags", "+ilme+ildct", *INTERLACED[codec]) if interlaced else ()
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", codec, *weave, *options, path)


def decoded(path):
    """All frames as PyAV decodes them, fields woven."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read_all(path):
    row = probe.probe_file(str(path.parent), path.name)
    assert row.status == CONVERTED, row
    return row, video.read(path, range(row.frames), row.frames)


@pytest.mark.parametrize("codec", INTERLACED)
def test_interlaced_frames_are_deinterlaced(tmp_path, codec):
    path = tmp_path / "clip.mp4"
    make(path, codec, interlaced=True)
    make(tmp_path / "other.mp4", "mpeg4", source="mandelbrot=size=256x256:rate=30,trim=duration=1")
    read_all(tmp_path / "other.mp4")  # whose picture lies in memory that is free now
    row, frames = read_all(path)
    assert row.reason == "deinterlaced"
    woven = decoded(path)
    assert frames.shape == woven.shape
    # One field stays where it is, the other is drawn anew.
    apart = np.abs(frames.astype(int) - woven).mean(axis=(0, 2, 3))
    assert min(apart[4:-4:2].mean(), apart[5:-4:2].mean()) < 4 < apart.max()
    assert len({frame.tobytes() for frame in frames}) == len(frames)


def test_half_interlaced(tmp_path):
    for interlaced in (False, True):
        make(tmp_path / f"{interlaced}.mpg", "mpeg2video", "-f", "mpeg2video", interlaced=interlaced)
    both = (tmp_path / "False.mpg").read_bytes() + (tmp_path / "True.mpg").read_bytes()
    (tmp_path / "both.m2v").write_bytes(both)
    path = tmp_path / "both.mp4"
    ffmpeg("-f", "mpegvideo", "-framerate", "30", "-i", tmp_path / "both.m2v", "-c", "copy", path)
    row, frames = read_all(path)
    assert row.reason == "deinterlaced"
    woven = decoded(path)
    assert len(frames) == len(woven) == 45
    assert np.array_equal(frames[:28], woven[:28])  # progressive frames stay as they are
    assert np.abs(frames.astype(int) - woven).mean() < 10


def test_frames_without_motion_are_read_as_they_are(tmp_path):
    """OpenCV alone cannot tell them from frames that it did not decode."""
    make(tmp_path / "still.mp4", "mpeg4", "-q:v", "3", source="color=c=0x305070:size=64x64:rate=30:duration=1")
    assert video.read_fast(tmp_path / "still.mp4", range(30), 30) is None
    assert np.array_equal(video.read(tmp_path / "still.mp4", range(30), 30), decoded(tmp_path / "still.mp4"))


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_an_edit_list_cuts_frames_away(tmp_path, codec):
    make(tmp_path / "whole.mp4", codec)
    path = tmp_path / "cut.mp4"
    ffmpeg("-ss", "0.5", "-i", tmp_path / "whole.mp4", "-c", "copy", path)
    row, frames = read_all(path)
    assert row.reason == ""
    assert row.frames == len(frames) == 15
    assert np.array_equal(frames, decoded(tmp_path / "whole.mp4")[15:])


def test_a_file_that_ends_too_early_is_not_taken_for_one_that_is_cut(tmp_path):
    make(tmp_path / "whole.mp4", "mpeg4", "-movflags", "+faststart")
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    row = probe.probe_file(str(tmp_path), "half.mp4")
    assert row.status == "failed"
    assert "partial file" in row.reason


def test_a_vector_of_a_deinterlaced_clip_is_not_that_of_an_earlier_version(tmp_path):
    make(tmp_path / "clip.mp4", "mpeg4", interlaced=True)
    row = probe.probe_file(str(tmp_path), "clip.mp4")
    model = dataclasses.replace(MODEL, resolution=256)  # larger than the video
    before = corrected(tmp_path, dataclasses.replace(row, reason=""), model)
    assert corrected(tmp_path, row, model) == f"{before}+0.2.0-interlaced"
