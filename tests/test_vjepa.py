"""The encoder against `transformers.VJEPA2Model` with the same weights."""

import dataclasses

import pytest
import torch

import oracle
from echo_embeddings import checkpoint
from echo_embeddings.architectures import ARCHITECTURES
from echo_embeddings.vjepa import Encoder, rotary_tables, rotate


@pytest.mark.parametrize(
    ("constructor", "depth", "resolution"),
    [
        ("vit_tiny", 12, 64),
        ("vit_large", 24, 256),
        ("vit_huge", 2, 256),
        ("vit_giant_xformers", 2, 256),
        ("vit_giant_xformers", 2, 384),
    ],
)
def test_tokens_are_those_of_transformers(constructor, depth, resolution):
    architecture = dataclasses.replace(ARCHITECTURES[constructor], depth=depth)
    # Small weights, as trained ones are: under larger ones any two orders of summation part further than 1e-5.
    encoder = Encoder(architecture).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.02, generator=generator)
    reference = oracle.transformers_encoder(
        encoder.state_dict(), architecture.embed_dim, depth, architecture.heads, architecture.mlp_ratio, resolution
    )
    video = torch.randn(1, 3, 16, resolution, resolution, generator=generator)
    with torch.inference_mode():
        ours = encoder(video)
    theirs = oracle.tokens(reference, video)
    assert ours.shape == theirs.shape == (1, 8 * (resolution // 16) ** 2, architecture.embed_dim)
    assert (ours - theirs).abs().max() < 1e-5


def test_rotation_by_the_formula():
    """Position by position, channel by channel, as the facts of the architecture state it."""
    head_dim, grid = 64, (2, 3, 4)
    cos, sin = rotary_tables(*grid, head_dim)
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
    architecture = ARCHITECTURES["vit_tiny"]
    one, again, other = (checkpoint.draw(architecture, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["blocks.0.mlp.fc1.weight"], other["blocks.0.mlp.fc1.weight"])
