"""Recipes: which frames, against an independent re-implementation; which pixels are black; what shape is kept."""

import math

import numpy as np
import pytest

from echo_embeddings.core.recipe import RECIPES, Recipe
from echo_embeddings.embed import sampling

FRAMES = [1, 15, 16, 17, 48, 49, 74, 179]
RATES = [24.0, 30.0, 59.94]


def spread(first, last, count):
    """`count` whole numbers from `first` to `last`, evenly, rounded down."""
    return [int(first + (last - first) * i / (count - 1)) if count > 1 else int(first) for i in range(count)]


def by_hand(recipe, frames, fps):
    """The sampled indices, clip by clip, in plain Python."""
    length = max(1, frames // recipe.clips_per_video)
    clips = []
    for part in range(recipe.clips_per_video):
        start = min(part * length, frames - 1)
        found = []
        if recipe.sampling == "uniform":
            found = spread(0, length - 1, 16)
        elif recipe.sampling == "echojepa":
            if length > 48:
                found = [min(i, 47) for i in spread(0, 48, 16)]
            else:
                found = [min(i, length - 1) for i in spread(0, length, length // 3)] if length >= 3 else []
                while len(found) < 16:
                    found.append(length - 1)
        else:
            for i in range(16):
                wanted = i * recipe.stride if recipe.sampling == "stride" else math.floor(i * fps / recipe.rate + 1e-6)
                found.append(wanted % length if recipe.padding == "loop" else min(wanted, length - 1))
        clips.append([min(start + i, frames - 1) for i in found])
    return clips


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPES["guide"],
        RECIPES["echojepa"],
        Recipe("halves", sampling="uniform", clips_per_video=2),
        Recipe("segments", sampling="echojepa", clips_per_video=2),
        Recipe("eight", sampling="rate", rate=8.0),
        Recipe("thirty", sampling="rate", rate=30.0, clips_per_video=3),
        Recipe("loop", sampling="rate", rate=7.5, padding="loop"),
        Recipe("two", sampling="stride", stride=2),
        Recipe("looped", sampling="stride", stride=4, padding="loop", clips_per_video=2),
    ],
    ids=lambda recipe: recipe.name,
)
@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("frames", FRAMES)
def test_the_frames_are_those_of_another_implementation(recipe, frames, fps):
    found = sampling.sample(frames, 16, recipe, fps)
    assert found.tolist() == by_hand(recipe, frames, fps)
    assert found.shape == (recipe.clips_per_video, 16)
    assert found.dtype == np.int64
    if frames // recipe.clips_per_video >= sampling.window(recipe, 16, fps) and (recipe.rate or 0) <= fps:
        assert all(len(set(row)) == 16 for row in found.tolist())


def test_echojepa_by_the_numbers():
    recipe = RECIPES["echojepa"]
    usual = [0, 3, 6, 9, 12, 16, 19, 22, 25, 28, 32, 35, 38, 41, 44, 47]
    assert sampling.sample(49, 16, recipe, 59.94)[0].tolist() == usual
    assert sampling.sample(179, 16, recipe, 30.0)[0].tolist() == usual
    assert sampling.sample(15, 16, recipe, 30.0)[0].tolist() == [0, 3, 7, 11, *[14] * 12]
    assert sampling.sample(1, 16, recipe, None)[0].tolist() == [0] * 16
    assert (sampling.window(recipe, 16, 24.0), sampling.window(RECIPES["guide"], 16, 24.0)) == (48, 16)


def test_true_time_is_that_of_the_dicom():
    """At 60 frames a second, 15 a second are every fourth; an unknown rate counts as 30."""
    recipe = Recipe("fifteen", sampling="rate", rate=15.0)
    assert sampling.sample(179, 16, recipe, 60.0)[0].tolist() == list(range(0, 64, 4))
    assert sampling.sample(179, 16, recipe, None)[0].tolist() == list(range(0, 32, 2))
    assert sampling.window(recipe, 16, 60.0) == 61
