"""PanEcho's video encoder: a ConvNeXt-T (torchvision) of 16 pictures, and a transformer over what it makes of them.

Written from the description of the architecture, with the parameters' names of its release v1.0, `panecho.pt`. Its code
(github.com/CarDS-Yale/PanEcho) reads the video [3, T, H, W] as T pictures of three channels *without moving the axes*:
a picture's channels are three successive frames of one colour, and not one frame's colours. So were the weights
trained, and so it is done here.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..core.settings import Model
from . import extras
from .loading import Checkpoint

FRAMES = 16
PREFIX = "encoder."  # of the network's names in the file, beside heads for tasks, which are not used


class PanEcho(nn.Module):
    """Video [B, 3, 16, H, W] to vectors [B, 768]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        pictures: Any = extras.package("torchvision.models").convnext_tiny()
        pictures.classifier[-1] = nn.Identity()
        self.encoder = nn.ModuleDict({"model": pictures})
        layer = nn.TransformerEncoderLayer(dim, nhead=8, dim_feedforward=dim, dropout=0.0, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, num_layers=4)
        self.time_encoder = nn.ParameterDict({"pe": nn.Parameter(positions(FRAMES, dim)[None])})

    def forward(self, video: Tensor) -> Tensor:
        """A clip's vector is the mean over its pictures."""
        batch, channels, frames, height, width = video.shape
        pictures = video.reshape(batch * frames, channels, height, width)  # see above
        made = self.encoder["model"](pictures).unflatten(0, (batch, frames))
        vectors: Tensor = self.transformer(made + self.time_encoder["pe"]).mean(dim=1)
        return vectors


def positions(frames: int, dim: int) -> Tensor:
    """The sines and cosines that are added, float32 [frames, dim]: position * 10000 ** (-2 i / dim), interleaved."""
    omega = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    angles = torch.arange(frames)[:, None] * omega
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def build(entry: Model) -> nn.Module:
    """The network of a registry entry."""
    return PanEcho(entry.embed_dim)


def load(module: nn.Module, checkpoint: Checkpoint) -> None:
    """The weights under the checkpoint key, without those of the heads."""
    checkpoint.fill(module, checkpoint.tensors(PREFIX))
