"""Frames to an MP4 file, by the ffmpeg program; videos to frames, by OpenCV or, where it is not sure, by ffmpeg."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from ..core.files import FULL, blake2b_of
from ..core.names import one_line
from ..core.settings import CODECS, ConvertSettings
from ..core.workers import KILLS, KilledError, program

# Why a video that the manifest has cannot be read.
GONE = "no such file"
DAMAGED = "its content is not what the manifest has the digest of"

# A filter of ffmpeg: each frame's time is its number. Where the rate varies, times that are rounded may be equal, and
# ffmpeg calls that an error.
COUNTED = "settb=1,setpts=N"


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
    with open(os.memfd_create("stderr"), "w+b") as errors:
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
    _check_killed(process)
    if process.returncode != 0:
        for number in FULL:
            if any(os.strerror(number) in line for line in said):
                raise OSError(number, os.strerror(number), os.fspath(path))
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
    """What a video states of itself: frames, height and width in pixels, frames a second (0: nothing).

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


def read(
    path: str | os.PathLike[str], indices: Sequence[int], frames: int, digest: str | None = None
) -> NDArray[np.uint8]:
    """Decode the frames `indices` (any order, repeats allowed) of a video as RGB uint8 [n, height, width, 3].

    `frames` is the number the file must have, `digest` what `blake2b_of` must give of it if that is known: decoders
    conceal a flipped bit. Interlaced frames are deinterlaced. Raises `VideoError` if the file cannot be decoded up to
    the last of `indices`, holds another number of frames, or has another digest.
    """
    if not Path(path).is_file():
        raise VideoError(GONE)
    if digest and blake2b_of(path) != digest:
        raise VideoError(DAMAGED)
    decoded = read_fast(path, indices, frames)
    return _read_surely(path, indices, frames) if decoded is None else decoded


def read_fast(path: str | os.PathLike[str], indices: Sequence[int], frames: int) -> NDArray[np.uint8] | None:
    """The same by OpenCV; None where it cannot be known that every frame is what the file holds.

    Where OpenCV cannot convert a decoded frame, an interlaced one for instance, it does not say so, and returns what
    lay in its buffer: the frame before, or at first anything. So a frame counts if it differs from the one before,
    and the first if it is the same when the buffer holds the last. Raises `VideoError` if the file is no video.
    """
    # One thread: the loader's workers are the parallelism.
    capture = cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            raise VideoError("cannot be opened as a video")
        if int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) != frames:
            return None
        wanted = sorted(set(indices))
        decoded: dict[int, NDArray[np.uint8]] = {}
        before = None
        for position in range(wanted[-1] + 1):
            done = capture.grab()
            if done and position in wanted:
                done, image = capture.retrieve()
            if not done:
                return None
            if position in wanted:
                if before is not None and np.array_equal(image, before):
                    return None
                decoded[position] = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
                before = image
        if wanted[-1] == frames - 1 and capture.grab():  # the number stated is too small
            return None
        capture.set(cv2.CAP_PROP_POS_FRAMES, wanted[0])
        done, image = capture.read()
        if not done or len(wanted) == 1 or not np.array_equal(image[..., ::-1], decoded[wanted[0]]):
            return None
    except cv2.error as error:
        raise VideoError(f"cannot be decoded: {one_line(error)}") from error
    finally:
        capture.release()
    return np.stack([decoded[index] for index in indices])


def _read_surely(path: str | os.PathLike[str], indices: Sequence[int], frames: int) -> NDArray[np.uint8]:
    """The same by the ffmpeg program, which takes longer."""
    _, height, width, _ = facts(path)
    wanted = set(indices)
    decoded: dict[int, NDArray[np.uint8]] = {}
    count = 0
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    with _decoding(path, f"bwdif=mode=send_frame:deint=interlaced,{COUNTED}", raw) as (process, _):
        assert process.stdout is not None
        while len(data := process.stdout.read(height * width * 3)) == height * width * 3:
            if count in wanted:
                decoded[count] = np.frombuffer(data, np.uint8).reshape(height, width, 3)
            count += 1
    if count != frames:
        raise VideoError(f"holds {count} frames, the manifest says {frames}")
    return np.stack([decoded[index] for index in indices])


def survey(path: str | os.PathLike[str]) -> tuple[int, bool]:
    """How many frames a player shows of a video, and whether some are interlaced; every frame is decoded.

    Raises `VideoError` if one cannot be.
    """
    with _decoding(path, f"showinfo,{COUNTED}", ("-f", "null", "-")) as (_, said):
        pass
    shown = [line for line in said if "Parsed_showinfo" in line and " pts_time:" in line]
    return len(shown), any(" i:T" in line or " i:B" in line for line in shown)


@contextlib.contextmanager
def _decoding(
    path: str | os.PathLike[str], filters: str, output: Sequence[str]
) -> Iterator[tuple[subprocess.Popen[bytes], list[str]]]:
    """Have ffmpeg decode a video: yields the process, and the lines that it says, which are there after the block.

    Raises `VideoError` with the first error among them, `KilledError` if it was killed.
    """
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-loglevel", "level+info", "-threads", "1",
        "-i", os.fspath(path), "-map", "0:v:0", "-fps_mode", "passthrough", "-vf", filters, *output,
    ]  # fmt: skip
    lines: list[str] = []
    with open(os.memfd_create("stderr"), "w+b") as errors:
        with program(command, stdout=subprocess.PIPE, stderr=errors) as process:
            try:
                yield process, lines
            except BaseException:
                process.kill()
                raise
        errors.seek(0)
        lines += errors.read().decode(errors="replace").splitlines()
    _check_killed(process)
    if wrong := [line for line in lines if "[error]" in line or "[fatal]" in line]:
        raise VideoError(f"cannot be decoded: {one_line(wrong[0])[:200]}")


def _check_killed(process: subprocess.Popen[bytes]) -> None:
    if process.returncode in KILLS:
        raise KilledError("ffmpeg was killed; the job ran out of memory?")
