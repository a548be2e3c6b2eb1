"""Recipes: which frames, against an independent re-implementation; which pixels are black; what shape is kept."""

import dataclasses
import math

import numpy as np
import pytest

from echo_embeddings.core.manifest import Row
from echo_embeddings.core.recipe import RECIPES, Recipe
from echo_embeddings.embed import sampling

FRAMES = [1, 15, 16, 17, 48, 49, 74, 179]
RATES = [7.5, 15.0, 24.0, 30.0, 50.0, 59.94]


def spread(first, last, count):
    """`count` whole numbers from `first` to `last`, evenly, rounded down."""
    return [int(first + (last - first) * i / (count - 1)) if count > 1 else int(first) for i in range(count)]


def by_hand(recipe, frames, fps):
    """The sampled indices, clip by clip, in plain Python."""
    length = max(1, frames // recipe.clips_per_video)
    clips = []
    if recipe.sampling == "echojepa-eval":
        return by_hand_evaluated(frames, recipe.clips_per_video)
    stride = max(1, math.ceil(fps) // 8)  # of EchoJEPA's training
    for part in range(recipe.clips_per_video):
        start = min(part * length, frames - 1)
        found = []
        if recipe.sampling == "uniform":
            found = spread(0, length - 1, 16)
        elif recipe.sampling == "echojepa":
            if length > 16 * stride:
                found = [min(i, 16 * stride - 1) for i in spread(0, 16 * stride, 16)]
            else:
                found = [min(i, length - 1) for i in spread(0, length, length // stride)] if length >= stride else []
                while len(found) < 16:
                    found.append(length - 1)
        else:
            for i in range(16):
                wanted = i * recipe.stride if recipe.sampling == "stride" else math.floor(i * fps / recipe.rate + 1e-6)
                found.append(wanted % length if recipe.padding == "loop" else min(wanted, length - 1))
        clips.append([min(start + i, frames - 1) for i in found])
    return clips


def by_hand_evaluated(frames, parts):
    """As EchoJEPA's evaluations: windows of 32 frames in parts, or overlapping where parts are no longer than that."""
    clips = []
    for part in range(parts):
        if frames // parts > 32:
            start, found = part * (frames // parts), [min(i, 31) for i in spread(0, 32, 16)]
        elif frames > 32:
            start, found = part * ((frames - 32) // max(1, parts - 1)), spread(0, 31, 16)
        else:
            start, found = 0, spread(0, frames - 1, 16)
        clips.append([start + i for i in found])
    return clips


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPES["guide"],
        RECIPES["echojepa"],
        RECIPES["echojepa-eval"],
        Recipe("one", sampling="echojepa-eval"),
        Recipe("three", sampling="echojepa-eval", clips_per_video=3),
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


@pytest.mark.parametrize(("frames", "shown"), [(1, 1), (9, 5), (30, 15), (31, 16), (32, 16), (99, 16)])
def test_echoprime_shows_every_second_frame_that_there_is(frames, shown):
    for name in ("echoprime", "echoprime-mp4"):
        assert sampling.sample(frames, 16, RECIPES[name], 50.0).tolist() == [list(range(0, 2 * shown, 2))]
    assert sampling.window(RECIPES["echoprime"], 16, 50.0) == 31


def test_echojepa_by_the_numbers():
    recipe = RECIPES["echojepa"]
    usual = [0, 3, 6, 9, 12, 16, 19, 22, 25, 28, 32, 35, 38, 41, 44, 47]
    assert sampling.sample(49, 16, recipe, None)[0].tolist() == usual
    assert sampling.sample(179, 16, recipe, 30.0)[0].tolist() == usual
    assert sampling.sample(15, 16, recipe, 30.0)[0].tolist() == [0, 3, 7, 11, *[14] * 12]
    assert sampling.sample(1, 16, recipe, None)[0].tolist() == [0] * 16
    steps = {fps: sampling.sample(999, 16, recipe, fps)[0][1] for fps in (5, 15, 29.97, 30, 50, 59.94)}
    assert steps == {5: 1, 15: 1, 29.97: 3, 30: 3, 50: 6, 59.94: 7}
    assert (sampling.window(recipe, 16, 50.0), sampling.window(recipe, 16, None)) == (96, 48)
    assert (sampling.window(recipe, 16, 24.0), sampling.window(RECIPES["guide"], 16, 24.0)) == (48, 16)


def test_echojepa_evaluated_by_the_numbers():
    recipe = RECIPES["echojepa-eval"]
    window = [0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31]
    assert sampling.sample(70, 16, recipe, 50.0).tolist() == [window, [35 + i for i in window]]
    overlapping = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 31]
    assert sampling.sample(40, 16, recipe, 50.0).tolist() == [overlapping, [8 + i for i in overlapping]]
    assert sampling.sample(16, 16, recipe, None).tolist() == [list(range(16))] * 2
    assert sampling.sample(0, 16, recipe, None).tolist() == [[0] * 16] * 2
    assert sampling.window(recipe, 16, None) == 16


def test_a_rate_is_the_videos_own_and_an_mp4_of_ours_said_30():
    own = Row("a.avi", "a.avi", "converted", "", 90, fps=50.0)
    ours = Row("a.dcm", "a.mp4", "converted", "", 90, fps=50.0)
    assert [sampling.rate_of(row, RECIPES["echojepa"]) for row in (own, ours)] == [50.0, 30]
    assert [sampling.rate_of(row, Recipe("x", sampling="rate", rate=8.0)) for row in (own, ours)] == [50.0, 50.0]
    assert sampling.rate_of(dataclasses.replace(own, fps=None), RECIPES["echojepa"]) is None


def test_true_time_is_that_of_the_dicom():
    """At 60 frames a second, 15 a second are every fourth; an unknown rate counts as 30."""
    recipe = Recipe("fifteen", sampling="rate", rate=15.0)
    assert sampling.sample(179, 16, recipe, 60.0)[0].tolist() == list(range(0, 64, 4))
    assert sampling.sample(179, 16, recipe, None)[0].tolist() == list(range(0, 32, 2))
    assert sampling.window(recipe, 16, 60.0) == 61
