"""How the pixels of frames become the encoder's input."""

import torch
import torch.nn.functional as F
from torch import Tensor

# ImageNet statistics of RGB in 0..1, as V-JEPA 2 was trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def preprocess(clips: Tensor, resolution: int, crop: bool = True) -> Tensor:
    """uint8 RGB clips [B, T, height, width, 3] to the encoder's float32 input [B, 3, T, resolution, resolution].

    The short side is resized to int(256 / 224 * resolution), bilinear, and the centre is cropped; without `crop`
    to the resolution itself. Values are scaled to 0..1 and normalised with `MEAN` and `STD`. Runs on the device of
    `clips`.
    """
    batch, time, height, width, _ = clips.shape
    short = int(256 / 224 * resolution) if crop else resolution
    scale = short / min(height, width)
    tall, wide = max(short, round(height * scale)), max(short, round(width * scale))
    frames = clips.flatten(0, 1).permute(0, 3, 1, 2).float()
    frames = F.interpolate(frames, size=(tall, wide), mode="bilinear", align_corners=False)
    top, left = (tall - resolution) // 2, (wide - resolution) // 2
    frames = frames[:, :, top : top + resolution, left : left + resolution]
    # Plain numbers: small tensors made on a GPU would stop its queue of work.
    channels = frames.unflatten(0, (batch, time)).unbind(dim=2)
    return torch.stack(
        [(x - 255 * mean) / (255 * std) for x, mean, std in zip(channels, MEAN, STD, strict=True)], dim=1
    )
