"""How the pixels of frames become the encoder's input."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.recipe import GUIDE, Recipe

# ImageNet statistics of RGB in 0..1, as V-JEPA 2 was trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def preprocess(clips: Tensor, resolution: int, recipe: Recipe = GUIDE) -> Tensor:
    """uint8 RGB clips [B, T, height, width, 3] to the encoder's float32 input [B, 3, T, resolution, resolution].

    The short side is resized as `recipe` says, bilinear, and the centre is cropped. Values are scaled to 0..1 and
    normalised with `MEAN` and `STD`. Runs on the device of `clips`.

    As the reference does (V-JEPA 2's video transforms over torchvision's `resize`), frames that shrink are antialiased,
    the long side is truncated, and the crop of frames that are not square begins at the rounded half of the rest.
    """
    batch, time, height, width, _ = clips.shape
    short, least = recipe.short_side(resolution), min(height, width)
    tall, wide = short * height // least, short * width // least
    frames = clips.flatten(0, 1).permute(0, 3, 1, 2).float()
    # Frames that grow are the same either way; the usual ones keep the faster kernel, and their last bits.
    antialias = recipe.antialiases and least > short
    frames = F.interpolate(frames, size=(tall, wide), mode="bilinear", align_corners=False, antialias=antialias)
    if height == width:
        top = left = (short - resolution) // 2
    else:
        top, left = round((tall - resolution) / 2), round((wide - resolution) / 2)
    frames = frames[:, :, top : top + resolution, left : left + resolution]
    # Plain numbers: small tensors made on a GPU would stop its queue of work.
    channels = frames.unflatten(0, (batch, time)).unbind(dim=2)
    return torch.stack(
        [(x - 255 * mean) / (255 * std) for x, mean, std in zip(channels, MEAN, STD, strict=True)], dim=1
    )
