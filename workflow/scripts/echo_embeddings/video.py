"""Frames to an MP4 file, by the ffmpeg program; and back, by OpenCV."""

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from .files import one_line

# Codec -> the ffmpeg options that set its quality.
CODECS = {
    "libx264": lambda quality: ["-crf", str(quality), "-preset", "veryfast"],
    "mpeg4": lambda quality: ["-q:v", str(quality)],
}


class VideoError(Exception):
    """An MP4 could not be written or read; the message says why."""


def write(
    path: str | os.PathLike[str],
    frames: Iterable[NDArray[np.uint8]],
    size: int,
    fps: float,
    codec: str,
    quality: int,
) -> int:
    """Write RGB uint8 `frames` [size, size, 3] to an MP4 at `path`; returns how many there were.

    The file carries no metadata of its source and is the same to the byte for the same frames and
    settings. Raises `VideoError` with ffmpeg's last line if it fails, `OSError` if the disk is full.
    """
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-loglevel", "error", "-y",
        "-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{size}x{size}", "-framerate", str(fps), "-i", "-",
        "-an", "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", "1",
        "-vf", "scale=flags=area+accurate_rnd+full_chroma_int", "-pix_fmt", "yuv420p",
        "-c:v", codec, *CODECS[codec](quality), "-f", "mp4", os.fspath(path),
    ]  # fmt: skip
    count = 0
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors) as process:
            assert process.stdin is not None
            try:
                for frame in frames:
                    process.stdin.write(np.ascontiguousarray(frame).data)
                    count += 1
                process.stdin.close()
            except BrokenPipeError:  # ffmpeg ended: what it said follows
                pass
            except BaseException:
                process.kill()
                raise
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    if process.returncode != 0:
        if any(os.strerror(errno.ENOSPC) in line for line in said):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        raise VideoError(f"ffmpeg ended with {process.returncode}: {one_line(said[-1] if said else 'no message')}")
    return count


def read(path: str | os.PathLike[str], indices: Sequence[int], frames: int) -> NDArray[np.uint8]:
    """Decode the frames `indices` (any order, repeats allowed) of an MP4 as RGB uint8 [n, height, width, 3].

    `frames` is the number the file must have. Raises `VideoError` if the file cannot be decoded up to
    the last of `indices` or states another number of frames.
    """
    if not Path(path).is_file():
        raise VideoError("no such file")
    # One thread: the loader's workers are the parallelism.
    capture = cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            raise VideoError("cannot be opened as a video")
        stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if stated != frames:
            raise VideoError(f"holds {stated} frames, the manifest says {frames}")
        wanted = set(indices)
        decoded: dict[int, NDArray[np.uint8]] = {}
        for position in range(max(wanted) + 1):
            done = capture.grab()
            if done and position in wanted:
                done, image = capture.retrieve()
            if not done:
                raise VideoError(f"frame {position} of {frames} cannot be decoded")
            if position in wanted:
                decoded[position] = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        capture.release()
    return np.stack([decoded[index] for index in indices])
