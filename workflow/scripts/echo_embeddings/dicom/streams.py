"""Video streams in DICOM (MPEG-2, H.264, HEVC: transfer syntaxes .4.100 to .4.108), decoded by the ffmpeg program."""

import itertools
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, BinaryIO

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import parse_basic_offsets

from ..core.names import one_line
from ..core.workers import program
from .header import Clip, Unreadable, check_number, frame_rate, same_size
from .places import fragments
from .source import PIECE

# What a stream may be. Without these lists a file could have ffmpeg read others that its content names.
FORMATS = "mpegvideo,mpeg,mpegts,h264,hevc,m4v,mov"
CODECS = "mpeg1video,mpeg2video,mpeg4,h264,hevc"
RATE_TOLERANCE = 0.02  # of the header's rate: 29.97 frames a second are often called 30, and 30 are not 25

_WHERE = r"(?:\[\S+ @ 0x[0-9a-f]+\] )*"  # which part of ffmpeg says something


def stream_frames(clip: Clip, file: BinaryIO, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield frames of the video stream in `file`, which stands where its pixel data begins: RGB uint8 [.., .., 3].

    The stream is decoded up to the last frame of `wanted`, which ascends. Interlaced frames are deinterlaced; there are
    as many as before. Raises `Unreadable` where the stream cannot be
    decoded, or its frames or rate are not those that the header states; `OSError` if the directory of temporary files
    is full. ffmpeg ends with the generator, and with this process.
    """
    end = wanted[-1] + 1
    if end == clip.number_of_frames:
        end += 1  # to see that there is none
    with tempfile.TemporaryFile() as stream, tempfile.TemporaryFile() as said:
        _copy_stream(file, stream)
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info",
            "-format_whitelist", FORMATS, "-codec_whitelist", CODECS, "-max_pixels", str(_most_pixels(clip)),
            "-xerror", "-err_detect", "crccheck+explode", "-threads", "1", "-i", "/dev/stdin",
            "-map", "0:v:0", "-filter_threads", "1", "-vf", "bwdif=mode=send_frame:deint=interlaced",
            "-fps_mode", "passthrough", "-noautoscale", "-sws_flags", "accurate_rnd+full_chroma_int",
            "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-",
        ]  # fmt: skip
        with program(command, stdin=stream, stdout=subprocess.PIPE, stderr=said) as process:
            assert process.stdout is not None
            count = 0
            try:
                for picture in itertools.islice(_pictures(process.stdout, clip), end):
                    count += 1
                    if count - 1 in wanted:
                        yield picture
            except BaseException:  # GeneratorExit among them
                process.kill()
                raise
            if count == end:
                process.kill()
        said.seek(0)
        _judge(said.read().decode(errors="replace").splitlines(), 0 if count == end else process.returncode, clip)
    if count < end or end > clip.number_of_frames:
        check_number(clip, count)


def _copy_stream(file: BinaryIO, stream: IO[bytes]) -> None:
    """Write the stream, which lies in `file` in one or more fragments, to `stream`: ffmpeg has to seek in it."""
    parse_basic_offsets(file)
    for position, length in list(fragments(file, file.tell())):
        file.seek(position)
        left = length
        while left:
            piece = file.read(min(left, PIECE))
            if not piece:
                raise Unreadable("the file ends within its video stream")
            stream.write(piece)
            left -= len(piece)
    stream.flush()
    stream.seek(0)


def _most_pixels(clip: Clip) -> int:
    """Of a frame that ffmpeg is to decode, so that a stream cannot have it allocate what it likes."""
    return (
        2 * clip.rows * clip.columns + 2**16
    )  # streams are coded in blocks, and what is little off has a better reason


def _pictures(pipe: IO[bytes], clip: Clip) -> Iterator[NDArray[Any]]:
    """The PPM pictures that come out of `pipe`."""
    number = 0
    while pipe.readline() == b"P6\n":
        columns, rows = map(int, pipe.readline().split())
        same_size(number, rows, columns, clip)
        pipe.readline()  # the largest value, 255
        data = pipe.read(rows * columns * 3)
        if len(data) == rows * columns * 3:  # else it ended, and says why
            yield np.frombuffer(data, np.uint8).reshape(rows, columns, 3)
        number += 1


def _judge(said: list[str], status: int, clip: Clip) -> None:
    """Raise `Unreadable` if ffmpeg met an error in the stream, or its rate is not what the header states."""
    video = [line for line in said if "Video: " in line]
    errors = [match[1] for line in said if (match := re.match(_WHERE + r"\[(?:error|fatal)\] (.*)", line))]
    if status or errors:
        codec = re.findall(r"Video: (\w+)", video[0])[0] if video else "video"
        why = one_line(errors[0] if errors else f"ffmpeg ended with {status}")
        raise Unreadable(f"its {codec} stream cannot be decoded: {why}")
    # The first line is of the input, the last of the output. Where a bare stream states no rate, tbr and tbn are equal.
    unit, rate = re.search(r"(\S+) tbr, (\S+) tbn", video[0]), re.search(r"([\d.]+) fps", video[-1])
    stated = frame_rate(clip.dataset)
    if stated and rate and unit and unit[1] != unit[2] and abs(float(rate[1]) / stated - 1) > RATE_TOLERANCE:
        raise Unreadable(f"its video stream has {rate[1]} frames a second, the header says {stated:.6g}")
