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

from ..core.errors import UserError
from ..core.names import one_line
from ..core.settings import CODECS, ConvertSettings
from ..core.workers import KILLS, KilledError, program

GONE = "no such file"  # why an MP4 that the manifest has cannot be read


class VideoError(Exception):
    """An MP4 could not be written or read; the message says why."""


def write(
    path: str | os.PathLike[str], frames: Iterable[NDArray[np.uint8]], settings: ConvertSettings, fps: float
) -> int:
    """Write RGB uint8 `frames` [size, size, 3] to an MP4 at `path`; returns how many there were.

    The file carries no metadata of its source and is the same to the byte for the same frames and
    settings. Raises `VideoError` with ffmpeg's last line if it fails, `KilledError` if it was killed, `OSError` if the
    disk is full.
    """
    size = f"{settings.size}x{settings.size}"
    further = [part for key, value in settings.encoder_options.items() for part in (f"-{key}", str(value))]
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-loglevel", "error", "-y",
        "-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", size, "-framerate", f"{fps:.6g}", "-i", "-",
        "-an", "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", "1",
        "-vf", f"scale=flags={settings.scaler_flags}", "-pix_fmt", settings.pixel_format,
        "-c:v", settings.codec, CODECS[settings.codec].quality_option, f"{settings.quality:g}",
        "-g", str(settings.gop), *further,
        "-f", "mp4", os.fspath(path),
    ]  # fmt: skip
    count = 0
    with tempfile.TemporaryFile() as errors:
        with program(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors) as process:
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
    if process.returncode in KILLS:
        raise KilledError("ffmpeg was killed; the job ran out of memory?")
    if process.returncode != 0:
        if any(os.strerror(errno.ENOSPC) in line for line in said):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        raise VideoError(f"ffmpeg ended with {process.returncode}: {one_line(said[-1] if said else 'no message')}")
    return count


def check(settings: ConvertSettings) -> None:
    """Encode a few black frames. Raises `UserError` with what ffmpeg says if the settings do not go together."""
    frames = np.zeros((3, settings.size, settings.size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as directory:
        try:
            write(Path(directory, "check.mp4"), frames, settings, 30)
        except VideoError as error:
            raise UserError(f"config: convert: ffmpeg does not take codec, quality and options: {error}") from error


def facts(path: str | os.PathLike[str]) -> tuple[int, int, int, float]:
    """What an MP4 states of itself: frames, height and width in pixels, frames a second (0: nothing).

    Raises `VideoError` if it is no video.
    """
    capture = cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            raise VideoError("cannot be opened as a video")
        names = (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
        frames, height, width = (int(capture.get(name)) for name in names)
        return frames, height, width, float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()


def read(path: str | os.PathLike[str], indices: Sequence[int], frames: int) -> NDArray[np.uint8]:
    """Decode the frames `indices` (any order, repeats allowed) of an MP4 as RGB uint8 [n, height, width, 3].

    `frames` is the number the file must have. Raises `VideoError` if the file cannot be decoded up to
    the last of `indices` or states another number of frames.
    """
    if not Path(path).is_file():
        raise VideoError(GONE)
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
    except cv2.error as error:
        raise VideoError(f"cannot be decoded: {one_line(error)}") from error
    finally:
        capture.release()
    return np.stack([decoded[index] for index in indices])
