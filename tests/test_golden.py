"""Vectors of drawn V-JEPA encoders, as they were before there were other families: they are not to change."""

import numpy as np
import pytest
import torch
import yaml

from echo_embeddings import load_model
from echo_embeddings.core.recipe import RECIPES
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import architecture

# The first six numbers of each vector, and its length.
VECTORS = {
    ("vjepa2", "guide", 64): [-0.0791322, -0.1658754, -0.1845797, 0.8857719, -0.5485636, 0.1128099, 9.071744],
    ("vjepa2", "guide", 96): [-0.4882469, 0.3133114, 0.0971274, 0.7980092, -0.559421, 0.3645978, 8.6192846],
    ("vjepa2", "echojepa", 64): [-0.0791322, -0.1658754, -0.1845797, 0.8857719, -0.5485636, 0.1128099, 9.071744],
    ("vjepa2", "echojepa", 96): [-0.3499973, 0.3417827, 0.1227762, 0.8166786, -0.5494376, 0.2539379, 8.5746851],
    ("vjepa2", "echojepa-eval", 64): [-0.4300984, -0.1616503, -0.0085322, 0.9537343, -0.4707159, 0.1621236, 8.7920389],
    ("vjepa2", "echojepa-eval", 96): [-0.3939267, 0.3362125, 0.4007373, 0.8891081, -0.6155866, 0.137484, 8.5359936],
    ("vjepa2_1", "guide", 64): [0.0512793, 0.1654846, -0.5657045, 0.4599375, -1.9943986, -0.3944109, 9.4791288],
    ("vjepa2_1", "guide", 96): [-0.1508723, 0.3854406, -0.7214258, 0.4588791, -1.6591851, -0.7407509, 9.8039093],
    ("vjepa2_1", "echojepa", 64): [0.0512793, 0.1654846, -0.5657045, 0.4599375, -1.9943986, -0.3944109, 9.4791288],
    ("vjepa2_1", "echojepa", 96): [-0.1676209, 0.3975752, -0.776515, 0.4202251, -1.5551828, -0.6661815, 9.6255331],
    ("vjepa2_1", "echojepa-eval", 64): [0.0314061, 0.0997036, -0.517148, 0.4478118, -1.7951767, -0.3485504, 9.3712206],
    ("vjepa2_1", "echojepa-eval", 96): [-0.0167445, 0.3426726, -0.5343835, 0.7738625, -1.815433, -0.739086, 9.4019337],
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A registry of small drawn encoders, one for each family and recipe."""
    top = tmp_path_factory.mktemp("golden")
    entries = {}
    for family in ("vjepa2", "vjepa2_1"):
        state = checkpoint.draw(architecture("vit_tiny", family), seed=3).state_dict()
        checkpoint.save(top / f"{family}.pt", {"encoder": state}, "drawn for a test")
        for recipe in ("guide", "echojepa", "echojepa-eval"):
            entries[f"{family}-{recipe}"] = {
                **{"family": family, "constructor": "vit_tiny", "resolution": 64, "embed_dim": 192, "batch_size": 4},
                **{"checkpoint": str(top / f"{family}.pt"), "entry": "encoder", "recipe": recipe},
            }
    (top / "models.yaml").write_text(yaml.safe_dump(entries))
    return {"models_file": str(top / "models.yaml"), "models": list(entries), "embed": {"precision": "fp32"}}


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 128)])
@pytest.mark.parametrize("recipe", ["guide", "echojepa", "echojepa-eval"])
@pytest.mark.parametrize("family", ["vjepa2", "vjepa2_1"])
def test_vectors_are_those_of_before(config, family, recipe, height, width):
    clips = RECIPES[recipe].clips_per_video
    frames = np.random.default_rng(7).integers(0, 256, (16 * clips, height // 8, width // 8, 3), dtype=np.uint8)
    frames = np.kron(frames, np.ones((1, 8, 8, 1), np.uint8))
    vector = load_model(f"{family}-{recipe}", device="cpu", config=config)._forward(torch.from_numpy(frames))
    found = [*vector[:6].tolist(), float(vector.norm())]
    assert found == pytest.approx(VECTORS[family, recipe, height], rel=1e-5, abs=2e-6)
