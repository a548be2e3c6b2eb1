"""Which frames of a video the encoder sees. Processes that decode import this file, and not torch."""

import math

import numpy as np
from numpy.typing import NDArray

from ..core.recipe import NOMINAL_FPS, Recipe

ECHOJEPA_FPS = 8  # frames a second of EchoJEPA's training


def frame_indices(frames: int, num_frames: int) -> NDArray[np.int64]:
    """`num_frames` indices spread over a video of `frames` frames, ends included; ascending.

    A video shorter than that has frames repeated. The reference's formula:
    `numpy.linspace(0, frames - 1, num_frames, dtype=int)`.
    """
    return np.linspace(0, frames - 1, num_frames, dtype=np.int64)


def window(recipe: Recipe, num_frames: int, fps: float | None) -> int:
    """How many frames each part of a video needs for `num_frames` to be sampled without padding or repeats.

    `fps` is the true rate, frames a second; None is taken for `NOMINAL_FPS`.
    """
    if recipe.sampling == "uniform":
        return num_frames
    if recipe.sampling == "echojepa":
        return num_frames * (NOMINAL_FPS // ECHOJEPA_FPS)
    return int(_steps(recipe, num_frames, fps)[-1]) + 1


def sample(frames: int, num_frames: int, recipe: Recipe, fps: float | None) -> NDArray[np.int64]:
    """The indices of the frames that the encoder sees, [clips_per_video, num_frames], each in 0..frames - 1.

    The video is cut into `clips_per_video` parts of equal length, and each is sampled from its start. `fps` is the
    true rate, frames a second; None is taken for `NOMINAL_FPS`.
    """
    length = max(1, frames // recipe.clips_per_video)
    part = _sample_part(length, num_frames, recipe, fps)
    starts = np.minimum(np.arange(recipe.clips_per_video) * length, frames - 1)
    return np.minimum(starts[:, None] + part[None, :], frames - 1)


def _sample_part(length: int, num_frames: int, recipe: Recipe, fps: float | None) -> NDArray[np.int64]:
    """Indices within a part of `length` frames, int64 [num_frames]."""
    if recipe.sampling == "uniform":
        return frame_indices(length, num_frames)
    if recipe.sampling == "echojepa":
        return _as_echojepa(length, num_frames)
    steps = _steps(recipe, num_frames, fps)
    if recipe.padding == "loop":
        steps = steps % length
    return np.minimum(steps, length - 1)


def _steps(recipe: Recipe, num_frames: int, fps: float | None) -> NDArray[np.int64]:
    """Indices of rate and stride in a video without an end: the frame that is on show when the time has come."""
    step = float(recipe.stride) if recipe.stride else (fps or NOMINAL_FPS) / (recipe.rate or NOMINAL_FPS)
    # A hair more, so that rounding does not give the frame before.
    return (np.arange(num_frames) * step + 1e-6).astype(np.int64)


def _as_echojepa(length: int, num_frames: int) -> NDArray[np.int64]:
    """The indices that EchoJEPA's training loader takes of a clip of `length` frames (V-JEPA 2's, at 8 a second).

    Its MP4 said 30 frames a second whatever the DICOM said, so it stepped by 30 // 8 = 3 frames. A clip not longer
    than the window gets as many frames as that step finds in it, and its last one repeated.
    """
    stride = math.ceil(NOMINAL_FPS) // ECHOJEPA_FPS
    if length > num_frames * stride:
        last = num_frames * stride
        return np.linspace(0, last, num_frames).clip(0, last - 1).astype(np.int64)
    found = np.linspace(0, length, length // stride).clip(0, length - 1).astype(np.int64)
    return np.concatenate([found, np.full(num_frames - len(found), length - 1, np.int64)])
