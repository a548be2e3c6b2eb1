"""Corrected bugs: which results each of them touched, so that those are made again and no others.

Who corrects what a stage computes of some files adds a line to its table, and leaves the stage's version as it is:

    Correction("0.2.1", "odd-width", lambda row, _: row.photometric == "YBR_FULL_422" and (row.columns or 0) % 2 == 1)

A result is stored with the names of the corrections that apply to it. It counts while these are the ones that apply
now: what was made before the correction is made once more, and what it does not apply to stays.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .manifest import DEINTERLACED, Row


@dataclass(frozen=True)
class Correction:
    """A bug that is corrected, and of which results it was one."""

    since: str  # the version that computes it right
    name: str  # never changed, and without "+"
    # Of a file's row and the stage's settings. A row that a manifest holds has a rate of six digits.
    applies: Callable[[Row, Any], bool]


CONVERT: tuple[Correction, ...] = ()  # of an MP4 or its row: (row, ConvertSettings)
EMBED: tuple[Correction, ...] = (  # of a vector and features, where the MP4 is right: (row, Recipe)
    # Frames that OpenCV had not decoded were taken for what lay in its buffer.
    Correction("0.2.0", "interlaced", lambda row, _: row.reason == DEINTERLACED),
)


def term(corrections: Iterable[Correction], row: Row, settings: Any) -> str:
    """What goes behind the fingerprint or identity of the row's result: nothing, or `+` and a name, repeatedly."""
    return "".join(sorted(f"+{one.since}-{one.name}" for one in corrections if one.applies(row, settings)))


def split(stored: str) -> tuple[str, str]:
    """A stored fingerprint or identity without its term, and the term."""
    plain, plus, names = stored.partition("+")
    return plain, plus + names


def names(corrections: Iterable[Correction]) -> list[str]:
    """The corrections by name: a rule's params, by which its jobs are looked through when there is a new one."""
    return sorted(f"{one.since}-{one.name}" for one in corrections)
