"""Frames cut and resized when they are read, on 8 bits, as the loaders of other encoders than V-JEPA do it."""

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ..core.recipe import Recipe

Frames = NDArray[np.uint8]  # [n, height, width, 3]


def fit(frames: Frames, recipe: Recipe, resolution: int) -> Frames:
    """`frames`, masked and of their shape, as `recipe` cuts and resizes them from their own pixels.

    They become [n, resolution, resolution, 3] where the recipe resizes them here; otherwise `preprocess` does.
    """
    if recipe.margin is not None:
        frames = centre_square(frames, recipe.margin)
    if not recipe.resized_early:
        return frames
    short = recipe.short_side(resolution)
    tall = wide = short
    if recipe.aspect == "native" and recipe.margin is None:
        height, width = frames.shape[1:3]
        tall, wide = short * height // min(height, width), short * width // min(height, width)
    top, left = round((tall - resolution) / 2), round((wide - resolution) / 2)
    resized = np.stack([_resized(frame, wide, tall, recipe.interpolation) for frame in frames])
    return resized[:, top : top + resolution, left : left + resolution]


def centre_square(frames: Frames, margin: float) -> Frames:
    """The centre square of frames, less `margin` of its edge on each side; whole pixels, as EchoPrime rounds them."""
    height, width = frames.shape[1:3]
    rest = round(abs(width - height) / 2)
    frames = frames[:, :, rest : width - rest] if width > height else frames[:, rest : height - rest]
    height, width = frames.shape[1:3]
    y, x = int(height * margin), int(width * margin)
    return frames[:, y : height - y, x : width - x]


def _resized(frame: NDArray[np.uint8], wide: int, tall: int, interpolation: str) -> NDArray[np.uint8]:
    """A frame, [height, width, 3], resized to [tall, wide, 3]."""
    if interpolation == "bicubic":
        return np.asarray(PIL.Image.fromarray(frame).resize((wide, tall), PIL.Image.Resampling.BICUBIC))
    how = {"cubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}[interpolation]
    return np.asarray(cv2.resize(frame, (wide, tall), interpolation=how), np.uint8)
