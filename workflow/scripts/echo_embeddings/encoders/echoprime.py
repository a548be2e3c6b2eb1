"""EchoPrime's video encoder: torchvision's MViT v2 (small) with a head of 512 values.

Source: github.com/echonet/EchoPrime, whose checkpoint `echo_prime_encoder.pt` is the state dict of this network.
"""

from typing import Any

from torch import nn

from ..core.settings import Model
from . import extras


def build(entry: Model) -> nn.Module:
    """Video [B, 3, 16, 224, 224] to vectors [B, 512]."""
    network: Any = extras.package("torchvision.models.video").mvit_v2_s()
    network.head[-1] = nn.Linear(network.head[-1].in_features, entry.embed_dim)
    made: nn.Module = network
    return made
