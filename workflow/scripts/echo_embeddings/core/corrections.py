"""Corrected bugs: which results each of them touched, so that those are made again and no others.

Who corrects what a stage computes of some files adds a line to its table, and leaves the stage's version as it is:

    Correction("0.2.1", "odd-width", lambda row, _: row.photometric == "YBR_FULL_422" and (row.columns or 0) % 2 == 1)

A result is stored with the names of the corrections that apply to it. It counts while these are the ones that apply
now: what was made before the correction is made once more, and what it does not apply to stays. Where a row cannot
tell, the file that it is of is looked at (`in_file`), every time: so look at few, and for what never changes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .manifest import CONVERTED, DEINTERLACED, Row, believed_fps
from .recipe import NOMINAL_FPS, echojepa_stride


@dataclass(frozen=True)
class Correction:
    """A bug that is corrected, and of which results it was one."""

    since: str  # the version that computes it right
    name: str  # never changed, and without "+"
    # Of a file's row and the stage's settings. A row that a manifest holds has a rate of six digits.
    applies: Callable[[Row, Any], bool]
    in_file: Callable[[Row, str], bool] | None = None  # of the row and the path of its file, if `applies`


# --- version 0.2.0: DICOM that is not compressed, and rates -------------------------------------------

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"


def _uncompressed(row: Row, *syntaxes: str) -> bool:
    return row.status == CONVERTED and row.transfer_syntax in syntaxes


def _vr_is_another(row: Row, path: str) -> bool:
    """Whether the first element behind the meta information is of explicit VR though the syntax is implicit, or v.v."""
    try:
        with open(path, "rb") as file:
            file.seek(140)  # the value of FileMetaInformationGroupLength
            file.seek(int.from_bytes(file.read(4), "little") + 4, 1)
            vr = file.read(2)
    except OSError:  # it is gone, and so is its row
        return False
    return (vr.isalpha() and vr.isupper()) == (row.transfer_syntax == IMPLICIT)


def _holds_more(row: Row, _: Any) -> bool:
    """Whether a file has room for a frame more than its row, whether its samples have 8 bits or 16.

    Of a deflated one nothing is known. Headers of 64 KiB and more are taken for such room.
    """
    if not _uncompressed(row, IMPLICIT, EXPLICIT, BIG_ENDIAN):
        return _uncompressed(row, DEFLATED)
    samples = 1 if row.photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR") else 3
    held, frames, pixels = row.bytes or 0, row.frames or 0, (row.rows or 0) * (row.columns or 0)
    sizes = [pixels * samples * width for width in (1, 2)]
    return not any(0 <= held - frames * size < max(size, 2**16) for size in sizes)


CONVERT: tuple[Correction, ...] = (  # of an MP4 or its row: (row, ConvertSettings)
    Correction(
        "0.2.0",
        "subsampled-colour",
        lambda row, _: row.photometric == "YBR_FULL_422" and _uncompressed(row, IMPLICIT, EXPLICIT, BIG_ENDIAN),
    ),
    Correction("0.2.0", "vr", lambda row, _: _uncompressed(row, IMPLICIT, EXPLICIT), _vr_is_another),
    Correction("0.2.0", "longer-than-stated", _holds_more),
    Correction("0.2.0", "rate", lambda row, _: row.fps is not None and believed_fps(row.fps) is None),
)
EMBED: tuple[Correction, ...] = (  # of a vector and features, where the MP4 is right: (row, Model)
    # Frames that OpenCV had not decoded were taken for what lay in its buffer.
    Correction("0.2.0", "interlaced", lambda row, _: row.reason == DEINTERLACED),
    # Videos that are not square lost what lies beyond a square in their centre.
    Correction("0.2.0", "not-square", lambda row, _: row.is_video and row.rows != row.columns),
    # Square videos larger than their short side is resized to were not antialiased as they shrank.
    Correction(
        "0.2.0",
        "not-antialiased",
        lambda row, model: (
            model.recipe.antialiases
            and row.is_video
            and row.rows == row.columns
            and (row.rows or 0) > model.recipe.short_side(model.resolution)
        ),
    ),
    # Videos of yours were sampled as if each had 30 frames a second.
    Correction(
        "0.2.0",
        "echojepa-rate",
        lambda row, model: (
            model.recipe.sampling == "echojepa"
            and row.is_video
            and echojepa_stride(row.fps or NOMINAL_FPS) != echojepa_stride(NOMINAL_FPS)
        ),
    ),
)


def term(corrections: Iterable[Correction], row: Row, settings: Any, path: str = "") -> str:
    """What goes behind the fingerprint or identity of the row's result: nothing, or `+` and a name, repeatedly.

    `path` is that of the file, for corrections that look into it.
    """
    found = [one for one in corrections if one.applies(row, settings) and (not one.in_file or one.in_file(row, path))]
    return "".join(f"+{name}" for name in names(found))


def split(stored: str) -> tuple[str, str]:
    """A stored fingerprint or identity without its term, and the term."""
    plain, plus, names = stored.partition("+")
    return plain, plus + names


def names(corrections: Iterable[Correction]) -> list[str]:
    """The corrections by name: a rule's params, by which its jobs are looked through when there is a new one."""
    return sorted(f"{one.since}-{one.name}" for one in corrections)
