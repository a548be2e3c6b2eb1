"""From an encoder's tokens to what is kept: their mean, which is the vector, and features where `embed.pool` asks."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

POOLS = ("mean", "clips", "time", "tokens")  # values of embed.pool; "mean" keeps no features


class Pooled(NamedTuple):
    """What is kept of the tokens of B videos."""

    vectors: Tensor  # float32 [B, embed_dim]
    features: Tensor | None = None  # [B, *shape]; see `pool`
    finite: Tensor | None = None  # bool [B]: whether a video's features hold neither NaN nor Inf

    def each(self, change: Callable[[Tensor], Tensor]) -> "Pooled":
        """The same with `change` applied to each tensor."""
        return Pooled._make(None if tensor is None else change(tensor) for tensor in self)


def pool(tokens: Tensor, clips_per_video: int, tubelets: int | None, pooling: str) -> Pooled:
    """Pool the tokens [B * clips_per_video, tubelets * patches, embed_dim] of B videos.

    A vector is the mean over a clip's tokens, and over the clips of its video. Of an encoder that gives vectors,
    [B * clips_per_video, embed_dim], each is a clip's. `pooling` says which features there are besides; `tubelets` may
    be None, as tokens then stand for no part of a clip, where it is one of the first two:

    mean    none
    clips   float32 [B, clips_per_video, embed_dim]: each clip's mean
    time    float32 [B, clips_per_video, tubelets, embed_dim]: the mean over the patches of each tubelet
    tokens  float16 [B, clips_per_video, tubelets, patches, embed_dim]: all tokens; a value beyond float16 is infinite
    """
    clips = tokens.mean(dim=1, dtype=torch.float32) if tokens.dim() == 3 else tokens.float()
    clips = clips.unflatten(0, (-1, clips_per_video))
    vectors = clips.squeeze(1) if clips_per_video == 1 else clips.mean(dim=1)
    if pooling == "mean":
        return Pooled(vectors)
    if pooling == "clips":
        features = clips
    else:
        assert tubelets is not None, "refused when the run is planned"
        apart = tokens.unflatten(1, (tubelets, -1)).unflatten(0, (-1, clips_per_video))
        features = apart.mean(dim=3, dtype=torch.float32) if pooling == "time" else _half(apart)
    return Pooled(vectors, features, features.isfinite().flatten(1).all(dim=1))


def _half(tokens: Tensor) -> Tensor:
    """`tokens` [..., patches, embed_dim] as float16, rounded so that the mean over the patches is preserved.

    Each rounding error is carried into the next patch (error diffusion): the mean of 2,048 tokens of unit variance,
    each rounded to the nearest, is up to 1.6e-5 off, and this way 1e-6. bfloat16 fits into float16 as it is,
    subnormal numbers excepted.
    """
    if tokens.dtype == torch.bfloat16:
        return tokens.half()
    halves, carried = torch.empty_like(tokens, dtype=torch.float16), torch.zeros_like(tokens[..., 0, :])
    for exact, half in zip(tokens.unbind(-2), halves.unbind(-2), strict=True):
        half.copy_(exact + carried)
        carried += exact - half.float()
    return halves


def join(parts: Sequence[Pooled]) -> Pooled:
    """Several of one pooling as one."""
    return Pooled._make(None if tensors[0] is None else torch.cat(tensors) for tensors in zip(*parts, strict=True))
