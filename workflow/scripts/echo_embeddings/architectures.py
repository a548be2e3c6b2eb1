"""Sizes of the V-JEPA 2 encoders, and what follows from them: parameters and operations a clip."""

from dataclasses import dataclass

PATCH = 16  # edge of a patch, pixels
TUBELET = 2  # frames a patch spans


@dataclass(frozen=True)
class Architecture:
    """The size of an encoder."""

    embed_dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0

    def parameters(self) -> float:
        """Number of weights, without biases and norms (under 1 %)."""
        return self.depth * self._matrices() + 3 * TUBELET * PATCH**2 * self.embed_dim

    def flop(self, frames: int, resolution: int) -> float:
        """Floating-point operations for one clip of `frames` frames of `resolution` x `resolution` pixels."""
        tokens = frames // TUBELET * (resolution // PATCH) ** 2
        linear = 2 * tokens * self._matrices()
        attention = 4 * tokens**2 * self.embed_dim
        return self.depth * (linear + attention)

    def _matrices(self) -> float:
        """Weights of one block: queries, keys, values, projection; two linear layers of the MLP."""
        return (4 + 2 * self.mlp_ratio) * self.embed_dim**2


# Constructor names as in the official code.
ARCHITECTURES = {
    "vit_tiny": Architecture(192, 12, 3),
    "vit_large": Architecture(1024, 24, 16),
    "vit_huge": Architecture(1280, 32, 16),
    "vit_giant_xformers": Architecture(1408, 40, 22, mlp_ratio=48 / 11),
}
