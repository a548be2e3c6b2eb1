"""The header of a DICOM file: what it says of a clip, and whether the clip can be decoded."""

import contextlib
import logging
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pydicom
from pydicom import uid
from pydicom.filereader import read_file_meta_info

from ..core.manifest import believed_fps
from ..core.names import one_line
from .archives import unpack_command
from .mark import has_dicom_mark
from .source import open_data_set
from .syntaxes import BY_PLUGIN, JPEG, NATIVE, SAMPLES, VIDEO, VIDEO_COLOURS

_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # its tag in little and big endian

HEART_RATE_MAX = 400  # beats a minute; more is no heart rate
FRAME_PIXELS_MAX = 2**26  # no ultrasound frame has more; a header that says so is not believed
ARCHIVE = "an archive of DICOM: unpack it"  # why a file is skipped
INTEGER_MAX = 2**31 - 1  # no number of a header that is told has more
HEADER_MAX = 2**26  # bytes of a deflated header; a file of 64 KB can inflate to that

# The SOP classes (DICOM PS3.4, B.5) of which the frames are slices, and those that are pictures of a screen.
VOLUMES = frozenset(
    {
        uid.EnhancedUSVolumeStorage,
        uid.EnhancedCTImageStorage,
        uid.EnhancedMRImageStorage,
        uid.EnhancedMRColorImageStorage,
        uid.EnhancedPETImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedPETImageStorage,
    }
)
CAPTURES = frozenset(
    {
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)

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


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Whatever a broken byte leads pydicom, or us, to raise becomes `Unreadable`."""
    try:
        yield
    except OSError as error:
        raise Unreadable(f"cannot be opened: {error.strerror or one_line(error)}") from error
    except (Skip, Unreadable):
        raise
    except Exception as error:
        raise Unreadable(f"unreadable header: {one_line(error)}") from error


@_reading()
def read_header(path: str) -> tuple[pydicom.Dataset, int | None]:
    """The header of the DICOM file at `path`, and the offset of its pixel data in bytes (None: there is none).

    The offset is from where `source.open_data_set` counts. Values are parsed when they are asked for. Raises `Skip`
    for what is no DICOM image file (a file without DICOM's mark, a DICOMDIR) and `Unreadable` for an empty file and
    for one that bears the mark and cannot be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise Skip("not a regular file")
    if status.st_size == 0:
        raise Unreadable("empty file")
    if not has_dicom_mark(path):
        raise Skip(ARCHIVE if unpack_command(path) else "not DICOM")
    with open_data_set(path, HEADER_MAX) as (file, deflated):
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=deflated)
        if deflated:
            dataset.file_meta = read_file_meta_info(path)
        offset = file.tell()
        has_pixels = file.read(4) in _PIXEL_DATA
    if dataset.file_meta.get("MediaStorageSOPClassUID") == uid.MediaStorageDirectoryStorage:
        raise Skip("DICOMDIR")
    return dataset, offset if has_pixels else None


def describe_header(dataset: pydicom.Dataset) -> dict[str, Any]:
    """What the header alone tells, under the names of the manifest's columns.

    A value that is absent, broken or absurd is left out: none of them decides whether a clip can be had.
    """
    found = {name: _unless_broken(tell, dataset) for name, tell in _TOLD.items()}
    return {name: value for name, value in found.items() if value is not None}


def _unless_broken(tell: Callable[[pydicom.Dataset], Any], dataset: pydicom.Dataset) -> Any:
    try:
        return tell(dataset)
    except Exception:  # pydicom raises whatever a broken value leads it to
        return None


def _text(value: object) -> str | None:
    return one_line(value) if value else None


def _heart_rate(dataset: pydicom.Dataset) -> int | None:
    rate = _positive(dataset.get("HeartRate"), int)
    return rate if rate and rate <= HEART_RATE_MAX else None


def _colour(dataset: pydicom.Dataset) -> int | None:
    present = dataset.get("UltrasoundColorDataPresent")
    return int(present) if present in (0, 1) else None


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
        except Exception:  # as in `_unless_broken`
            continue
        found.append(_Region(numbers[0], numbers[1], (numbers[2], numbers[3], numbers[4], numbers[5])))
    return found


def _region_data_types(dataset: pydicom.Dataset) -> str | None:
    return ",".join(str(data_type) for data_type in sorted({r.data_type for r in _regions(dataset)})) or None


def _tissue_box(dataset: pydicom.Dataset) -> str | None:
    """The box of the largest two-dimensional tissue or colour region, None if it does not lie in the picture."""
    boxes = [r.box for r in _regions(dataset) if r.data_type in (1, 2) and r.spatial_format == 1]
    if not boxes:
        return None
    largest = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    return ",".join(map(str, largest)) if _lies_in(dataset, largest) else None


def region_boxes(dataset: pydicom.Dataset) -> list[tuple[int, int, int, int]]:
    """The boxes of all two-dimensional tissue and colour regions: first column and row, last column and row.

    None where one of them does not lie in the picture, or the sequence is broken: then no box is to be believed.
    """
    try:
        boxes = [r.box for r in _regions(dataset) if r.data_type in (1, 2) and r.spatial_format == 1]
    except Exception:  # as in `_unless_broken`
        return []
    return boxes if all(_lies_in(dataset, one) for one in boxes) else []


def _lies_in(dataset: pydicom.Dataset, box: tuple[int, int, int, int]) -> bool:
    x0, y0, x1, y1 = box
    return bool(0 <= x0 < x1 < dataset.Columns and 0 <= y0 < y1 < dataset.Rows)


def _kind(dataset: pydicom.Dataset) -> str:
    """volume or capture by the SOP class; else bmode, colour, spectral or unknown by regions and colour."""
    sop_class = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    if sop_class in VOLUMES or sop_class in CAPTURES:
        return "volume" if sop_class in VOLUMES else "capture"
    regions = _regions(dataset)
    types = {r.data_type for r in regions if r.spatial_format == 1}
    if any(r.data_type in (3, 4) for r in regions):
        return "spectral"
    if 2 in types or _unless_broken(_colour, dataset) == 1:
        return "colour"
    return "bmode" if 1 in types else "unknown"


def _positive(value: object, kind: type) -> Any:
    """`value` as a finite positive number of type `kind`, or None where it is none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return kind(number) if math.isfinite(number) and 0 < number <= INTEGER_MAX else None


def frame_rate(dataset: pydicom.Dataset) -> float | None:
    """The rate that the header states, frames a second; None where it states none that is to be believed.

    FrameTime (ms), or FrameTimeVector (ms, its first entry is none) where FrameIncrementPointer
    leads to it, else RecommendedDisplayFrameRate, else CineRate (DICOM PS3.3, C.7.6.5).
    """
    for tell in (_rate_of_frame_time, *(_rate_of(name) for name in ("RecommendedDisplayFrameRate", "CineRate"))):
        rate = _unless_broken(tell, dataset)
        if rate and (believed := believed_fps(rate)):
            return believed
    return None


def _rate_of_frame_time(dataset: pydicom.Dataset) -> float | None:
    if dataset.get("FrameIncrementPointer") == 0x00181065:
        steps = dataset.get("FrameTimeVector")
        steps = [_positive(step, float) for step in steps[1:]] if isinstance(steps, pydicom.multival.MultiValue) else []
        mean = sum(steps) / len(steps) if steps and all(steps) else None
    else:
        mean = _positive(dataset.get("FrameTime"), float)
    return 1000.0 / float(mean) if mean else None


def _rate_of(keyword: str) -> Callable[[pydicom.Dataset], float | None]:
    return lambda dataset: _positive(dataset.get(keyword), float)


# What the header tells of a clip, by the manifest's column.
_TOLD: dict[str, Callable[[pydicom.Dataset], Any]] = {
    "rows": lambda ds: _positive(ds.get("Rows"), int),
    "columns": lambda ds: _positive(ds.get("Columns"), int),
    "fps": frame_rate,
    "photometric": lambda ds: _text(ds.get("PhotometricInterpretation")),
    "transfer_syntax": lambda ds: _text(ds.file_meta.get("TransferSyntaxUID")),
    "manufacturer": lambda ds: _text(ds.get("Manufacturer")),
    "manufacturer_model_name": lambda ds: _text(ds.get("ManufacturerModelName")),
    "ultrasound_color_data_present": _colour,
    "region_data_types": _region_data_types,
    "tissue_box": _tissue_box,
    "heart_rate": _heart_rate,
    "kind": _kind,
}

# --- clip -----------------------------------------------------------------------------------------


def _needed(dataset: pydicom.Dataset, keyword: str) -> Any:
    """The value of an element, None where it is absent. Raises `Unreadable` if it cannot be parsed."""
    try:
        return dataset.get(keyword)
    except Exception as error:
        raise Unreadable(f"{keyword} cannot be read: {one_line(error)}") from error


def number_of_frames(dataset: pydicom.Dataset) -> int:
    """NumberOfFrames, 1 where it is absent or empty. Raises `Unreadable` if it is no positive integer."""
    stated = _needed(dataset, "NumberOfFrames")
    if stated is None or stated == "":
        return 1
    try:
        frames = int(stated)
        if frames != float(stated):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise Unreadable(f"NumberOfFrames is {str(stated)[:40]!r}") from None
    if not 1 <= frames <= INTEGER_MAX:
        raise Unreadable(f"NumberOfFrames is {str(frames)[:40]}")
    return frames


@_reading()
def check_clip(path: str, dataset: pydicom.Dataset, offset: int | None, modalities: tuple[str, ...]) -> Clip:
    """The clip that `read_header` found at `path`, if it is one to convert and can be decoded.

    Raises `Skip` for a Modality that is not in `modalities` (none means all, a missing one counts
    as US), a single frame, and what has no image. Raises `Unreadable` for a header that cannot be right and for
    what no decoder here takes.
    """
    modality = str(_needed(dataset, "Modality") or "US")
    if modalities and modality not in modalities:
        raise Skip(f"modality {modality}")
    frames = number_of_frames(dataset)
    if frames == 1 and "Rows" in dataset:
        raise Skip("single frame")
    if frames == 1 and "Image Storage" not in uid.UID(dataset.file_meta.get("MediaStorageSOPClassUID", "")).name:
        raise Skip("no image")
    _check_pixel_description(dataset, offset)
    clip = Clip(
        path, dataset, frames, dataset.Rows, dataset.Columns, str(dataset.PhotometricInterpretation),
        dataset.file_meta.TransferSyntaxUID, offset or 0,
    )  # fmt: skip
    _check_amount(clip)
    return clip


def _check_pixel_description(dataset: pydicom.Dataset, offset: int | None) -> None:
    """Raise `Unreadable` unless the header says of the pixels what a decoder here needs and takes."""
    keywords = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
    missing = [keyword for keyword in keywords if not _needed(dataset, keyword)]
    if missing:
        raise Unreadable(f"{missing[0]} is missing" if offset else f"{missing[0]} and PixelData are missing")
    if offset is None:
        raise Unreadable("PixelData is missing")
    for keyword in keywords[:3]:
        if not isinstance(dataset.get(keyword), int) or not 0 < dataset.get(keyword) < 2**16:
            raise Unreadable(f"{keyword} is {str(dataset.get(keyword))[:40]!r}")
    if dataset["BitsAllocated"].value not in (8, 16):
        raise Unreadable(f"unsupported bit depth: {dataset.BitsAllocated}")
    photometric, syntax = str(dataset.PhotometricInterpretation), dataset.file_meta.get("TransferSyntaxUID")
    if photometric not in (VIDEO_COLOURS if syntax in VIDEO else SAMPLES):
        raise Unreadable(f"unsupported PhotometricInterpretation {photometric}")
    if syntax in VIDEO:  # its stream says how pixels are stored
        return
    if (_needed(dataset, "SamplesPerPixel") or 1) != SAMPLES[photometric]:
        raise Unreadable(f"SamplesPerPixel is {dataset.get('SamplesPerPixel')} for {photometric}")
    if syntax not in JPEG and syntax not in BY_PLUGIN and syntax not in NATIVE and syntax != uid.RLELossless:
        raise Unreadable(f"unsupported transfer syntax {getattr(syntax, 'name', syntax)}")


def _check_amount(clip: Clip) -> None:
    """Raise `Unreadable` if the header promises more pixels than can be right."""
    if clip.rows * clip.columns > FRAME_PIXELS_MAX:
        raise Unreadable(f"frames of {clip.rows} x {clip.columns} pixels cannot be right")
    held = os.path.getsize(clip.path) - clip.pixel_offset
    if clip.transfer_syntax in NATIVE - {uid.DeflatedExplicitVRLittleEndian}:
        promised = clip.number_of_frames * frame_bytes(clip)
        if promised > held:
            raise Unreadable(f"the header promises {promised} bytes of pixels, the file holds {held}")


def frame_bytes(clip: Clip) -> int:
    """The size of an uncompressed frame as the file holds it."""
    size: int = clip.rows * clip.columns * SAMPLES[clip.photometric] * clip.dataset.BitsAllocated // 8
    return size * 2 // 3 if clip.photometric == "YBR_FULL_422" else size


def same_size(number: int, rows: int, columns: int, clip: Clip) -> None:
    """Raise `Unreadable` unless frame `number` has the size that the header says."""
    if (rows, columns) != (clip.rows, clip.columns):
        raise Unreadable(f"frame {number} is {rows} x {columns}, the header says {clip.rows} x {clip.columns}")


def check_number(clip: Clip, found: int) -> None:
    """Raise `Unreadable` unless the file holds as many frames as the header says; `found` beyond that means more."""
    if found != clip.number_of_frames:
        more = "more" if found > clip.number_of_frames else f"only {found}"
        raise Unreadable(f"NumberOfFrames is {clip.number_of_frames}, the file holds {more}")
