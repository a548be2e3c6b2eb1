"""The ledger: one row for every file of a folder, as a tab-separated table."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import atomic_write
from .names import decode_name, one_line

CONVERTED, SKIPPED, FAILED = "converted", "skipped", "failed"
READABLE = "readable"  # by its header: a clip that is not converted
CLIPS = (CONVERTED, READABLE)
FPS = (1, 1000)  # frames a second, from least to most: no echo is slower or faster
DEINTERLACED = "deinterlaced"  # what the reason says of an MP4 that is read so


@dataclass(frozen=True)
class Row:
    """What became of one file. The fields are the table's columns, in its order; None is empty."""

    path: str  # the file, relative to its folder, percent-encoded
    mp4: str  # the key: the path relative to its tree that the MP4 has or would have; empty unless a clip
    status: str  # converted (or readable, where no MP4 is made), skipped or failed
    reason: str  # why it is no clip; of a clip, empty or `DEINTERLACED`
    frames: int | None = None  # in the MP4; of a readable clip, as the header says
    rows: int | None = None  # of the DICOM, pixels
    columns: int | None = None  # of the DICOM, pixels
    fps: float | None = None  # the rate the DICOM states, frames a second, within `FPS`
    photometric: str | None = None  # PhotometricInterpretation
    transfer_syntax: str | None = None  # TransferSyntaxUID
    bytes: int | None = None  # of the DICOM
    mtime_ns: int | None = None  # of the DICOM, since the epoch
    mp4_bytes: int | None = None
    manufacturer: str | None = None  # Manufacturer
    manufacturer_model_name: str | None = None  # ManufacturerModelName
    ultrasound_color_data_present: int | None = None  # UltrasoundColorDataPresent: 0 or 1
    region_data_types: str | None = None  # RegionDataType of each ultrasound region, ascending, by comma
    tissue_box: str | None = None  # of the tissue region: first and last column and row, `x0,y0,x1,y1`, pixels
    heart_rate: int | None = None  # HeartRate, beats a minute
    kind: str | None = None  # bmode, colour, spectral, volume, capture or unknown
    mp4_blake2b: str | None = None  # of the MP4's content, see `files.blake2b_of`; empty before version 0.2.0
    patient_id_hash: str | None = None  # of PatientID, see `keys.Key`; empty unless it is to be kept
    study_instance_uid_hash: str | None = None  # of StudyInstanceUID, likewise
    mask: str | None = None  # by which the MP4 was masked: regions, motion or boxes; empty where it was not
    mask_kept: float | None = None  # how much of the picture the mask left, 0 to 1

    @property
    def is_clip(self) -> bool:
        """Whether it is one that a vector can be made of."""
        return self.status in CLIPS

    @property
    def file(self) -> str:
        """What a vector is made of, relative to the tree of clips: the MP4, or the DICOM where there is none."""
        return decode_name(self.path) if self.status == READABLE else self.mp4

    @property
    def is_video(self) -> bool:
        """Whether the file is a video itself, and not a DICOM, whose MP4 always has one suffix more."""
        return self.mp4 == self.path


def believed_fps(stated: float) -> float | None:
    """The rate that a file states, frames a second; None where it cannot be one."""
    return stated if FPS[0] <= stated <= FPS[1] else None


COLUMNS = [field.name for field in dataclasses.fields(Row)]
COLUMNS_0_1_0 = 20  # of these the first
INTEGERS = (
    "frames",
    "rows",
    "columns",
    "bytes",
    "mtime_ns",
    "mp4_bytes",
    "ultrasound_color_data_present",
    "heart_rate",
)
_TYPES: dict[str, type] = dict.fromkeys(INTEGERS, int) | {"fps": float, "mask_kept": float}
_MAY_BE_NONE = {field.name for field in dataclasses.fields(Row) if field.default is None}


def check_row(record: Mapping[str, Any]) -> None:
    """Raise `ValueError` or `TypeError` if `record` is not what `dataclasses.asdict` makes of a row."""
    row = Row(**record)
    for name in COLUMNS:
        value, kind = getattr(row, name), _TYPES.get(name, str)
        known = isinstance(value, (int, float) if kind is float else kind) or (value is None and name in _MAY_BE_NONE)
        if not known:
            raise ValueError(f"{name} is {value!r}")


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if name in ("path", "mp4"):
        return str(value)  # percent-encoded, so printable; spaces count
    if isinstance(value, float):
        return f"{value:.6g}"
    return one_line(value) if value != "" else ""


def columns_of(header: str) -> list[str]:
    """Those of `COLUMNS` that a table with this first line has; none if it is no manifest.

    Earlier versions have fewer, and later ones may have more behind them.
    """
    found = header.rstrip("\n").split("\t")[: len(COLUMNS)]
    return found if len(found) >= COLUMNS_0_1_0 and found == COLUMNS[: len(found)] else []


def write(path: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Write the table at `path`, whole, its rows in byte order of the DICOM's path."""
    with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(COLUMNS) + "\n")
        for row in sorted(rows, key=lambda r: r.path.encode()):
            file.write("\t".join(_cell(name, getattr(row, name)) for name in COLUMNS) + "\n")


def write_digest(path: str | os.PathLike[str], digest_path: str | os.PathLike[str]) -> None:
    """Write the SHA-256 of the table at `path`: a small file that changes only if the table does.

    Snakemake compares the contents of inputs below 1 MB only; the table of a real folder has 10 MB.
    """
    with atomic_write(digest_path) as part:
        part.write_text(hashlib.sha256(Path(path).read_bytes()).hexdigest() + "\n")


def read(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of the table at `path`. Raises `UserError` if it is not such a table."""
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the manifest: {one_line(error)}; delete it and run again") from error
    columns = columns_of(lines[0])
    if not columns or lines[-1] != "":
        raise UserError(f"{path}: not a whole manifest; delete it and run again")
    rows = []
    for number, line in enumerate(lines[1:-1], start=2):
        cells = dict(zip(columns, line.split("\t"), strict=False))
        try:
            record: dict[str, Any] = {
                name: None if cell == "" and name in _MAY_BE_NONE else _TYPES.get(name, str)(cell)
                for name, cell in cells.items()
            }
            rows.append(Row(**record))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}: line {number} is not a manifest row: {one_line(error)}; delete it and run again"
            ) from error
    return rows
