"""Where in a clip's pictures the ultrasound is: by a box of the header, or by what moves.

Conversions mask by it, and so do recipes that are fed with files which are not masked.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Keep = NDArray[np.bool_]  # [height, width]: True where the picture stays

OVERVIEW = 24  # frames, spread over the clip, from which the sector is found
# Of the search for the sector, in grey levels of 0..255 and fractions of the picture's edge.
MOVES = 1.0  # standard deviation over time from which on a pixel certainly moves
STIRS = 0.2  # from which on it may; the codec smooths weaker noise away
LIT = 3.0  # mean over time of what is lit: tissue in shadow hardly moves
CROWD = 0.6  # share of a pixel's neighbours that stir with it
THIN = 1 / 24  # what is thinner than this is a trace or a letter
QUIET = 20  # per cent of the picture in which nothing but noise moves
NOISE_MAX = 3.0  # standard deviation of noise, at most: in a picture without quiet parts more is no noise
ABOVE_NOISE = 2.0  # times the noise is movement
FELLOW = 0.2  # a second sector has this share of the first one's moving pixels, or more


class NoSectorError(Exception):
    """No sector can be found in a clip; the message says why."""


def spread(frames: int) -> list[int]:
    """Which of a clip's frames `sector` is to see."""
    return [int(i) for i in np.linspace(0, frames - 1, min(frames, OVERVIEW))]


def box(height: int, width: int, tissue_box: str, rows: int, columns: int) -> Keep:
    """The box `x0,y0,x1,y1` of a DICOM of `rows` x `columns`, ends included, in a picture squeezed to another size."""
    x0, y0, x1, y1 = (int(part) for part in tissue_box.split(","))
    keep = np.zeros((height, width), bool)
    top, bottom = int(y0 * height / rows), int(np.ceil((y1 + 1) * height / rows))
    left, right = int(x0 * width / columns), int(np.ceil((x1 + 1) * width / columns))
    keep[top:bottom, left:right] = True
    return keep


def sector(frames: NDArray[np.uint8], *, noisy: bool = False) -> Keep:
    """Where pixels move in `frames`, uint8 [n, height, width, 3] spread over a clip: the sector, or several.

    Pixels that stir together or are lit, less whatever is as thin as letters and traces, fall into patches. Those in
    which much moves are sectors; each is filled up to its convex hull. Raises `NoSectorError` if nothing moves.

    No codec has smoothed `noisy` frames: what moves no more than the quietest of the picture does not move.
    """
    grey = frames.astype(np.float32).mean(axis=3)
    moves, mean = grey.std(axis=0), grey.mean(axis=0)
    floor = ABOVE_NOISE * min(float(np.percentile(moves, QUIET)), NOISE_MAX) if noisy else 0.0
    crowd = cv2.blur((moves > max(STIRS, floor)).astype(np.float32), (5, 5), borderType=cv2.BORDER_CONSTANT)
    lit = ((crowd > CROWD) | (mean > LIT)).astype(np.uint8)
    lit = cv2.morphologyEx(lit, cv2.MORPH_OPEN, _disc(int(min(lit.shape) * THIN)))
    count, patch = cv2.connectedComponents(lit)
    moving = np.bincount(patch[moves > max(MOVES, floor)], minlength=count)
    moving[0] = 0  # the background
    if not moving.any():
        raise NoSectorError("no sector found: nothing moves")
    keep = np.zeros_like(lit)
    for i in np.flatnonzero(moving > FELLOW * moving.max()):
        points = cv2.findNonZero((patch == i).astype(np.uint8))
        cv2.fillConvexPoly(keep, cv2.convexHull(points), 1)
    return np.asarray(cv2.dilate(keep, _disc(3)), bool)


def _disc(diameter: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter | 1, diameter | 1)), np.uint8)
