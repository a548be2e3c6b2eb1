"""V-JEPA 2 against `transformers.VJEPA2Model`, and 2.1 against slow loops, with the same weights."""

import dataclasses

import pytest
import torch

from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES, FAMILIES, architecture
from echo_embeddings.encoders.vjepa import Encoder, rotary_tables, rotate
from testing import oracle, slow_vjepa


def small_weights(size):
    """An encoder with weights as small as trained ones: under larger ones any two orders of summation part
    further than 1e-5."""
    encoder = Encoder(size).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.02, generator=generator)
    return encoder, generator


@pytest.mark.parametrize(
    ("constructor", "depth", "resolution"),
    [
        ("vit_tiny", 12, 64),
        ("vit_large", 2, 256),
        ("vit_huge", 2, 128),
        ("vit_giant_xformers", 2, 128),
        pytest.param("vit_huge", 2, 256, marks=pytest.mark.slow),
        pytest.param("vit_giant_xformers", 2, 256, marks=pytest.mark.slow),
        pytest.param("vit_large", 24, 256, marks=pytest.mark.slow),
        pytest.param("vit_giant_xformers", 2, 384, marks=pytest.mark.slow),
    ],
)
def test_tokens_are_those_of_transformers(constructor, depth, resolution):
    size = dataclasses.replace(ARCHITECTURES[constructor], depth=depth)
    encoder, generator = small_weights(size)
    reference = oracle.transformers_encoder(
        encoder.state_dict(), size.embed_dim, depth, size.heads, size.mlp_ratio, resolution
    )
    video = torch.randn(1, 3, 16, resolution, resolution, generator=generator)
    with torch.inference_mode():
        ours = encoder(video)
    theirs = oracle.tokens(reference, video)
    assert ours.shape == theirs.shape == (1, 8 * (resolution // 16) ** 2, size.embed_dim)
    assert (ours - theirs).abs().max() < 1e-5


SIZES = ("vit_base", "vit_large", "vit_giant_xformers", "vit_gigantic_xformers")
SLOW_LOOPS = [
    pytest.param(size, resolution, marks=() if size == "vit_base" or resolution == 224 else pytest.mark.slow)
    for size in SIZES
    for resolution in (224, 256, 384)
]


@pytest.mark.parametrize(("constructor", "resolution"), SLOW_LOOPS)
def test_tokens_of_v_jepa_2_1_are_those_of_slow_loops(constructor, resolution):
    depth = 2 if resolution == 224 and constructor in ("vit_base", "vit_large") else 1
    size = dataclasses.replace(architecture(constructor, "vjepa2_1"), depth=depth)
    encoder, generator = small_weights(size)
    with torch.no_grad():  # large enough to be missed
        encoder.video_mod_embed.normal_(0, 0.5, generator=generator)
    frames = 4 if resolution == 224 else 2  # the time axis is tried on the smallest grid
    video = torch.randn(3, frames, resolution, resolution, generator=generator)
    with torch.inference_mode():
        ours = encoder(video[None])[0]
    weights = {key: tensor.double().numpy() for key, tensor in encoder.state_dict().items()}
    theirs = torch.from_numpy(slow_vjepa.tokens(weights, video.double().numpy(), size.heads))
    assert ours.shape == theirs.shape == (frames // 2 * (resolution // 16) ** 2, size.embed_dim)
    assert (ours - theirs).abs().max() < 1e-5


def test_a_2_1_checkpoint_has_the_keys_that_only_2_1_has():
    keys = {family: set(Encoder(architecture("vit_tiny", family)).state_dict()) for family in FAMILIES}
    assert keys["vjepa2"] - keys["vjepa2_1"] == {"norm.weight", "norm.bias"}
    assert keys["vjepa2_1"] - keys["vjepa2"] == {
        "img_mod_embed", "video_mod_embed", "patch_embed_img.proj.weight", "patch_embed_img.proj.bias",
        *(f"norms_block.{i}.{kind}" for i in range(4) for kind in ("weight", "bias")),
    }  # fmt: skip


def test_rotation_by_the_formula():
    """Position by position, channel by channel, as the facts of the architecture state it."""
    head_dim, grid = 64, (2, 3, 4)
    cos, sin = rotary_tables(*grid, head_dim, FAMILIES["vjepa2"])
    x = torch.randn(24, head_dim, dtype=torch.float64)
    found = rotate(x, cos.double(), sin.double())
    channels = 2 * ((head_dim // 3) // 2)
    for token in range(24):
        position = (token // 12, token // 4 % 3, token % 4)
        for channel in range(head_dim):
            axis, within = divmod(channel, channels)
            pair = x[token, channel + 1] * -1 if channel % 2 == 0 else x[token, channel - 1]
            angle = 0.0
            if axis < 3:
                angle = position[axis] * 10000 ** -((within % (channels // 2)) / (channels / 2))
            angle = torch.tensor(angle, dtype=torch.float64)
            expected = x[token, channel] * angle.cos() + pair * angle.sin()
            assert found[token, channel] == pytest.approx(expected.item(), abs=1e-5)


def test_drawn_weights_depend_on_the_seed_alone():
    one, again, other = (checkpoint.draw(ARCHITECTURES["vit_tiny"], seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["blocks.0.mlp.fc1.weight"], other["blocks.0.mlp.fc1.weight"])
