"""What of a picture the encoder gets to see: masks, and the shape that the DICOM had.

All of it is done to squeezed frames: those of the MP4, which models of one resolution share, or of a video that is not
square; where the recipe shows pictures as they are, to these. The manifest has what else is needed.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from ..convert.sector import Keep, NoSectorError, box, sector, spread
from ..core.manifest import Row
from ..core.recipe import Recipe

# EchoJEPA's boxes, painted black in their training: x, y, width, height, as fractions of the picture. They were
# measured on one layout of 640 x 480 pixels, and were painted whatever the layout.
BOXES = (
    *((0, 0, 1, 35 / 480), (0, 1 - 90 / 480, 1, 120 / 480)),  # top and bottom
    *((0, 0, 60 / 640, 1), (0, 0, 90 / 640, 0.55), (0, 0, 77 / 640, 0.62), (0, 0, 130 / 640, 0.3)),  # left
    *((0, 0, 150 / 640, 0.26), (0, 0, 220 / 640, 0.20), (0, 0.72, 105 / 640, 0.3)),
    *((1 - 220 / 640, 0, 220 / 640, 0.20), (1 - 145 / 640, 0, 120 / 640, 0.49)),  # right
    *((1 - 130 / 640, 0, 120 / 640, 0.51), (1 - 115 / 640, 0, 120 / 640, 0.53)),
    *((1 - 90 / 640, 0, 120 / 640, 1), (1 - 105 / 640, 0.68, 105 / 640, 0.3), (1 - 115 / 640, 0.72, 105 / 640, 0.3)),
)


def boxes(height: int, width: int) -> Keep:
    """What EchoJEPA's boxes leave: corners are int(fraction * edge), cut to the picture."""
    keep = np.ones((height, width), bool)
    for x, y, w, h in BOXES:
        keep[int(y * height) : int((y + h) * height), int(x * width) : int((x + w) * width)] = False
    return keep


def echoprime(frames: NDArray[np.uint8]) -> Keep:
    """What EchoPrime takes for the ultrasound in `frames`, uint8 [n, height, width, 3], all of a clip.

    What is lit in any frame, worn down so that the trace of an ECG goes, and differs between the first frame and the
    last; that grown again, with its holes, and the convex hulls of what there is then. Raises `NoSectorError` if there
    is nothing of it, where EchoPrime would see black alone.
    """
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    lit = np.asarray((grey > 0).any(axis=0), np.uint8)
    moves = np.asarray(grey[0] != grey[-1], np.uint8)
    moves[:20, :20] = 0  # a mark that some machines show there; so the corner is outside, from which it is filled
    square = np.ones((3, 3), np.uint8)
    found = np.asarray(cv2.erode(lit, square, iterations=10), np.uint8) & moves
    if not found.any():
        raise NoSectorError("EchoPrime's mask leaves nothing: the first frame and the last are alike")
    found = _with_holes(np.asarray(cv2.dilate(found, square, iterations=10), np.uint8))
    outlines, _ = cv2.findContours(found, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(found, [cv2.convexHull(outline) for outline in outlines], -1, 1, 3)  # 3 pixels wide
    return np.asarray(_with_holes(found), bool)


def _with_holes(found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`found`, of zeros and ones, and whatever it cuts off from the top left corner."""
    filled = found.copy()
    cv2.floodFill(filled, None, (0, 0), 2)
    return np.asarray(filled != 2, np.uint8)


def overview(recipe: Recipe, row: Row) -> list[int]:
    """The frames of a clip that `keep` wants to see: none unless it looks for movement."""
    frames = row.frames or 1
    if recipe.mask == "echoprime":
        return list(range(frames))
    if recipe.mask != "sector" or row.tissue_box:
        return []
    return spread(frames)


def keep(recipe: Recipe, shape: tuple[int, int], seen: NDArray[np.uint8], row: Row) -> Keep | None:
    """What stays of a clip's pictures of `shape`, None for all of them; `seen` are the frames of `overview`.

    Raises `NoSectorError`.
    """
    if recipe.mask == "none":
        return None
    if recipe.mask == "echojepa-boxes":
        return boxes(*shape)
    if recipe.mask == "echoprime":
        return echoprime(seen)
    if row.tissue_box and row.rows and row.columns:
        return box(*shape, row.tissue_box, row.rows, row.columns)
    return sector(seen)


def squeeze(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`frames`, uint8 [n, height, width, 3], as a conversion to `size` x `size` pixels squeezes them.

    Square ones stay as they are, whatever their size.
    """
    if frames.shape[1] == frames.shape[2]:
        return frames
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames])


def letterbox(frames: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """`frames`, uint8 [n, height, width, 3], squeezed from `rows` x `columns`, in that shape again.

    They become uint8 [n, size, size, 3], size the longer edge of `frames`, with black around.
    """
    size = max(frames.shape[1:3])
    height, width = (max(1, round(size * edge / max(rows, columns))) for edge in (rows, columns))
    top, left = (size - height) // 2, (size - width) // 2
    out = np.zeros((len(frames), size, size, 3), np.uint8)
    for frame, target in zip(frames, out, strict=True):
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        target[top : top + height, left : left + width] = small
    return out


def show(frames: NDArray[np.uint8], recipe: Recipe, seen: NDArray[np.uint8], row: Row) -> NDArray[np.uint8]:
    """A clip's `frames`, uint8 [n, height, width, 3], as the recipe shows them; the rest is as for `keep`."""
    kept = keep(recipe, (frames.shape[1], frames.shape[2]), seen, row)
    if kept is not None:
        frames = frames * kept[None, :, :, None]
    if recipe.aspect == "letterboxed" and row.rows and row.columns:
        frames = letterbox(frames, row.rows, row.columns)
    return frames
