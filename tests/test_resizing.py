"""Resizing: as the guide's scripts do it, without antialiasing as EchoJEPA's do, and of our own MP4 files as ever."""

import dataclasses
import subprocess

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from echo_embeddings.collection.folders import find_folders
from echo_embeddings.collection.kinds import VIDEO
from echo_embeddings.convert import probe
from echo_embeddings.core import corrections
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.recipe import GUIDE, IMAGENET_MEAN, IMAGENET_STD, RECIPES, Recipe
from echo_embeddings.embed import inference, preprocessing
from testing.embedding import MODEL, EmbedPaths, run

# Above the short side, below it, and not square; 708 x 1016 is a size of MIMIC-IV-Echo.
SHAPES = [(480, 480), (708, 708), (300, 300), (112, 112), (480, 640), (708, 1016), (301, 200), (515, 333)]


def drawn(height, width, frames=2):
    """Noise and edges, which aliasing shows in, uint8 [1, frames, height, width, 3]."""
    rng = np.random.default_rng(height + width)
    fine = rng.integers(0, 256, (1, frames, height, width, 3), dtype=np.uint8)
    fine[:, :, ::7] = 255
    return torch.from_numpy(fine)


def guides(clips, resolution):
    """The reference's pixels: the short side by Pillow's bilinear, which antialiases, and the centre of that."""
    short, shown = int(256 / 224 * resolution), []
    height, width = clips.shape[2:4]
    size = (short, int(short * height / width)) if width < height else (int(short * width / height), short)
    left, top = (round((edge - resolution) / 2) for edge in size)
    for frame in clips[0].numpy():
        small = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
        shown.append(small[top : top + resolution, left : left + resolution])
    return np.stack(shown)


def pixels(prepared):
    """The encoder's input in 0..255, [T, height, width, 3]."""
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (255 * (prepared[0] * std + mean)).permute(1, 2, 3, 0).numpy()


@pytest.mark.parametrize("resolution", [224, 256, 384])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_guides_pixels_but_for_rounding(height, width, resolution):
    """The reference rounds to 8 bits, Pillow twice."""
    clips = drawn(height, width)
    found = pixels(preprocessing.preprocess(clips, resolution))
    assert np.abs(found - guides(clips, resolution)).max() < 1.6
    plain = pixels(preprocessing.preprocess(clips, resolution, RECIPES["echojepa"]))
    apart = np.abs(plain - guides(clips, resolution)).max()
    assert (apart > 20) == (min(height, width) > int(256 / 224 * resolution))


@pytest.mark.parametrize("name", ["echojepa", "echojepa-eval"])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_echojepas_pixels_are_not_antialiased(name, height, width):
    """As OpenCV's bilinear: OpenCV rounds its weights to 11 bits."""
    clips = drawn(height, width)
    size = (256, int(256 * height / width)) if width < height else (int(256 * width / height), 256)
    left, top = (round((edge - 224) / 2) for edge in size)
    frames = [cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in clips[0].numpy()]
    expected = np.stack(frames)[:, top : top + 224, left : left + 224]
    assert np.abs(pixels(preprocessing.preprocess(clips, 224, RECIPES[name])) - expected).max() < 1.6


OF_MP4 = [*(RECIPES[name] for name in ("guide", "echojepa", "echojepa-eval")), Recipe("whole", crop=False)]


@pytest.mark.parametrize("recipe", OF_MP4, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("resolution", [64, 192, 224, 256, 384])
def test_our_own_mp4_files_are_as_they_were_to_the_bit(recipe, resolution):
    """Which are square, of the model's resolution: the lines of version 0.1.0."""
    clips = drawn(resolution, resolution)
    short = int(256 / 224 * resolution) if recipe.crop else resolution
    frames = clips.flatten(0, 1).permute(0, 3, 1, 2).float()
    frames = F.interpolate(frames, size=(short, short), mode="bilinear", align_corners=False)
    edge = (short - resolution) // 2
    frames = frames[:, :, edge : edge + resolution, edge : edge + resolution]
    channels = frames.unflatten(0, (1, 2)).unbind(dim=2)
    statistics = zip(channels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    expected = torch.stack([(x - 255 * mean) / (255 * std) for x, mean, std in statistics], dim=1)
    assert torch.equal(preprocessing.preprocess(clips, resolution, recipe), expected)


def test_a_recipe_says_whether_it_antialiases():
    assert "short side to 292 pixels, bilinear, antialiased; centre 256 x 256" in GUIDE.says(16, 256)
    assert "short side to 256 pixels, bilinear; centre 224 x 224" in RECIPES["echojepa"].says(16, 224)


@pytest.mark.parametrize(
    ("recipe", "wrong"),
    [(GUIDE, {"74.avi", "112.avi"}), (Recipe("whole", crop=False), {"73.avi", "74.avi", "112.avi"}),
     (RECIPES["echojepa"], set())],
    ids=lambda value: getattr(value, "name", None),
)  # fmt: skip
def test_vectors_of_larger_square_videos_are_made_again_once_and_no_others(
    recipe, wrong, tmp_path, tiny_weights, capsys, monkeypatch
):
    """The short side becomes 73 pixels, or 64 without `crop`; what is not square is squeezed to 64."""
    top = tmp_path / "theirs/p10"
    top.mkdir(parents=True)
    for name, size in {"64": "64x64", "73": "73x73", "74": "74x74", "112": "112x112", "wide": "160x112"}.items():
        source = f"testsrc2=size={size}:rate=30,trim=end_frame=20,noise=alls=60"
        options = ("-f", "lavfi", "-i", source, "-c:v", "ffv1", "-pix_fmt", "bgr0", str(top / f"{name}.avi"))
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *options], check=True)
    layout = Layout(tmp_path / "results")
    folder = find_folders(str(tmp_path / "theirs"), [], VIDEO)["p10"]
    probe.probe_folder(folder, layout, 64, limit=0, workers=1, timeout=600, max_failed_fraction=0)
    paths, model = EmbedPaths(top, tiny_weights, layout), dataclasses.replace(MODEL, recipe=recipe)

    real = preprocessing.preprocess

    def plain(clips, resolution, recipe):
        """As 0.1.0 had it."""
        aliased = dataclasses.replace(RECIPES["echojepa"], crop=recipe.crop)
        return real(clips, resolution, aliased)

    with monkeypatch.context() as patch:
        patch.setattr(corrections, "EMBED", tuple(one for one in corrections.EMBED if one.name != "not-antialiased"))
        patch.setattr(inference.preprocessing, "preprocess", plain)
        before = run(paths, model)
    capsys.readouterr()
    after = run(paths, model)
    assert f"5 clips, {len(wrong)} to do" in capsys.readouterr().out
    assert {key for key in before if not torch.equal(before[key], after[key])} == wrong
    run(paths, model)
    assert "5 clips, 0 to do" in capsys.readouterr().out
