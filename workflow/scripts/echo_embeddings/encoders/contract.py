"""What an encoder is here, and the families of them that there are.

A *family* is a module with two functions; the second may be left out where a file holds the encoder's weights alone.

    build(entry: Model) -> nn.Module
        The network of a registry entry, without its weights. Raises `UserError` where there is no such network.
    load(module: nn.Module, checkpoint: Checkpoint) -> None
        The weights, strictly: `checkpoint.fill(module, tensors)` refuses whatever does not fit.

The network's `forward` takes a video, [B, 3, T, H, W], normalised, and gives tokens, [B, N, embed_dim], or vectors,
[B, embed_dim]; a clip's vector is the mean over its tokens. Where it has alike `blocks`, these are compiled.

What it is fed is data: the recipe that its registry entry names (`core/recipe.py`) says which frames, padding, mask,
geometry, interpolation, order of channels, statistics and precision. All of it is in the fingerprint, the run record
and the data set card. `FAMILIES` says the rest. Nothing here imports torch: who plans a run asks for it too.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from ..core.settings import Model
from .architectures import PATCH, TUBELET, architecture


@dataclass(frozen=True)
class Size:
    """What an encoder costs, with clips as its model is fed."""

    parameters: float
    flop: float  # floating-point operations of a clip
    widest: float  # numbers that the widest layer makes of a clip


@dataclass(frozen=True)
class Tokens:
    """Which part of a clip each token stands for. They run time, row, column."""

    tubelet: int  # frames
    patch: int | None  # edge of a square, pixels; None: the whole picture

    def grid(self, frames: int, resolution: int) -> tuple[int, int]:
        """Tubelets in a clip, and patches in each."""
        return frames // self.tubelet, 1 if self.patch is None else (resolution // self.patch) ** 2


@dataclass(frozen=True)
class Clip:
    """The only clips that an encoder takes, and the vectors that it gives."""

    frames: int
    resolution: int  # pixels
    embed_dim: int

    def __str__(self) -> str:
        return f"{self.frames} frames of {self.resolution} pixels to {self.embed_dim} values"


@dataclass(frozen=True)
class Family:
    """What is to be known of a family before an encoder is built."""

    title: str
    module: str  # of this package
    tokens: Tokens | None = None  # None: it gives vectors, or its tokens stand for no part of a clip
    size: Callable[[Model], Size | None] = lambda _: None  # None where it is not known
    only: Clip | None = None  # None: the entry says
    vector: str = "mean over all tokens"  # what a clip's vector is, in words


def _of_vjepa(model: Model) -> Size:
    this = architecture(model.constructor, model.family)
    shape = (model.num_frames, model.resolution)
    return Size(this.parameters(), this.flop(*shape), this.widest(*shape))


FAMILIES = {
    "vjepa2": Family("V-JEPA 2", "vjepa", Tokens(TUBELET, PATCH), _of_vjepa),
    "vjepa2_1": Family("V-JEPA 2.1", "vjepa", Tokens(TUBELET, PATCH), _of_vjepa),
    # Operations by torch.utils.flop_counter.
    "echoprime": Family(
        "EchoPrime", "echoprime", None, lambda _: Size(34.6e6, 128e9, 10e6), Clip(16, 224, 512), "what its head gives"
    ),
    "panecho": Family(
        "PanEcho", "panecho", None, lambda _: Size(42.0e6, 143e9, 19e6), Clip(16, 224, 768), "mean over its pictures"
    ),
    "echoclip": Family(
        "EchoCLIP",
        "echoclip",
        None,
        lambda _: Size(88.1e6, 615e9, 32e6),
        Clip(20, 224, 512),
        "mean over its frames' vectors, each of length 1",
    ),
    "frames": Family("timm, frame by frame", "frames", Tokens(1, None), vector="mean over all frames"),
    "python": Family("Python file", "python", vector="as the file makes it, or mean over its tokens"),
}


def code(model: Model) -> ModuleType:
    """The module with `build` and `load`. Raises `UserError` where a package that it needs is not installed."""
    return importlib.import_module(f".{FAMILIES[model.family].module}", __package__)


def size(model: Model) -> Size | None:
    """What the encoder of `model` costs; None where that is not known."""
    return FAMILIES[model.family].size(model)


def says(model: Model) -> str:
    """What is done to a clip, and what its vector is, in words."""
    masked = "" if model.mp4_mask == "none" else f"MP4 masked when it was made ({model.mp4_mask}): "
    return f"{masked}{model.recipe.says(model.num_frames, model.resolution)}; {FAMILIES[model.family].vector}"


def misfit(model: Model, pool: str = "mean") -> str | None:
    """Why `model` cannot do what is asked of it, features by `pool` included, in words; None if it can."""
    this = FAMILIES[model.family]
    asked = Clip(model.num_frames, model.resolution, model.embed_dim)
    if this.only and asked != this.only:
        return (
            f"model {model.name}: {this.title} makes {this.only}, and resolution, embed_dim and recipe "
            f"{model.recipe.name} say {asked}"
        )
    if this.tokens is None and pool in ("time", "tokens"):
        return (
            f"embed.pool: {pool}: model {model.name} ({this.title}) gives a vector a clip, and nothing that stands for "
            "a part of it; take mean or clips, or leave the model out"
        )
    return None
