"""The mark of a DICOM file."""

import os
import stat
from typing import IO

MARK_END = 132  # bytes before the meta information: a preamble, and the mark (DICOM PS3.10, 7.1)


def bears_mark(file: IO[bytes]) -> bool:
    """Whether a file opened at its start has `DICM` after a preamble of 128 bytes."""
    return file.read(MARK_END)[128:] == b"DICM"


def has_dicom_mark(path: str) -> bool:
    """Whether `path` is a regular file that bears DICOM's mark.

    Raises `OSError` if it cannot be read. Files that are not regular (a FIFO, say) are not opened.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        return False
    with open(path, "rb") as file:
        return bears_mark(file)


def seems_dicom(path: str) -> bool:
    """The same; False where it cannot be read, which the file's row in the manifest will say."""
    try:
        return has_dicom_mark(path)
    except OSError:
        return False
