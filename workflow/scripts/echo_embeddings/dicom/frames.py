"""The frames of a DICOM file, one at a time, as pydicom's `pixel_array` has them."""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.pixels.utils import as_pixel_options

from ..core.files import FULL
from ..core.names import one_line
from .header import Clip, Unreadable, frame_bytes, same_size
from .places import places
from .source import open_data_set, pixel_element
from .streams import stream_frames
from .syntaxes import BY_PLUGIN, JPEG, JPEG_LS, LOSSLESS_JPEG, SAMPLES, VIDEO

_PLUGIN = "imagecodecs"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # of JPEG, start of frame


def decode_frames(clip: Clip, indices: Sequence[int] | None = None) -> Iterator[NDArray[Any]]:
    """Yield the frames `indices` (ascending, each once; None: all), one at a time, as pydicom's `pixel_array` has them.

    Colour (YBR and palettes turned into RGB) is [rows, columns, 3], grey [rows, columns]; uint8,
    uint16 or int16. MONOCHROME1 is not inverted here: its values are, once they are stretched. What lies between the
    frames is not decoded, unless it is a video stream's, and not judged.
    Raises `Unreadable` where a frame cannot be decoded or the number of frames is seen not to be NumberOfFrames,
    `OSError` where there is no room for a video stream in the directory of temporary files.
    """
    wanted = range(clip.number_of_frames) if indices is None else indices
    done = 0
    try:
        with contextlib.closing(_decoded(clip, wanted)) as decoded:
            for done, frame in enumerate(decoded):
                if clip.photometric == "PALETTE COLOR":
                    frame = apply_color_lut(frame, clip.dataset)[..., :3]  # noqa: PLW2901
                same_size(wanted[done], frame.shape[0], frame.shape[1], clip)
                dtype = np.dtype(np.int16) if frame.dtype == np.int8 else frame.dtype.newbyteorder("=")
                yield np.ascontiguousarray(frame, dtype)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise Unreadable(f"cannot be read: {error.strerror or one_line(error)}") from error
    except Unreadable:
        raise
    except Exception as error:  # a decoder raises whatever a broken byte leads it to
        raise Unreadable(f"frame {wanted[done]} cannot be decoded: {one_line(error)}") from error


def _decoded(clip: Clip, wanted: Sequence[int]) -> Generator[NDArray[Any]]:
    """The frames `wanted` as their decoder gives them, palettes not applied."""
    syntax = uid.UID(clip.transfer_syntax)
    with open_data_set(clip.path) as (file, _):
        vr, length = pixel_element(file, clip.pixel_offset, syntax.is_little_endian)
        if (length is None) != syntax.is_encapsulated:
            raise Unreadable(
                "PixelData is not encapsulated, as its transfer syntax demands"
                if syntax.is_encapsulated
                else "PixelData is encapsulated, which its transfer syntax is not"
            )
        options = as_pixel_options(
            clip.dataset, number_of_frames=clip.number_of_frames, pixel_keyword="PixelData", pixel_vr=vr
        )
        if length is not None:
            _right_amount(clip, length)
            yield from _native_frames(clip, file, options, wanted)
        elif syntax in VIDEO:
            yield from stream_frames(clip, file, wanted)
        elif syntax in JPEG:
            yield from _jpeg_frames(clip, file, wanted)
        else:
            yield from _other_frames(clip, file, options, wanted)


def _right_amount(clip: Clip, held: int) -> None:
    """Raise `Unreadable` if uncompressed pixel data of `held` bytes is not what the header promises.

    Behind the last frame there may be padding, up to a row.
    """
    promised = clip.number_of_frames * frame_bytes(clip)
    if clip.photometric == "YBR_FULL_422" and held // 3 * 2 == promised:
        raise Unreadable(
            "PhotometricInterpretation is YBR_FULL_422, and the pixels are not subsampled: RGB or YBR_FULL?"
        )
    if held - promised >= frame_bytes(clip):
        raise Unreadable(f"NumberOfFrames is {clip.number_of_frames}, the file holds more")
    if not 0 <= held - promised <= frame_bytes(clip) // clip.rows:
        raise Unreadable(f"the header promises {promised} bytes of pixels, the file holds {held}")


def _native_frames(
    clip: Clip, file: BinaryIO, options: dict[str, Any], wanted: Sequence[int]
) -> Iterator[NDArray[Any]]:
    """The uncompressed frames `wanted` of `file`, which stands where the first one begins."""
    decoder = get_decoder(clip.transfer_syntax)
    start = file.tell()
    for index in wanted:
        file.seek(start)
        # Not pydicom's iter_array: from the second frame on it has forgotten that YBR_FULL_422 is subsampled.
        yield decoder.as_array(file, index=index, **options)[0]


def _jpeg_frames(clip: Clip, file: BinaryIO, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Decode JPEG (baseline, extended, lossless) with libjpeg-turbo, straight to RGB where it can."""
    signed = clip.dataset.get("PixelRepresentation", 0) == 1
    lossless = clip.transfer_syntax in LOSSLESS_JPEG
    for number, data in zip(wanted, _encapsulated_frames(clip, file, wanted), strict=True):
        _check_whole(data)
        rows, columns, colour = _jpeg_header(data, clip.photometric)
        same_size(number, rows, columns, clip)  # before anything is allocated for it
        if SAMPLES[clip.photometric] == 1:
            frame = imagecodecs.jpeg8_decode(data)
            if signed:
                unused = 8 * frame.itemsize - clip.dataset.BitsStored
                frame = (frame.view(f"i{frame.itemsize}") << unused) >> unused
        elif colour == "YCBCR" and lossless:  # libjpeg-turbo transforms no colours in lossless frames
            frame = imagecodecs.jpeg8_decode(data, colorspace="YCBCR", outcolorspace="YCBCR")
            frame = convert_color_space(frame, "YBR_FULL", "RGB")
        else:
            frame = imagecodecs.jpeg8_decode(data, colorspace=colour, outcolorspace="RGB")
        yield frame


def _other_frames(clip: Clip, file: BinaryIO, options: dict[str, Any], wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Decode RLE by pydicom, JPEG-LS and JPEG 2000 by the plugin below."""
    syntax = uid.UID(clip.transfer_syntax)
    decoder, plugin = get_decoder(syntax), _PLUGIN if syntax in BY_PLUGIN else ""
    alone = {name: value for name, value in options.items() if name != "extended_offsets"} | {"number_of_frames": 1}
    for data in _encapsulated_frames(clip, file, wanted):
        yield next(decoder.iter_array(encapsulate([data], has_bot=False), decoding_plugin=plugin, **alone))[0]


def _encapsulated_frames(clip: Clip, file: BinaryIO, wanted: Sequence[int]) -> Iterator[bytes]:
    """The compressed frames `wanted`, read from the file one at a time."""
    for fragments in places(clip, file, wanted):
        pieces = []
        for position, length in fragments:
            file.seek(position)
            pieces.append(file.read(length))
        yield b"".join(pieces)


def _check_whole(frame: bytes) -> None:
    """Raise `Unreadable` if a compressed frame lacks the end mark of the JPEG family: decoders paint over it."""
    if frame.rfind(b"\xff\xd9") < 0:
        raise Unreadable("the file ends within a frame")


def _jpeg_header(data: bytes, photometric: str) -> tuple[int, int, str | None]:
    """Rows, columns and colour space of a JPEG stream; the last is None where libjpeg knows it better.

    An Adobe segment, or components named R, G, B, settle the colour space. Else a JFIF segment means
    YCbCr, and without one the DICOM's PhotometricInterpretation is believed, as pydicom does.
    """
    jfif, adobe = False, False
    for marker, segment in _jpeg_segments(data):
        adobe = adobe or (marker == 0xEE and segment.startswith(b"Adobe"))
        jfif = jfif or (marker == 0xE0 and segment.startswith(b"JFIF"))
        if marker in _FRAME_MARKERS:
            if adobe:
                colour = None
            elif bytes(segment[6::3]) in (b"RGB", b"rgb"):
                colour = "RGB"
            else:
                colour = "YCBCR" if jfif or photometric.startswith("YBR") else "RGB"
            return int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5]), colour
    raise Unreadable("a frame is no JPEG stream, as its transfer syntax demands")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker segments of a JPEG or JPEG-LS stream; any number of bytes FF may stand before each."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == 0xFF:
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4])
        yield data[position + 1], data[position + 4 : position + 2 + length]
        position += 2 + length


def _codestream_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG-LS or JPEG 2000 stream; None where it does not say them."""
    if data.startswith(b"\xff\xd8"):
        sizes = (segment[1:5] for marker, segment in _jpeg_segments(data) if marker == 0xF7)
        return next(((int.from_bytes(size[:2]), int.from_bytes(size[2:])) for size in sizes), None)
    siz = data.find(b"\xff\x4f\xff\x51")  # at the start, or in the boxes of a JP2 file
    if siz < 0:
        return None
    right, bottom, left, top = (int.from_bytes(data[at : at + 4]) for at in range(siz + 8, siz + 24, 4))
    return bottom - top, right - left


# --- a decoder plugin for pydicom (its guide: "Decoder plugins") -------------------------------------

DECODER_DEPENDENCIES = dict.fromkeys(BY_PLUGIN, ("imagecodecs",))


def is_available(syntax: str) -> bool:
    """Whether the plugin decodes the transfer syntax."""
    return syntax in BY_PLUGIN


def decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one JPEG-LS or JPEG 2000 frame for pydicom; colour by pixel, in host byte order."""
    size = _codestream_size(src)
    if size and size != (runner.rows, runner.columns):  # before anything is allocated for it
        raise Unreadable("is {} x {}, the header says {} x {}".format(*size, runner.rows, runner.columns))
    _check_whole(src)
    if runner.transfer_syntax in JPEG_LS:
        frame = imagecodecs.jpegls_decode(src)
    else:
        frame = imagecodecs.jpeg2k_decode(src)
        if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):  # OpenJPEG has undone it
            runner.set_option("photometric_interpretation", "RGB")
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", 8 * frame.itemsize)
    return bytearray(np.ascontiguousarray(frame).tobytes())


for _syntax in BY_PLUGIN:
    get_decoder(_syntax).add_plugin(_PLUGIN, (__name__, "decode_frame"))
