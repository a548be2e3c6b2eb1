"""How the pixels of frames become the encoder's input."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.recipe import GUIDE, Recipe


def preprocess(clips: Tensor, resolution: int, recipe: Recipe = GUIDE) -> Tensor:
    """uint8 RGB clips [B, T, height, width, 3] to the encoder's float32 input [B, 3, T, resolution, resolution].

    Frames that were not resized when they were read are now: the short side as `recipe` says, bilinear, and the centre
    is cropped. Channels are put into the recipe's order and normalised with its statistics. Runs on the device of
    `clips`.

    As the reference does (V-JEPA 2's video transforms over torchvision's `resize`), frames that shrink are antialiased,
    the long side is truncated, and the crop of frames that are not square begins at the rounded half of the rest.
    """
    batch, time = clips.shape[:2]
    frames = clips.flatten(0, 1).permute(0, 3, 1, 2).float()
    if not recipe.resized_early:
        frames = _resized(frames, resolution, recipe)
    # Plain numbers: small tensors made on a GPU would stop its queue of work.
    channels = frames.unflatten(0, (batch, time)).unbind(dim=2)
    if recipe.channels == "bgr":
        channels = channels[::-1]
    scale = 255 // recipe.white
    return torch.stack(
        [(x - scale * mean) / (scale * std) for x, mean, std in zip(channels, recipe.mean, recipe.std, strict=True)],
        dim=1,
    )


def _resized(frames: Tensor, resolution: int, recipe: Recipe) -> Tensor:
    """Frames, [N, 3, height, width], with their short side resized, and of that the centre."""
    height, width = frames.shape[2:]
    short, least = recipe.short_side(resolution), min(height, width)
    tall, wide = short * height // least, short * width // least
    # Frames that grow are the same either way; the usual ones keep the faster kernel, and their last bits.
    antialias = recipe.antialiases and least > short
    frames = F.interpolate(frames, size=(tall, wide), mode="bilinear", align_corners=False, antialias=antialias)
    if height == width:
        top = left = (short - resolution) // 2
    else:
        top, left = round((tall - resolution) / 2), round((wide - resolution) / 2)
    return frames[:, :, top : top + resolution, left : left + resolution]
