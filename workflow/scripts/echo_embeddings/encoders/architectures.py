"""The V-JEPA 2 and 2.1 encoders as data, and the numbers that follow: parameters, and operations a clip."""

import dataclasses
from dataclasses import dataclass

PATCH = 16  # edge of a patch, pixels
TUBELET = 2  # frames a patch spans


@dataclass(frozen=True)
class Family:
    """How V-JEPA 2 and V-JEPA 2.1 differ; their blocks are the same."""

    name: str
    interleaved: bool  # rotary frequencies f0, f0, f1, f1, ..; otherwise f0, f1, .., f0, f1, ..
    grid: int | None  # patches a row and column: the grid that positions are rescaled to; None: they are not
    levels: int  # output norms, of which the last one is used; 0: a single one under another name
    modalities: bool  # an embedding marks tokens as a video's, and single images have a patch embedding of their own


FAMILIES = {
    "vjepa2": Family("V-JEPA 2", interleaved=False, grid=None, levels=0, modalities=False),
    "vjepa2_1": Family("V-JEPA 2.1", interleaved=True, grid=16, levels=4, modalities=True),
}


@dataclass(frozen=True)
class Architecture:
    """The size of an encoder, and its family."""

    embed_dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    family: Family = FAMILIES["vjepa2"]

    def parameters(self) -> float:
        """The number of weights without biases and norms, which are under 1 %."""
        return self.depth * self._matrices() + 3 * TUBELET * PATCH**2 * self.embed_dim

    def flop(self, frames: int, resolution: int) -> float:
        """The floating-point operations for one clip of `frames` frames of `resolution` x `resolution` pixels."""
        tokens = frames // TUBELET * (resolution // PATCH) ** 2
        linear = 2 * tokens * self._matrices()
        attention = 4 * tokens**2 * self.embed_dim
        return self.depth * (linear + attention)

    def widest(self, frames: int, resolution: int) -> float:
        """The numbers that the widest layer, of the MLP, makes of such a clip."""
        return frames // TUBELET * (resolution // PATCH) ** 2 * self.mlp_ratio * self.embed_dim

    def _matrices(self) -> float:
        """The weights of one block: queries, keys, values, projection; two linear layers of the MLP."""
        return (4 + 2 * self.mlp_ratio) * self.embed_dim**2


# By the names of the constructors in the official code.
ARCHITECTURES = {
    "vit_tiny": Architecture(192, 12, 3),
    "vit_base": Architecture(768, 12, 12),
    "vit_large": Architecture(1024, 24, 16),
    "vit_huge": Architecture(1280, 32, 16),
    "vit_giant_xformers": Architecture(1408, 40, 22, mlp_ratio=48 / 11),
    "vit_gigantic_xformers": Architecture(1664, 48, 26, mlp_ratio=64 / 13),
}


def architecture(constructor: str, family: str) -> Architecture:
    """The encoder of a size (a key of `ARCHITECTURES`) and family (a key of `FAMILIES`)."""
    return dataclasses.replace(ARCHITECTURES[constructor], family=FAMILIES[family])
