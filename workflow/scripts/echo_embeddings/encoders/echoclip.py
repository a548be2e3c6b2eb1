"""EchoCLIP's image encoder: a ConvNeXt-B (timm) of each frame and a projection to 512 values, of length 1 a frame.

Source: github.com/echonet/echo_CLIP, whose checkpoint on Hugging Face is open_clip's state dict of both towers; names
of the image tower begin with `visual.`.
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.settings import Model
from . import extras
from .loading import Checkpoint

PREFIX = "visual."
CHANNELS = 1024  # that ConvNeXt-B hands to its classifier


class EchoClip(nn.Module):
    """Video [B, 3, T, H, W] to vectors [B, embed_dim]: the mean over the frames that there are."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.trunk: nn.Module = extras.package("timm").create_model("convnext_base", pretrained=False, num_classes=0)
        self.head = nn.Sequential(OrderedDict(proj=nn.Linear(CHANNELS, dim, bias=False)))

    def forward(self, video: Tensor) -> Tensor:
        """Frames of zeros alone are padding: no pixel of a picture is 0 once it is normalised."""
        pictures = video.transpose(1, 2)
        there = pictures.flatten(2).any(dim=2)[..., None]
        made = self.head(self.trunk(pictures.flatten(0, 1))).float()  # lengths and means are taken in float32
        vectors = F.normalize(made, dim=-1).unflatten(0, pictures.shape[:2])
        mean: Tensor = (vectors * there).sum(dim=1) / there.sum(dim=1)
        return mean


def build(entry: Model) -> nn.Module:
    """The network of a registry entry."""
    return EchoClip(entry.embed_dim)


def load(module: nn.Module, checkpoint: Checkpoint) -> None:
    """The weights of the image tower; those of the reports' tower are not used."""
    checkpoint.fill(module, checkpoint.tensors(PREFIX))
