"""Encoders of other families: the whole way against an independent one, and what would be wrong is caught."""

import dataclasses
import functools

import av
import cv2
import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from safetensors.torch import save_file

from echo_embeddings import UserError, load_model
from echo_embeddings.core import settings
from echo_embeddings.core.recipe import RECIPES
from echo_embeddings.core.settings import Model
from echo_embeddings.embed import masks
from echo_embeddings.embed.inference import blocks_of
from echo_embeddings.encoders import checkpoint, extras
from testing import encoders, phantoms
from testing.corpus import CINE
from testing.encoders import stored

CLOSE = 1e-4  # of an independent construction, relative
APART = 0.1  # two clips, at least
WRONG = 5 * CLOSE  # what a fault changes, at least
GAINS = {"echoprime": 1.5, "panecho": 8, "echoclip": 1.2, "timm": 3}  # of weights under which clips lie apart
TIMM = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
OF_TIMM = {
    **{"aspect": "native", "stretched": False, "interpolation": "bicubic", "crop": 0.9},
    **{"mean": [0.5] * 3, "std": [0.5] * 3},
}
OF_ECHOPRIME = {"family": "echoprime", "embed_dim": 512, "checkpoint": "echo_prime_encoder.pt"}
ENTRIES = {
    "echoprime": {**OF_ECHOPRIME, "recipe": "echoprime"},
    "echoprime-mp4": {**OF_ECHOPRIME, "recipe": "echoprime-mp4"},
    "panecho": {
        **{"family": "panecho", "recipe": "panecho", "embed_dim": 768, "checkpoint": "panecho.pt", "entry": "weights"},
    },
    "echoclip": {"family": "echoclip", "recipe": "echoclip", "embed_dim": 512, "checkpoint": "echoclip.bin"},
    "timm": {
        **{"family": "frames", "constructor": TIMM, "recipe": "timm"},
        **{"embed_dim": 192, "checkpoint": "timm.safetensors"},
    },
}


@pytest.fixture(scope="module")
def networks():
    """One of others, drawn, by its name; EchoCLIP alone takes seconds, which only slow tests need."""
    makers = {
        "echoprime": encoders.echoprime,
        "panecho": encoders.PanEcho,
        "echoclip": encoders.EchoClip,
        "timm": lambda: extras.package("timm").create_model(TIMM),
    }
    return functools.cache(lambda name: encoders.draw(makers[name](), seed=1, gain=GAINS[name]))


@pytest.fixture(scope="module")
def directory(tmp_path_factory, networks):
    """Weights in the layouts of the releases but EchoCLIP's, a registry, and the cine as videos of its own shape."""
    top = tmp_path_factory.mktemp("encoders")
    torch.save(networks("echoprime").state_dict(), top / "echo_prime_encoder.pt")
    weights = {f"encoder.{key}": value for key, value in networks("panecho").state_dict().items()}
    torch.save({"weights": {**weights, "EF_head.1.weight": torch.zeros(1, 768)}, "epoch": 9}, top / "panecho.pt")
    save_file(networks("timm").state_dict(), top / "timm.safetensors")
    entries = {name: {"resolution": 224, "batch_size": 4, **entry} for name, entry in ENTRIES.items()}
    (top / "models.yaml").write_text(yaml.safe_dump(entries))
    for size in CINE:
        frames = stored(size)
        writer = cv2.VideoWriter(str(top / f"{size}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30, frames.shape[2:0:-1])
        for frame in frames:
            writer.write(frame[..., ::-1])
        writer.release()
    return top


@pytest.fixture(scope="module")
def load(directory, networks):
    """Loads a model of this registry, with a recipe that differs by `changes`."""
    config = {
        **{"models_file": str(directory / "models.yaml"), "models": ["panecho"], "weights_dir": str(directory)},
        "recipes": {"timm": OF_TIMM},
    }

    def load(name, device="cpu", precision="fp32", **changes):
        echoclip = directory / "echoclip.bin"
        if name.startswith("echoclip") and not echoclip.exists():
            torch.save({**networks("echoclip").state_dict(), "logit_scale": torch.zeros(())}, echoclip)
        model = load_model(name, device=device, config=config | {"embed": {"precision": precision}})
        recipe = dataclasses.replace(model.model.recipe, **changes)
        model.model = dataclasses.replace(model.model, recipe=recipe)
        return model

    return load


def played(path):
    """Those of a video, by another reader."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def timm_input(frames):
    """By timm's own transforms: [16, 3, 224, 224]."""
    data = extras.package("timm.data")
    network = extras.package("timm").create_model(TIMM)
    transform = data.create_transform(**data.resolve_model_data_config(network), is_training=False)
    chosen = [int(i) for i in np.linspace(0, len(frames) - 1, 16)]
    return torch.stack([transform(PIL.Image.fromarray(frames[i])) for i in chosen])


@torch.inference_mode()
def by_hand(networks, name, frames):
    """The vector of another construction."""
    if name == "timm":
        network = networks("timm")
        return network.forward_head(network.forward_features(timm_input(frames)), pre_logits=True).mean(dim=0)
    if name == "panecho":
        return networks("panecho")(encoders.panecho_input(frames))[0]
    if name == "echoclip":
        return networks("echoclip")(encoders.echoclip_input(frames))
    own = name == "echoprime"
    return networks("echoprime")(encoders.echoprime_input(frames, mask=own, bgr=own))[0]


@pytest.fixture(scope="module")
def expected(networks):
    """The vector of the small cine by another construction, by model."""
    return functools.cache(lambda name: by_hand(networks, name, stored("small")))


def apart(a, b):
    return float((a - b).norm() / b.norm())


# Each vector of the others takes seconds, and one of EchoCLIP a dozen.
SLOW = ("echoprime", "echoprime-mp4", "panecho", "echoclip")
OF_DICOM = ["echoprime", "panecho", "timm", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW[1::2])]
OF_VIDEOS = ["timm", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.mark.parametrize("name", OF_DICOM)
def test_vectors_of_dicom_are_those_of_another_construction(load, networks, expected, name):
    """On pixels as they are stored; of 30 frames, to which EchoPrime adds zeros."""
    vector = load(f"{name}-direct").embed(CINE["small"])
    assert apart(vector, expected(name)) < CLOSE
    # The test would prove nothing if all clips had nearly the same vector.
    turned = stored("small")[::-1, ::-1]
    # All vectors of drawn ConvNeXts have a large part in common, more so than those of trained ones.
    other = phantoms.draw("linear").frames if name == "echoclip" else turned
    assert apart(by_hand(networks, name, other), vector) > APART


@pytest.mark.gpu
@pytest.mark.parametrize("name", GAINS)
@pytest.mark.parametrize(("precision", "most"), [("fp32", CLOSE), ("bf16", 0.05)])
def test_vectors_of_a_gpu_are_a_cpus(load, name, precision, most):
    vector = load(f"{name}-direct", "cuda", precision).embed(CINE["small"])
    assert apart(vector, load(f"{name}-direct").embed(CINE["small"])) < most


@pytest.mark.parametrize(("name", "number"), [("echoprime", 0), ("panecho", 0), ("timm", 12)])
def test_blocks_are_compiled_only_if_one_code_serves_them_all(load, name, number):
    assert len(blocks_of(load(name)._encoder)) == number


@pytest.mark.parametrize("name", OF_VIDEOS)
def test_vectors_of_videos_are_those_of_another_construction(load, networks, directory, name):
    path = directory / "large.mp4"
    assert apart(load(name).embed(path), by_hand(networks, name, played(path))) < CLOSE


FAULTS = [
    ("echoprime", {"mean": (29.110628, 28.076836, 28.096405)}),
    ("panecho", {"std": (0.229, 0.224, 0.215)}),
    ("timm", {"mean": (0.485, 0.456, 0.406)}),
    ("timm", {"channels": "bgr"}),
    ("timm", {"crop": False}),
]
FURTHER_FAULTS = [
    ("echoprime", {"channels": "rgb"}),
    ("echoprime", {"mask": "none"}),
    ("echoprime", {"margin": 0.0}),
    ("echoprime", {"padding": "last"}),
    ("panecho", {"channels": "rgb"}),
    ("panecho", {"interpolation": "cubic"}),
    ("echoclip", {"std": (0.26862954, 0.26130258, 0.26577711)}),
    ("echoclip", {"channels": "rgb"}),
    ("echoclip", {"padding": "last"}),
]


@pytest.mark.parametrize(
    ("name", "changes"),
    [*FAULTS, *(pytest.param(*fault, marks=pytest.mark.slow) for fault in FURTHER_FAULTS)],
    ids=str,
)
def test_what_is_prepared_otherwise_is_caught(load, expected, name, changes):
    """One wrong statistic, swapped channels, no mask: each moves the vector further than the tests above allow."""
    vector = load(f"{name}-direct", **changes).embed(CINE["small"])
    assert apart(vector, expected(name)) > WRONG


def model_of(name, **changes):
    """A model of the registry above, by itself."""
    entry = {"constructor": "", "entry": "", **ENTRIES[name]}
    recipe = RECIPES.get(entry["recipe"]) or settings.recipes({"recipes": {"timm": OF_TIMM}})["timm"]
    made = Model(
        name,
        entry["constructor"],
        224,
        entry["embed_dim"],
        entry["entry"],
        recipe.frames or 16,
        "fp32",
        entry["family"],
        recipe,
    )
    return dataclasses.replace(made, **changes)


def broken(state, fault):
    """A state dict in which one thing is wrong; the words that are to name it."""
    keys = [key for key, value in state.items() if value.dim() > 1]
    key = keys[len(keys) // 2]
    if fault == "missing":
        return {k: v for k, v in state.items() if k != key}, f"has no {key!r}"
    if fault == "unknown":
        return {**state, "more.weight": torch.zeros(2)}, "has 'more.weight'"
    if fault == "shape":
        return {**state, key: state[key][:1]}, f"{key!r} is [1, "
    return {**state, key: torch.full_like(state[key], torch.nan)}, f"{key!r} holds NaN"


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "nan"])
@pytest.mark.parametrize("name", ["echoprime", "panecho", pytest.param("echoclip", marks=pytest.mark.slow), "timm"])
def test_weights_fit_by_every_official_name_or_are_refused(networks, tmp_path, name, fault):
    state, words = broken({key.removeprefix("visual."): w for key, w in networks(name).state_dict().items()}, fault)
    if name == "panecho":
        state = {"weights": {f"encoder.{key}": value for key, value in state.items()}}
    if name == "echoclip":
        state = {f"visual.{key}": value for key, value in state.items()}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError) as error:
        checkpoint.load(tmp_path / "w.pt", model_of(name))
    assert words in str(error.value)
    assert str(error.value).startswith(f"model {name}: {tmp_path}/w.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("echoprime", {"num_frames": 8}, "EchoPrime makes 16 frames of 224 pixels to 512 values, and"),
        ("panecho", {"embed_dim": 512}, "say 16 frames of 224 pixels to 512 values"),
        ("timm", {"constructor": "vit_teeny"}, "has no model 'vit_teeny', which constructor names"),
        ("timm", {"embed_dim": 512}, f"embed_dim is 512, {TIMM} has 192"),
        ("timm", {"recipe": RECIPES["frames"]}, "mean (0.5, 0.5, 0.5) (recipe frames: (0.485, 0.456, 0.406))"),
        ("timm", {"resolution": 256}, "resolution (3, 224, 224) (recipe timm: (3, 256, 256))"),
        ("panecho", {"entry": "encoder"}, "no checkpoint key 'encoder', which entry names; the file has weights"),
    ],
    ids=str,
)
def test_an_entry_that_cannot_be_meant_is_one_line(directory, name, changes, words):
    files = {"echoprime": "echo_prime_encoder.pt", "panecho": "panecho.pt", "timm": "timm.safetensors"}
    with pytest.raises(UserError) as error:
        checkpoint.load(directory / files[name], model_of(name, **changes))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_squeezed_pictures_are_not_taken_for_the_dicom_s():
    line = "model echoprime: recipe echoprime shows pictures in their own shape, and MP4 files are squeezed to a square"
    assert settings.unfit("echoprime", RECIPES["echoprime"], videos=False) == f"{line}; take echoprime-direct"
    assert settings.unfit("echoprime", RECIPES["echoprime"], videos=True) is None
    assert settings.unfit("panecho", RECIPES["panecho"], videos=False) is None


@pytest.mark.parametrize("name", phantoms.LAYOUTS)
def test_the_mask_is_that_of_another_construction(name):
    picture = phantoms.draw(name)
    kept = masks.echoprime(picture.frames)
    np.testing.assert_array_equal(picture.frames * kept[..., None], encoders.masked(picture.frames))
    assert 0.1 < kept.mean() < 0.9


def test_a_clip_whose_ends_are_alike_has_no_mask():
    frames = phantoms.draw("linear", 3).frames
    with pytest.raises(masks.NoSectorError, match="the first frame and the last are alike"):
        masks.echoprime(np.stack([*frames, frames[0]]))
