"""Which frames of a video the encoder sees. Processes that decode import this file, and not torch."""

import numpy as np
from numpy.typing import NDArray

from ..core.manifest import Row
from ..core.recipe import NOMINAL_FPS, Recipe, echojepa_stride

ECHOJEPA_EVAL_STRIDE = 2  # frames from one that EchoJEPA's evaluations take to the next


def frame_indices(frames: int, num_frames: int) -> NDArray[np.int64]:
    """`num_frames` indices spread over a video of `frames` frames, ends included; ascending.

    A video shorter than that has frames repeated. The reference's formula:
    `numpy.linspace(0, frames - 1, num_frames, dtype=int)`.
    """
    return np.linspace(0, frames - 1, num_frames, dtype=np.int64)


def rate_of(row: Row, recipe: Recipe) -> float | None:
    """The rate that `recipe` samples a clip by, frames a second; None where nothing states it.

    EchoJEPA's loader read it from the file: from a video of yours (`mp4_dir`), whose rate is its own. MP4 files made
    from DICOM said `NOMINAL_FPS` whatever the DICOM said.
    """
    return NOMINAL_FPS if recipe.sampling == "echojepa" and not row.is_video else row.fps


def window(recipe: Recipe, num_frames: int, fps: float | None) -> int:
    """How many frames each part of a video needs for `num_frames` to be sampled without padding or repeats.

    `fps` is what `rate_of` gives; None is taken for `NOMINAL_FPS`.
    """
    if recipe.sampling == "uniform":
        return num_frames
    if recipe.sampling == "echojepa":
        return num_frames * echojepa_stride(fps or NOMINAL_FPS)
    if recipe.sampling == "echojepa-eval":  # a part that is shorter reaches into the next
        return num_frames * ECHOJEPA_EVAL_STRIDE // recipe.clips_per_video
    return int(_steps(recipe, num_frames, fps)[-1]) + 1


def sample(frames: int, num_frames: int, recipe: Recipe, fps: float | None) -> NDArray[np.int64]:
    """The indices of the frames that the encoder sees, [clips_per_video, num_frames], each in 0..frames - 1.

    The video is cut into `clips_per_video` parts of equal length, and each is sampled from its start. Where the recipe
    pads with zeros, a clip that ends before the window has fewer. `fps` is what `rate_of` gives; None is taken for
    `NOMINAL_FPS`.
    """
    if recipe.sampling == "echojepa-eval":
        return _as_echojepa_evaluates(frames, num_frames, recipe.clips_per_video)
    length = max(1, frames // recipe.clips_per_video)
    part = _sample_part(length, num_frames, recipe, fps)
    starts = np.minimum(np.arange(recipe.clips_per_video) * length, frames - 1)
    return np.minimum(starts[:, None] + part[None, :], frames - 1)


def _sample_part(length: int, num_frames: int, recipe: Recipe, fps: float | None) -> NDArray[np.int64]:
    """Indices within a part of `length` frames, int64 [num_frames]."""
    if recipe.sampling == "uniform":
        return frame_indices(length, num_frames)
    if recipe.sampling == "echojepa":
        return _as_echojepa(length, num_frames, echojepa_stride(fps or NOMINAL_FPS))
    steps = _steps(recipe, num_frames, fps)
    if recipe.padding == "zeros":
        return steps[steps < length]
    if recipe.padding == "loop":
        steps = steps % length
    return np.minimum(steps, length - 1)


def _steps(recipe: Recipe, num_frames: int, fps: float | None) -> NDArray[np.int64]:
    """Indices of rate and stride in a video without an end: the frame that is on show when the time has come."""
    step = float(recipe.stride) if recipe.stride else (fps or NOMINAL_FPS) / (recipe.rate or NOMINAL_FPS)
    # A hair more, so that rounding does not give the frame before.
    return (np.arange(num_frames) * step + 1e-6).astype(np.int64)


def _as_echojepa(length: int, num_frames: int, stride: int) -> NDArray[np.int64]:
    """The indices that EchoJEPA's training loader takes of a clip of `length` frames (V-JEPA 2's, at 8 a second).

    A clip not longer than the window gets as many frames as the stride finds in it, and its last one repeated. Their
    windows start at random; ours start at frame 0.
    """
    if length > num_frames * stride:
        return _window(num_frames, stride)
    found = np.linspace(0, length, length // stride).clip(0, length - 1).astype(np.int64)
    return np.concatenate([found, np.full(num_frames - len(found), length - 1, np.int64)])


def _as_echojepa_evaluates(frames: int, num_frames: int, parts: int) -> NDArray[np.int64]:
    """The indices that EchoJEPA's evaluations take of a video of `frames` frames, [parts, num_frames].

    Where a part of the video is longer than the window, the window is at the part's start (theirs is at random).
    Otherwise windows overlap: they are spread so that the last one ends with the video. A video shorter than a window
    is shown whole in each.
    """
    frames = max(1, frames)
    length = frames // parts
    if length > num_frames * ECHOJEPA_EVAL_STRIDE:
        return np.arange(parts)[:, None] * length + _window(num_frames, ECHOJEPA_EVAL_STRIDE)
    shown = min(frames, num_frames * ECHOJEPA_EVAL_STRIDE)
    step = (frames - shown) // max(1, parts - 1)
    return np.arange(parts)[:, None] * step + np.linspace(0, shown - 1, num_frames, dtype=np.int64)


def _window(num_frames: int, stride: int) -> NDArray[np.int64]:
    """The indices within a window of `num_frames` x `stride` frames: spread from its start to its end."""
    last = num_frames * stride
    return np.linspace(0, last, num_frames).clip(0, last - 1).astype(np.int64)
