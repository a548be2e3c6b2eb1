"""The header of a DICOM file: what it says of a clip, and whether the clip can be decoded."""

import logging
import math
import os
import stat
import warnings
from dataclasses import dataclass
from typing import Any

import pydicom
from pydicom import uid

from ..core.names import one_line
from .archives import unpack_command
from .mark import has_dicom_mark
from .syntaxes import BY_PLUGIN, JPEG, NATIVE, SAMPLES

_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # its tag in little and big endian

HEART_RATE_MAX = 400  # beats a minute; more is no heart rate
FRAME_PIXELS_MAX = 2**26  # no ultrasound frame has more; a header that says so is not believed

# What is wrong with a file is told by its row; pydicom's many words about odd headers help nobody.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")


class Skip(Exception):
    """The file is none that is converted; the message is the reason."""


class Unreadable(Exception):
    """The file should be converted and cannot be; the message is the reason."""


@dataclass(frozen=True)
class Clip:
    """A multi-frame DICOM that can be decoded, as its header describes it."""

    path: str
    dataset: pydicom.Dataset  # without its pixel data
    number_of_frames: int
    rows: int
    columns: int
    photometric: str  # PhotometricInterpretation
    transfer_syntax: str
    pixel_offset: int  # of the element with the pixel data in the file, bytes


# --- header ---------------------------------------------------------------------------------------


def read_header(path: str) -> tuple[pydicom.Dataset, int | None]:
    """The header of the DICOM file at `path`, and the offset of its pixel data in bytes (None: there is none).

    Raises `Skip` for what is no DICOM image file (a file without DICOM's mark, a DICOMDIR) and
    `Unreadable` for an empty file and for one that bears the mark and cannot be read.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise Skip("not a regular file")
        if status.st_size == 0:
            raise Unreadable("empty file")
        if not has_dicom_mark(path):
            raise Skip("an archive of DICOM: unpack it" if unpack_command(path) else "not DICOM")
        with open(path, "rb") as file:
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
            offset = file.tell()
            deflated = dataset.file_meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian
            has_pixels = deflated or file.read(4) in _PIXEL_DATA
            list(dataset.iterall())  # every value is parsed here, so that a broken one is found here
    except OSError as error:
        raise Unreadable(f"cannot be opened: {error.strerror or one_line(error)}") from error
    except (Skip, Unreadable):
        raise
    except Exception as error:  # pydicom raises whatever a broken byte leads it to
        raise Unreadable(f"unreadable header: {one_line(error)}") from error
    if dataset.file_meta.get("MediaStorageSOPClassUID") == uid.MediaStorageDirectoryStorage:
        raise Skip("DICOMDIR")
    return dataset, offset if has_pixels else None


def describe_header(dataset: pydicom.Dataset) -> dict[str, Any]:
    """What the header alone tells, under the names of the manifest's columns.

    A value that is absent or absurd is left out.
    """
    regions = _regions(dataset)
    colour = dataset.get("UltrasoundColorDataPresent")
    heart_rate = _positive(dataset.get("HeartRate"), int)
    found: dict[str, Any] = {
        "rows": _positive(dataset.get("Rows"), int),
        "columns": _positive(dataset.get("Columns"), int),
        "fps": frame_rate(dataset),
        "photometric": _text(dataset.get("PhotometricInterpretation")),
        "transfer_syntax": _text(dataset.file_meta.get("TransferSyntaxUID")),
        "manufacturer": _text(dataset.get("Manufacturer")),
        "manufacturer_model_name": _text(dataset.get("ManufacturerModelName")),
        "ultrasound_color_data_present": colour if colour in (0, 1) else None,
        "region_data_types": ",".join(str(kind) for kind in sorted({r.data_type for r in regions})) or None,
        "tissue_box": _tissue_box(regions, dataset.get("Columns"), dataset.get("Rows")),
        "heart_rate": heart_rate if heart_rate and heart_rate <= HEART_RATE_MAX else None,
        "kind": _kind(regions, colour),
    }
    return {name: value for name, value in found.items() if value is not None}


def _text(value: object) -> str | None:
    return one_line(value) if value else None


@dataclass(frozen=True)
class _Region:
    """An item of SequenceOfUltrasoundRegions (DICOM PS3.3, C.8.5.5)."""

    data_type: int  # RegionDataType: 1 tissue, 2 colour flow, 3 and 4 spectral Doppler, others traces and bars
    spatial_format: int  # RegionSpatialFormat: 1 two-dimensional, 2 M-mode, 3 spectral
    box: tuple[int, int, int, int]  # first column, first row, last column, last row


def _regions(dataset: pydicom.Dataset) -> list[_Region]:
    """The ultrasound regions that are whole; one that lacks a number is left out."""
    corners = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    found = []
    for item in dataset.get("SequenceOfUltrasoundRegions") or []:
        try:
            numbers = [int(item[name].value) for name in ("RegionDataType", "RegionSpatialFormat", *corners)]
        except (KeyError, TypeError, ValueError):
            continue
        found.append(_Region(numbers[0], numbers[1], (numbers[2], numbers[3], numbers[4], numbers[5])))
    return found


def _tissue_box(regions: list[_Region], columns: object, rows: object) -> str | None:
    """The box of the largest two-dimensional tissue or colour region, None if it does not lie in the picture."""
    boxes = [r.box for r in regions if r.data_type in (1, 2) and r.spatial_format == 1]
    if not boxes or not isinstance(columns, int) or not isinstance(rows, int):
        return None
    x0, y0, x1, y1 = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    return f"{x0},{y0},{x1},{y1}" if 0 <= x0 < x1 < columns and 0 <= y0 < y1 < rows else None


def _kind(regions: list[_Region], colour: object) -> str:
    """bmode, colour, spectral or unknown, as the regions and UltrasoundColorDataPresent say."""
    types = {r.data_type for r in regions if r.spatial_format == 1}
    if any(r.data_type in (3, 4) for r in regions):
        return "spectral"
    if 2 in types or colour == 1:
        return "colour"
    return "bmode" if 1 in types else "unknown"


def _positive(value: object, kind: type) -> Any:
    """`value` as a finite positive number of type `kind`, or None where it is none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return kind(number) if math.isfinite(number) and number > 0 else None


def frame_rate(dataset: pydicom.Dataset) -> float | None:
    """The rate that the header states, frames a second; None where it states none.

    FrameTime (ms), or FrameTimeVector (ms, its first entry is none) where FrameIncrementPointer
    leads to it, else RecommendedDisplayFrameRate, else CineRate (DICOM PS3.3, C.7.6.5).
    """
    if dataset.get("FrameIncrementPointer") == 0x00181065:
        steps = dataset.get("FrameTimeVector")
        steps = [_positive(step, float) for step in steps[1:]] if isinstance(steps, pydicom.multival.MultiValue) else []
        mean = sum(steps) / len(steps) if steps and all(steps) else None
    else:
        mean = _positive(dataset.get("FrameTime"), float)
    if mean:
        return 1000.0 / float(mean)
    for keyword in ("RecommendedDisplayFrameRate", "CineRate"):
        rate = _positive(dataset.get(keyword), float)
        if rate:
            return float(rate)
    return None


def number_of_frames(dataset: pydicom.Dataset) -> int:
    """NumberOfFrames, 1 where it is absent or empty. Raises `Unreadable` if it is no positive integer."""
    stated = dataset.get("NumberOfFrames")
    if stated is None or stated == "":
        return 1
    try:
        frames = int(stated)
    except (TypeError, ValueError):
        raise Unreadable(f"NumberOfFrames is {str(stated)[:40]!r}") from None
    if frames < 1:
        raise Unreadable(f"NumberOfFrames is {frames}")
    return frames


def check_clip(path: str, dataset: pydicom.Dataset, offset: int | None, modalities: tuple[str, ...]) -> Clip:
    """The clip that `read_header` found at `path`, if it is one to convert and can be decoded.

    Raises `Skip` for a Modality that is not in `modalities` (none means all, a missing one counts
    as US), a single frame, and what has no image. Raises `Unreadable` for a header that cannot be right and for
    what no decoder here takes.
    """
    modality = str(dataset.get("Modality") or "US")
    if modalities and modality not in modalities:
        raise Skip(f"modality {modality}")
    frames = number_of_frames(dataset)
    if frames == 1 and "Rows" in dataset:
        raise Skip("single frame")
    if frames == 1 and "Image Storage" not in uid.UID(dataset.file_meta.get("MediaStorageSOPClassUID", "")).name:
        raise Skip("no image")
    _check_pixel_description(dataset, offset)
    return _check_amount(Clip(
        path, dataset, frames, dataset.Rows, dataset.Columns, str(dataset.PhotometricInterpretation),
        dataset.file_meta.TransferSyntaxUID, offset or 0,
    ))  # fmt: skip


def _check_pixel_description(dataset: pydicom.Dataset, offset: int | None) -> None:
    """Raise `Unreadable` unless the header says of the pixels what a decoder here needs and takes."""
    missing = [k for k in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation") if not dataset.get(k)]
    if missing:
        raise Unreadable(f"{missing[0]} is missing" if offset else f"{missing[0]} and PixelData are missing")
    if offset is None:
        raise Unreadable("PixelData is missing")
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        if not isinstance(dataset.get(keyword), int):
            raise Unreadable(f"{keyword} is {str(dataset.get(keyword))[:40]!r}")
    if dataset["BitsAllocated"].value not in (8, 16):
        raise Unreadable(f"unsupported bit depth: {dataset.BitsAllocated}")
    photometric = str(dataset.PhotometricInterpretation)
    if photometric not in SAMPLES:
        raise Unreadable(f"unsupported PhotometricInterpretation {photometric}")
    if dataset.get("SamplesPerPixel", 1) != SAMPLES[photometric]:
        raise Unreadable(f"SamplesPerPixel is {dataset.get('SamplesPerPixel')} for {photometric}")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax not in JPEG and syntax not in BY_PLUGIN and syntax not in NATIVE and syntax != uid.RLELossless:
        raise Unreadable(f"unsupported transfer syntax {getattr(syntax, 'name', syntax)}")


def _check_amount(clip: Clip) -> Clip:
    """The clip itself. Raises `Unreadable` if its header promises more pixels than can be right."""
    pixels = clip.rows * clip.columns
    if pixels > FRAME_PIXELS_MAX:
        raise Unreadable(f"frames of {clip.rows} x {clip.columns} pixels cannot be right")
    promised = clip.number_of_frames * pixels * SAMPLES[clip.photometric] * clip.dataset.BitsAllocated // 8
    if clip.photometric == "YBR_FULL_422":
        promised = promised * 2 // 3
    try:
        held = os.path.getsize(clip.path) - clip.pixel_offset
    except OSError as error:  # it vanished meanwhile
        raise Unreadable(f"cannot be opened: {error.strerror or one_line(error)}") from error
    if clip.transfer_syntax in NATIVE - {uid.DeflatedExplicitVRLittleEndian} and promised > held:
        raise Unreadable(f"the header promises {promised} bytes of pixels, the file holds {held}")
    return clip
