"""Tokens to vectors and features, against loops in float64."""

import pytest
import torch

from echo_embeddings.core.recipe import Recipe
from echo_embeddings.core.settings import Model
from echo_embeddings.embed import pooling
from echo_embeddings.tools import estimate

VIDEOS, CLIPS, TUBELETS, PLACES, DIM = 3, 2, 4, 9, 24


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def tokens(request):
    drawn = torch.randn(VIDEOS * CLIPS, TUBELETS * PLACES, DIM, generator=torch.Generator().manual_seed(0))
    return (3 * drawn + 1).to(request.param)


def by_hand(tokens):
    """One token after the other: [video][clip][tubelet][place] -> float64 [embed_dim]."""
    return {
        (video, clip, tubelet, place): tokens[video * CLIPS + clip, tubelet * PLACES + place].double()
        for video in range(VIDEOS)
        for clip in range(CLIPS)
        for tubelet in range(TUBELETS)
        for place in range(PLACES)
    }


def mean(found):
    return sum(found) / len(found)


@pytest.mark.parametrize("keep", pooling.POOLS)
def test_pooled_as_by_hand(tokens, keep):
    expected = by_hand(tokens)
    vectors, features, _ = pooling.pool(tokens, CLIPS, TUBELETS, keep)
    assert (vectors.dtype, vectors.shape) == (torch.float32, (VIDEOS, DIM))
    for video in range(VIDEOS):
        of_video = {place: token for place, token in expected.items() if place[0] == video}
        torch.testing.assert_close(vectors[video].double(), mean(list(of_video.values())), rtol=1e-5, atol=1e-5)
        for clip in range(CLIPS):
            of_clip = {place[2:]: token for place, token in of_video.items() if place[1] == clip}
            if keep == "clips":
                torch.testing.assert_close(
                    features[video, clip].double(), mean(list(of_clip.values())), rtol=1e-5, atol=1e-5
                )
            for tubelet in range(TUBELETS):
                of_tubelet = [of_clip[tubelet, place] for place in range(PLACES)]
                if keep == "time":
                    made = features[video, clip, tubelet].double()
                    torch.testing.assert_close(made, mean(of_tubelet), rtol=1e-5, atol=1e-5)
                if keep == "tokens":
                    made = features[video, clip, tubelet].double()
                    torch.testing.assert_close(made, torch.stack(of_tubelet), rtol=2**-10, atol=2**-8)
    assert (features is None) == (keep == "mean")


@pytest.mark.parametrize("keep", pooling.POOLS)
def test_the_size_that_is_said_before_a_run(keep):
    model = Model("m", "vit_tiny", 48, DIM, "encoder", 2 * TUBELETS, "fp32", recipe=Recipe("r", clips_per_video=CLIPS))
    assert PLACES == (48 // 16) ** 2
    features = pooling.pool(torch.randn(VIDEOS * CLIPS, TUBELETS * PLACES, DIM), CLIPS, TUBELETS, keep).features
    assert estimate.feature_bytes(VIDEOS, model, keep) == (0 if features is None else features.nbytes)


@pytest.mark.parametrize("resolution", [224, 256, 384])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_tokens_pooled_again_are_the_vector(resolution, dtype):
    """To 1e-5, and those of a tubelet its time vector; tokens rounded to the nearest are further off."""
    places = (resolution // 16) ** 2
    tokens = (3 * torch.randn(1, 8 * places, 64, generator=torch.Generator().manual_seed(1)) + 1).to(dtype)
    vectors, features, _ = pooling.pool(tokens, 1, 8, "tokens")
    off = (features.double().mean(dim=(1, 2, 3)) - vectors).abs().max()
    assert off < 1e-5
    times = pooling.pool(tokens, 1, 8, "time").features
    assert (features.double().mean(dim=3) - times).abs().max() < 2e-5
    if dtype == torch.float32:
        nearest = tokens.half().double().mean(dim=1)
        assert (nearest - vectors).abs().max() > 5 * off


def test_what_float16_cannot_hold_is_infinite_and_stays_where_it_is():
    tokens = torch.ones(2, 4, 8)
    tokens[0, 1, 3] = 1e6
    assert pooling.pool(tokens, 1, 2, "tokens").finite.tolist() == [False, True]
    assert pooling.pool(tokens, 1, 2, "time").finite.tolist() == [True, True]
