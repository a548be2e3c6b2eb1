"""What is kept of an encoder's tokens: their mean, which is the vector, and features for those who ask for more."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

POOLS = ("mean", "clips", "time", "tokens")


class Pooled(NamedTuple):
    """Of B videos."""

    vectors: Tensor  # float32 [B, embed_dim]
    features: Tensor | None = None  # [B, *shape]; see `pool`
    sound: Tensor | None = None  # bool [B]: whether a video's features hold neither NaN nor Inf

    def each(self, change: Callable[[Tensor], Tensor]) -> "Pooled":
        """All of them, changed."""
        return Pooled._make(None if tensor is None else change(tensor) for tensor in self)


def pool(tokens: Tensor, clips_per_video: int, tubelets: int, keep: str) -> Pooled:
    """Pool the tokens [B * clips_per_video, tubelets * places, embed_dim], which run clip, time, place.

    A vector is the mean over a clip's tokens, and over the clips of its video. `keep` says what features there are:

    mean    none
    clips   float32 [B, clips_per_video, embed_dim]: each clip's mean
    time    float32 [B, clips_per_video, tubelets, embed_dim]: the mean over the places of each tubelet
    tokens  float16 [B, clips_per_video, tubelets, places, embed_dim]: all of them; a value beyond float16 is infinite
    """
    clips = tokens.mean(dim=1, dtype=torch.float32).unflatten(0, (-1, clips_per_video))
    vectors = clips.squeeze(1) if clips_per_video == 1 else clips.mean(dim=1)
    if keep == "mean":
        return Pooled(vectors)
    apart = tokens.unflatten(1, (tubelets, -1)).unflatten(0, (-1, clips_per_video))
    if keep == "clips":
        features = clips
    elif keep == "time":
        features = apart.mean(dim=3, dtype=torch.float32)
    else:
        features = _half(apart)
    return Pooled(vectors, features, features.isfinite().flatten(1).all(dim=1))


def _half(tokens: Tensor) -> Tensor:
    """`tokens` [..., places, embed_dim] as float16, so rounded that the mean over places stays what it is.

    Each rounding error is carried into the next place (error diffusion): rounded to the nearest, the mean of 2,048
    tokens of unit variance is up to 1.6e-5 off, and this way 1e-6. bfloat16 fits into float16 as it is, subnormal
    numbers excepted.
    """
    if tokens.dtype == torch.bfloat16:
        return tokens.half()
    halves, carried = torch.empty_like(tokens, dtype=torch.float16), torch.zeros_like(tokens[..., 0, :])
    for exact, half in zip(tokens.unbind(-2), halves.unbind(-2), strict=True):
        half.copy_(exact + carried)
        carried += exact - half.float()
    return halves


def join(parts: Sequence[Pooled]) -> Pooled:
    """Several of one `keep` as one."""
    return Pooled._make(None if tensors[0] is None else torch.cat(tensors) for tensors in zip(*parts, strict=True))
