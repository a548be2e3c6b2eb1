"""Text in pictures, as the program tesseract reads it: an optional one, which Debian has as tesseract-ocr."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from ..core.names import one_line
from .tesseract import PROGRAM, check

EDGE = 1024  # pixels that the longer edge of a picture is resized to: letters of an MP4 are too small for OCR
SURE = 60  # per cent, from which on a word counts
SHORTEST = 3  # letters or digits of a word that counts: speckle has many shorter ones
NEAR, LESS = 61, 40  # pixels around one, and grey levels that a letter is apart from their mean
TIMEOUT = 120  # seconds


@dataclass(frozen=True)
class Word:
    """A word that can be read in a picture."""

    picture: int  # its number
    text: str


def words(pictures: Sequence[NDArray[np.uint8]], shape: tuple[int, int], *, over_tissue: bool = False) -> list[Word]:
    """The words in RGB uint8 `pictures` [height, width, 3], which are shown in the `shape` (rows, columns) to be read.

    Letters `over_tissue` are those that are brighter than what is near them. Raises `UserError` if the program is not
    there or fails.
    """
    height, width = (max(1, round(EDGE * edge / max(shape))) for edge in shape)
    # Below one another in one picture: the program takes longer to start than to read. Dark on light, as it likes it.
    shown = [_dark_on_light(picture, width, height) for picture in pictures]
    if over_tissue:
        shown = [_letters(one) for one in shown]
    done, png = cv2.imencode(".png", np.vstack(shown))
    if not done:
        raise UserError("audit_text: this build of OpenCV has no PNG")
    command = [check(), "stdin", "stdout", "--psm", "11", "tsv"]
    quiet = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    try:
        run = subprocess.run(command, input=png.tobytes(), capture_output=True, check=False, env=quiet, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"audit_text: {PROGRAM} has not answered for {TIMEOUT} s; look at the machine") from error
    if run.returncode:
        said = run.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(f"audit_text: {PROGRAM} failed: {one_line(said[-1] if said else run.returncode)}")
    return list(_read(run.stdout.decode(errors="replace"), height))


def _dark_on_light(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    grey = 255 - cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _letters(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What is darker than all that is near it, in black on white."""
    how = cv2.ADAPTIVE_THRESH_MEAN_C
    return np.asarray(cv2.adaptiveThreshold(grey, 255, how, cv2.THRESH_BINARY, NEAR, LESS), np.uint8)


def _read(table: str, height: int) -> list[Word]:
    """The words of tesseract's table that count."""
    found = []
    for line in table.splitlines()[1:]:
        cells = line.split("\t")
        if len(cells) == 12 and float(cells[10]) >= SURE and sum(map(str.isalnum, cells[11])) >= SHORTEST:
            found.append(Word((int(cells[7]) + int(cells[9]) // 2) // height, cells[11]))
    return found
