"""Any image model of timm on each frame by itself: `constructor: vit_base_patch14_dinov2.lvd142m`, say.

The statistics, interpolation and size that timm knows of a model must be those of its recipe and registry entry.
"""

from typing import Any

from torch import Tensor, nn

from ..core.errors import UserError
from ..core.recipe import Recipe
from ..core.settings import Model
from . import extras
from .loading import Checkpoint


class Frames(nn.Module):
    """Video [B, 3, T, H, W] to one token a frame, [B, T, embed_dim]: what the model gives its classifier."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model

    @property
    def blocks(self) -> Any:
        """Those of a vision transformer."""
        return getattr(self.model, "blocks", ())

    def forward(self, video: Tensor) -> Tensor:
        """As many pictures as there are frames."""
        pictures = video.transpose(1, 2)
        features = self.model.forward_features(pictures.flatten(0, 1))
        made: Tensor = self.model.forward_head(features, pre_logits=True)
        tokens: Tensor = made.unflatten(0, pictures.shape[:2])
        return tokens


def build(entry: Model) -> nn.Module:
    """The model of a registry entry, with timm's classifier where it has one, so that its whole file is known."""
    timm, data = extras.package("timm"), extras.package("timm.data")
    where = f"model {entry.name}"
    if not timm.is_model(entry.constructor):
        raise UserError(f"{where}: timm {timm.__version__} has no model {entry.constructor!r}, which constructor names")
    model: nn.Module = timm.create_model(entry.constructor, pretrained=False)
    dim = model.head_hidden_size if hasattr(model, "head_hidden_size") else model.num_features
    if dim != entry.embed_dim:
        raise UserError(f"{where}: embed_dim is {entry.embed_dim}, {entry.constructor} has {dim}")
    if said := unlike(entry.recipe, entry.resolution, data.resolve_model_data_config(model)):
        raise UserError(f"{where}: timm shows {entry.constructor} pictures with {said}")
    return Frames(model)


def load(module: nn.Module, checkpoint: Checkpoint) -> None:
    """The weights by timm's names, as its releases have them."""
    assert isinstance(module, Frames)
    checkpoint.fill(module.model, checkpoint.tensors())


def unlike(recipe: Recipe, resolution: int, theirs: dict[str, object]) -> str:
    """What timm's configuration of a model says differently than the recipe and the resolution; empty if nothing."""
    crop = 1.0 if recipe.crop is False else 224 / 256 if recipe.crop is True else recipe.crop
    said = {
        "mean": (theirs["mean"], recipe.mean),
        "std": (theirs["std"], recipe.std),
        "interpolation": (theirs["interpolation"], recipe.interpolation),
        "crop": (theirs["crop_pct"], crop),
        "white": (1, recipe.white),
        "channels": ("rgb", recipe.channels),
        "resolution": (theirs["input_size"], (3, resolution, resolution)),
    }
    words = [f"{key} {a} (recipe {recipe.name}: {b})" for key, (a, b) in said.items() if a != b]
    return ", ".join(words)
