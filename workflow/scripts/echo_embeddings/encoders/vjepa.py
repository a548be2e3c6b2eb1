"""The V-JEPA 2 and 2.1 video encoders: a vision transformer over space-time patches with rotary positions.

Parameters carry the names of the official checkpoints. Source of the architecture: V-JEPA 2
(Assran et al., 2025, arXiv:2506.09985) and its published code, which holds V-JEPA 2.1 too. How the two
differ is data, `architectures.Family`.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.settings import Model
from .architectures import ARCHITECTURES, FAMILIES, PATCH, TUBELET, Architecture, Family, architecture
from .loading import Checkpoint
from .naming import state_dict

# Prefixes of parameter names that only one family has.
TELLTALE = {
    "vjepa2": ("norm.",),
    "vjepa2_1": ("video_mod_embed", "img_mod_embed", "patch_embed_img.", "norms_block."),
}


def rotary_tables(frames: int, height: int, width: int, head_dim: int, family: Family) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of the rotary embedding of a grid of patches, each float32 [tokens, head_dim].

    Tokens run time, row, column. Time, row and column each turn d = 2 * (head_dim // 3 // 2) channels,
    in that order, by position * 10000 ** (-i / (d / 2)); channels that remain at the end are not turned.
    Neighbouring channels are paired. In V-JEPA 2.1 the two of a pair share a frequency; in V-JEPA 2 the
    frequencies are nevertheless laid out f0..fn, f0..fn, as the published weights were trained.
    """
    channels = 2 * (head_dim // 3 // 2)
    omega = 10000.0 ** -(torch.arange(channels // 2, dtype=torch.float32) / (channels / 2))
    omega = omega.repeat_interleave(2) if family.interleaved else omega.repeat(2)
    axes = (torch.arange(frames).float(), positions(height, family), positions(width, family))
    angles = [axis.flatten()[:, None] * omega for axis in torch.meshgrid(*axes, indexing="ij")]
    rest = torch.zeros(frames * height * width, head_dim - 3 * channels)
    angle = torch.cat([*angles, rest], dim=1)
    sign = torch.tensor([-1.0, 1.0]).repeat(head_dim // 2)
    return angle.cos(), angle.sin() * sign


def positions(patches: int, family: Family) -> Tensor:
    """Rows or columns, float32 [patches]: 0, 1, ..., or rescaled so that the last is that of the family's grid."""
    whole = torch.arange(patches).float()
    return whole if family.grid is None else whole * ((family.grid - 1) / max(1, patches - 1))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring channels of `x` [..., tokens, head_dim]: x * cos + swap(x) * (-sin, +sin)."""
    swapped: Tensor = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(x * cos, swapped, sin)


class PatchEmbed(nn.Module):
    """Video [B, 3, T, H, W] to tokens [B, N, embed_dim]."""

    def __init__(self, embed_dim: int, frames: int = TUBELET) -> None:
        super().__init__()
        size = (frames, PATCH, PATCH)
        self.proj = nn.Conv3d(3, embed_dim, kernel_size=size, stride=size)

    def forward(self, video: Tensor) -> Tensor:
        # The convolution as one matrix product: its kernels do not overlap.
        patches = video.unflatten(2, (-1, TUBELET)).unflatten(4, (-1, PATCH)).unflatten(6, (-1, PATCH))
        patches = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        out: Tensor = self.proj(x.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, embed_dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden)
        self.fc2 = nn.Linear(hidden, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        dim = architecture.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, architecture.heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * architecture.mlp_ratio))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Encoder(nn.Module):
    """V-JEPA 2 or 2.1: video [B, 3, T, H, W] to tokens [B, (T / 2) (H / 16) (W / 16), embed_dim].

    T is a multiple of 2, H and W of 16. Input and parameters have one dtype, which is the tokens' too.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture, self.family = architecture, architecture.family
        dim = architecture.embed_dim
        self.head_dim = dim // architecture.heads
        self.patch_embed = PatchEmbed(dim)
        self.blocks = nn.ModuleList(Block(architecture) for _ in range(architecture.depth))
        if self.family.levels:
            self.norms_block = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for _ in range(self.family.levels))
        else:
            self.norm = nn.LayerNorm(dim, eps=1e-6)
        if self.family.modalities:
            self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, dim))
            # For single images, and not used; here because the checkpoint has them.
            self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, dim))
            self.patch_embed_img = PatchEmbed(dim, frames=1)
        self._tables: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    def _rotary(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """The rotary tables for the grid of `video`, on its device and in its dtype; each is made once."""
        grid = (video.shape[2] // TUBELET, video.shape[3] // PATCH, video.shape[4] // PATCH)
        key = (*grid, video.device, video.dtype)
        if key not in self._tables:
            cos, sin = rotary_tables(*grid, self.head_dim, self.family)
            self._tables[key] = (cos.to(video), sin.to(video))
        return self._tables[key]

    def forward(self, video: Tensor) -> Tensor:
        cos, sin = self._rotary(video)
        x = self.patch_embed(video)
        if self.family.modalities:
            x = x + self.video_mod_embed
        for block in self.blocks:
            x = block(x, cos, sin)
        tokens: Tensor = self.norms_block[-1](x) if self.family.levels else self.norm(x)
        return tokens


# --- the family ---------------------------------------------------------------------------------------------


def build(entry: Model) -> nn.Module:
    """The encoder of a registry entry, without memory for its weights."""
    wanted = architecture(entry.constructor, entry.family)
    if wanted.embed_dim != entry.embed_dim:
        raise UserError(
            f"model {entry.name}: embed_dim is {entry.embed_dim}, {entry.constructor} has {wanted.embed_dim}"
        )
    with torch.device("meta"):
        return Encoder(wanted)


def load(module: nn.Module, checkpoint: Checkpoint) -> None:
    """The weights under the checkpoint key, which are to be of the network's family, embedding dimension and depth."""
    assert isinstance(module, Encoder)
    tensors, key_is_named = state_dict(checkpoint.content, checkpoint.key, checkpoint.where)
    _check_family(tensors, module.family, checkpoint.place)
    _check_size(tensors, module.architecture, checkpoint.network, checkpoint.place)
    if not key_is_named:
        checkpoint.tell(
            f"{checkpoint.where}: one state dict without checkpoint keys, taken for {checkpoint.key!r}, "
            "which entry names"
        )
    checkpoint.fill(module, tensors)


def _check_family(tensors: Mapping[str, Tensor], wanted: Family, where: str) -> None:
    """Raise `UserError` if the keys are those of another family than the registry says, or of none."""
    found = {key: name for key in tensors for name, prefixes in TELLTALE.items() if key.startswith(prefixes)}
    for key, name in found.items():
        if FAMILIES[name] != wanted:
            raise UserError(
                f"{where} has {key!r}: it is a {FAMILIES[name].name} encoder, and the registry says "
                f"{wanted.name}; set family: {name}, or take the file that was meant"
            )
    if not found:
        raise UserError(f"{where} holds no V-JEPA encoder: it has neither 'norm.weight' nor 'video_mod_embed'")


def _check_size(tensors: Mapping[str, Tensor], wanted: Architecture, constructor: str, where: str) -> None:
    """Raise `UserError` if the weights are of another embedding dimension or depth than `wanted`."""
    weight = tensors.get("patch_embed.proj.weight")
    embed_dim = weight.shape[0] if isinstance(weight, Tensor) and weight.dim() else wanted.embed_dim
    depth = len({key.split(".")[1] for key in tensors if key.startswith("blocks.")})
    if embed_dim != wanted.embed_dim:
        fits = [name for name, architecture in ARCHITECTURES.items() if architecture.embed_dim == embed_dim]
        hint = f"; constructor: {fits[0]} fits" if fits else ""
        raise UserError(f"{where}: embedding dimension {embed_dim}, {constructor} has {wanted.embed_dim}{hint}")
    if depth != wanted.depth:
        raise UserError(f"{where} has {depth} blocks, {constructor} has {wanted.depth}")
