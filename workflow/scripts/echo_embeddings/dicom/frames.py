"""The frames of a DICOM file, one at a time, as pydicom's `pixel_array` has them."""

from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.pixels.utils import iter_pixels

from ..core.names import one_line
from .header import Clip, Unreadable
from .syntaxes import BY_PLUGIN, JPEG, JPEG_LS, LOSSLESS_JPEG, SAMPLES

_PLUGIN = "imagecodecs"


def decode_frames(clip: Clip) -> Iterator[NDArray[Any]]:
    """Yield every frame of the clip, one at a time, with the colours of pydicom's `pixel_array`.

    Colour (YBR and palettes turned into RGB) is [rows, columns, 3], grey [rows, columns]; uint8,
    uint16 or int16. MONOCHROME1 is not inverted here: its values are, once they are stretched.
    Raises `Unreadable` where a frame cannot be decoded or their number is not NumberOfFrames.
    """
    count = 0
    try:
        for frame in _decoded(clip):
            if clip.photometric == "PALETTE COLOR":
                frame = apply_color_lut(frame, clip.dataset)[..., :3]  # noqa: PLW2901
            _same_size(count, frame.shape[0], frame.shape[1], clip)
            count += 1
            if count > clip.number_of_frames:
                break
            dtype = np.dtype(np.int16) if frame.dtype == np.int8 else frame.dtype.newbyteorder("=")
            yield np.ascontiguousarray(frame, dtype)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or one_line(error)}") from error
    except Unreadable:
        raise
    except Exception as error:  # a decoder raises whatever a broken byte leads it to
        raise Unreadable(f"frame {count} cannot be decoded: {one_line(error)}") from error
    if count != clip.number_of_frames:
        more = "more" if count > clip.number_of_frames else f"only {count}"
        raise Unreadable(f"NumberOfFrames is {clip.number_of_frames}, the file holds {more}")


def _decoded(clip: Clip) -> Iterator[NDArray[Any]]:
    """The frames as their decoder gives them, palettes not applied."""
    if clip.transfer_syntax in JPEG:
        yield from _jpeg_frames(clip)
        return
    deflated = clip.transfer_syntax == uid.DeflatedExplicitVRLittleEndian  # it has to be inflated as a whole
    plugin = _PLUGIN if clip.transfer_syntax in BY_PLUGIN else ""
    yield from iter_pixels(pydicom.dcmread(clip.path) if deflated else clip.path, decoding_plugin=plugin)


def _jpeg_frames(clip: Clip) -> Iterator[NDArray[Any]]:
    """Decode JPEG (baseline, extended, lossless) with libjpeg-turbo, straight to RGB where it can."""
    signed = clip.dataset.get("PixelRepresentation", 0) == 1
    lossless = clip.transfer_syntax in LOSSLESS_JPEG
    for number, data in enumerate(_encapsulated_frames(clip)):
        rows, columns, colour = _jpeg_header(data, clip.photometric)
        _same_size(number, rows, columns, clip)  # before anything is allocated for it
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


def _same_size(number: int, rows: int, columns: int, clip: Clip) -> None:
    """Raise `Unreadable` unless frame `number` has the size that the header says."""
    if (rows, columns) != (clip.rows, clip.columns):
        raise Unreadable(f"frame {number} is {rows} x {columns}, the header says {clip.rows} x {clip.columns}")


def _encapsulated_frames(clip: Clip) -> Iterator[bytes]:
    """The compressed frames, read from the file one at a time."""
    with open(clip.path, "rb") as file:
        file.seek(clip.pixel_offset)
        if file.read(12)[8:] != b"\xff\xff\xff\xff":
            raise Unreadable("PixelData is not encapsulated, as its transfer syntax demands")
        offsets = clip.dataset.get("ExtendedOffsetTable")
        lengths = clip.dataset.get("ExtendedOffsetTableLengths")
        for frame in generate_frames(
            file,
            number_of_frames=clip.number_of_frames,
            extended_offsets=(offsets, lengths) if offsets and lengths else None,
        ):
            yield _whole(frame)


def _whole(frame: bytes) -> bytes:
    """The compressed frame. Raises `Unreadable` if it lacks the end mark of the JPEG family: decoders paint over it."""
    if frame.rfind(b"\xff\xd9") < 0:
        raise Unreadable("the file ends within a frame")
    return frame


def _jpeg_header(data: bytes, photometric: str) -> tuple[int, int, str | None]:
    """Rows, columns and colour space of a JPEG stream; the last is None where libjpeg knows it better.

    An Adobe segment, or components named R, G, B, settle the colour space. Else a JFIF segment means
    YCbCr, and without one the DICOM's PhotometricInterpretation is believed, as pydicom does.
    """
    jfif, adobe, position = False, False, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        segment = data[position + 4 : position + 2 + length]
        adobe = adobe or (marker == 0xEE and segment.startswith(b"Adobe"))
        jfif = jfif or (marker == 0xE0 and segment.startswith(b"JFIF"))
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            if adobe:
                colour = None
            elif bytes(segment[6::3]) in (b"RGB", b"rgb"):
                colour = "RGB"
            else:
                colour = "YCBCR" if jfif or photometric.startswith("YBR") else "RGB"
            return int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5]), colour
        position += 2 + length
    raise Unreadable("a frame is no JPEG stream, as its transfer syntax demands")


# --- a decoder plugin for pydicom (its guide: "Decoder plugins") -------------------------------------

DECODER_DEPENDENCIES = dict.fromkeys(BY_PLUGIN, ("imagecodecs",))


def is_available(syntax: str) -> bool:
    """Whether the plugin decodes the transfer syntax."""
    return syntax in BY_PLUGIN


def decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one JPEG-LS or JPEG 2000 frame for pydicom; colour by pixel, in host byte order."""
    if runner.transfer_syntax in JPEG_LS:
        frame = imagecodecs.jpegls_decode(_whole(src))
    else:
        frame = imagecodecs.jpeg2k_decode(_whole(src))
        if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):  # OpenJPEG has undone it
            runner.set_option("photometric_interpretation", "RGB")
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", 8 * frame.itemsize)
    return bytearray(np.ascontiguousarray(frame).tobytes())


for _syntax in BY_PLUGIN:
    get_decoder(_syntax).add_plugin(_PLUGIN, (__name__, "decode_frame"))
