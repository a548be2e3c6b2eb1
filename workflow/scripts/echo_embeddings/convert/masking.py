"""What a masked MP4 keeps of a clip's pictures; the rest is black before a codec sees it.

It is an aid for what DICOM calls clean pixel data, and no promise: what is written within the kept part stays.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.settings import UNMASKED, ConvertSettings
from ..dicom.header import Clip, region_boxes
from .pictures import Waiting
from .sector import Keep, NoSectorError, box, sector, spread

NO_SECTOR = "no sector found"  # how reasons begin by which a clip is failed or skipped for want of a mask
MOST = 0.95  # of the picture that can be a sector which was found by motion; what leaves more hides nothing
REGIONS, MOTION, BOXES = "regions", "motion", "boxes"  # as the manifest has them


@dataclass(frozen=True)
class Mask:
    """What stays of a clip's pictures, and by what it was found."""

    name: str  # `REGIONS`, `MOTION` or `BOXES`
    keep: Keep

    def painted(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """RGB uint8 `frames` [height, width, 3] with all that does not stay black."""
        return (frame * self.keep[..., None] for frame in frames)

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says of it, by column."""
        return {"mask": self.name, "mask_kept": float(f"{self.keep.mean():.6g}")}  # to the digits of manifests


def find(clip: Clip, waiting: Waiting, settings: ConvertSettings) -> Mask | None:
    """The mask of a clip whose small frames are `waiting`; None where pictures stay as they are.

    Raises `NoSectorError`, whose message begins with `NO_SECTOR`.
    """
    size = settings.size
    if settings.mask == UNMASKED:
        return None
    if settings.mask.startswith("boxes:"):
        return Mask(BOXES, _boxes(settings.mask.removeprefix("boxes:"), size))
    if found := region_boxes(clip.dataset):
        keep = [box(size, size, ",".join(map(str, one)), clip.rows, clip.columns) for one in found]
        return Mask(REGIONS, np.logical_or.reduce(keep))
    if settings.mask == "regions":
        raise NoSectorError(f"{NO_SECTOR}: the header has no region of tissue that lies inside the picture")
    found_by_motion = sector(np.stack(list(waiting.frames(spread(waiting.count)))), noisy=True)
    if found_by_motion.mean() > MOST:
        raise NoSectorError(f"{NO_SECTOR}: all of the picture moves")
    return Mask(MOTION, found_by_motion)


def _boxes(text: str, size: int) -> Keep:
    """The pixels that lie wholly in one of the boxes `x0,y0,x1,y1;...`, in parts of the picture."""
    keep = np.zeros((size, size), bool)
    for one in text.split(";"):
        x0, y0, x1, y1 = (float(edge) * size for edge in one.split(","))
        keep[int(np.ceil(y0)) : int(y1), int(np.ceil(x0)) : int(x1)] = True
    return keep
