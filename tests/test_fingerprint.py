"""Fingerprints: what decides results, under names that stay; those of version 0.1.0 are known too."""

import dataclasses
import json
from dataclasses import dataclass, field

import pytest

from echo_embeddings.core import configuration, fingerprint, settings
from echo_embeddings.core.recipe import RECIPES, Recipe
from echo_embeddings.core.settings import Model
from testing import REPOSITORY

# Changing this costs users a GPU-week: what they have is made again. A new field takes a neutral value, a renamed one
# its old term (`fingerprint`); what a corrected bug touched is a line in `corrections`.
CONVERSIONS = {
    ("mpeg4", 224): "b51b39f0abd843cb0580c8d5ccdc77e408117d15ffb5717eff495b1ab7e933ce",
    ("mpeg4", 256): "3f9d0b84a84b5f08a952e880e17fe70953a206fb2242da904cdb40895cc2be1b",
    ("mpeg4", 384): "83d7350bdd243b545919422653769169c2182f21778d545e52f63b927bb33044",
    ("mpeg4", 518): "25278c49eb72fc5f8535527228c1884f2505153bfc811a830db15ced0f74dca9",
    ("libx264", 224): "bfb4995cc202f01d1c20dc71cb2eb28b502a66a29d138868f72404fb9321db0b",
    ("libx264", 256): "be693366d1ed3a81042c016d2603ed9d525cad0cf50d8cb3b8d1f3191d3ef45b",
    ("libx264", 384): "2a5a4a7b4ca2d331e5874f0a3eed4e231f6a1aa4d34fc2d4814d66932cb844d8",
    ("libx264", 518): "2be2be9babb2144042ef9c7e76ec7cc208c0047d73945130bbe21223a3cb6a8c",
}
MODELS = {
    "vitl": "f2f6ac0882250b3158c0566998f52290e35af2d910f5d3a1c8256a38cfcf7374",
    "vith": "9424e719166a4eb9cac544681bcf7f767bda29b2f4da6fcfd2e5afec023c9102",
    "vitg": "aaff0834517bac7d04f3d9f89c117c78b085f98a3571c681646afa5c0c1fde0c",
    "vitg-384": "e97ba72554608a43a6afe877d46e7ffd0bcd10596960d6c285758999762144cb",
    "vjepa2_1_vit_base_384": "bf6a23b1e489ed9ad2bc9957d153bfbcee173fc56ff546730937fca4966b5a79",
    "vjepa2_1_vit_large_384": "ed576f18ba2da63d2def63ebc6df7e1354a397579f512db980ce32ccdd552721",
    "vjepa2_1_vit_giant_384": "1e2bae6d395581f83c19838331b50944839a8359285c281a7f64150ec09470d3",
    "vjepa2_1_vit_gigantic_384": "c2aaf5b254644ae6c3ac5aa55bd8de21414e71eb3e2eeaac934ef96b06079d33",
    "echo-vitl-vmix22m": "813cfc2ed09be318da6cd9027e92bf8d00d8d5d3294dee7473ad3cd0780c325d",
    "echo-vitl-scratch": "813cfc2ed09be318da6cd9027e92bf8d00d8d5d3294dee7473ad3cd0780c325d",
    "echo-vitl-mimic100": "7357efad28b90eaa4248c9409ca1a8336b8055ca4786107d34a07e92e1b8c345",
    "echo-vitl-mimic117": "7357efad28b90eaa4248c9409ca1a8336b8055ca4786107d34a07e92e1b8c345",
    "echo-vitb-mimic169": "135959fe7fd0f0aa3adac73d04b166e8b81309438725fb10493e7d05f59d4d13",
    "echoprime": "cdbb93b18efd46e8975f632c0615f8b35c75f9cb078a705dd392ee06484f4393",
    "panecho": "8b990f35c1034c13ad7350d65dad8366f11cef528924fc1003901b10448b9e3f",
    "echoclip": "16b53642d31aa2b2f8ad6477d42084873c2729edb5171582b24d06e3f4481c87",
    "dinov2-vitb": "320a8afac81f7adea6476199ba35eb5d90d0c640f702027d225e9a4dfabdd81d",
}
OF_RECIPES = {
    "guide": "70ba90c650bd2c49e5603f56ac72f3e4979d60b5f5b2a7117c0140e8dbdea1ea",
    "echojepa": "eac95ceb7d23a57afa90345e0310df7c28a1354abf510c265e16d356c217042b",
    "echojepa-eval": "28eb02c5ec8f5b1263d53ca131146ccbc19ed29ba19c5dfed6db19d2d54e39a0",
    "echoprime": "7b357c8092c9b61e5b1a5656f4173106c8db8bc35e85d2d90585bed34d3ac074",
    "echoprime-mp4": "52cf056407336d42031e677b175bb24342d0dae48ed52d4ca8b0d0dde77c3ab1",
    "panecho": "fe3e0c1b32bcb5fce191dc0ed0c84cb92ccb6b277bb5bb03deb6722fe70c8bc3",
    "echoclip": "13c6649679153fe262547fa7fb0cdbea81b08ca161a0b053d7735dfbd93b57fb",
    "frames": "5c7d6b890c907e95196c9e1e8746f7325b235ebefa918f0f1dbfb51721981431",
}
OF_0_1_0 = json.loads((REPOSITORY / "tests/data/v0_1_0/digests.json").read_text())


@pytest.fixture(scope="module")
def registry():
    return configuration.check(configuration.defaults(), data=False)


def conversion(codec, size, **changes):
    config = configuration.defaults()
    config["convert"] |= {"codec": codec, **changes}
    return settings.convert_settings(config, size)


def test_the_conversion_is_recognised_at_every_size(registry):
    sizes = {entry["resolution"] for entry in registry.values()}
    assert {
        (codec, size): conversion(codec, size).fingerprint() for codec in settings.CODECS for size in sizes
    } == CONVERSIONS
    for codec, name in (("mpeg4", "convert"), ("libx264", "convert_libx264")):
        for size, digest in OF_0_1_0[name].items():
            assert fingerprint.convert_0_1_0(conversion(codec, int(size))) == {digest}


def test_every_model_of_the_registry_is_recognised(registry):
    models = {name: settings.model(configuration.defaults(), registry, name) for name in registry}
    assert {name: model.fingerprint() for name, model in models.items()} == MODELS
    assert {name: fingerprint.fingerprint(recipe) for name, recipe in RECIPES.items()} == OF_RECIPES
    of_0_1_0 = {name: {OF_0_1_0["embed"][name]} if name in OF_0_1_0["embed"] else set() for name in models}
    assert {name: fingerprint.model_0_1_0(model) for name, model in models.items()} == of_0_1_0


# Of the conversion to 256 pixels under a mask, and of vitl on it.
MASKS = {
    "sector": (
        "33f23879f274bdbdeef78aa85c3640b92d33b2c8674295c7cc0402557eb6d269",
        "2ebbe4ea98778c9ff31f447a7924b4d53750eb32862f052a14fcef252a5b7fd0",
    ),
    "regions": (
        "fb22537e501ac454b224a8bae1d01f15213074f7875c57f1533acc25cf2fd469",
        "b5c2f5dcea730af68d5839d5e1b839724f8f38ecab9ff245b9663ade250de04c",
    ),
    "boxes:0,0.1,1,1": (
        "4342056e25d3fb45403d83925bf9a3ee1fee0b6a2d7f2d1fe563b53d2d83729d",
        "7a491067350d2917bddea147334925b7f19b16fbebc629a21234c520627ef8dd",
    ),
}


def test_masked_files_and_their_vectors_are_recognised(registry):
    for mask, digests in MASKS.items():
        config = configuration.defaults()
        config["convert"]["mask"] = {"boxes": [[0, 0.1, 1, 1.0]]} if mask.startswith("boxes") else mask
        made, model = settings.convert_settings(config, 256), settings.model(config, registry, "vitl")
        assert (made.mask, model.mp4_mask) == (mask, mask)
        assert (made.fingerprint(), model.fingerprint()) == digests
        assert not fingerprint.convert_0_1_0(made)
        assert not fingerprint.model_0_1_0(model)


def test_whole_numbers_are_the_same_however_they_are_written():
    written = conversion("mpeg4", 256, fps=30.0, quality=3.0, encoder_options={"trellis": 1.0})
    assert written.fingerprint() == conversion("mpeg4", 256, fps=30, quality=3).fingerprint()
    # Version 0.1.0 told them apart, so what either made is recognised.
    assert fingerprint.convert_0_1_0(written) > fingerprint.convert_0_1_0(conversion("mpeg4", 256, fps=30, quality=3))
    assert conversion("mpeg4", 256, fps=30.5).fingerprint() != conversion("mpeg4", 256, fps=30).fingerprint()


MODEL = Model("tiny", "vit_tiny", 64, 192, "encoder", 16, "fp32", recipe=Recipe("mine", sampling="rate", rate=8))


@dataclass(frozen=True)
class LaterRecipe(Recipe):
    zoom: float = field(default=2.0, metadata={"neutral": 1.0})


@dataclass(frozen=True)
class LaterModel(Model):
    geometry: str | None = field(default="polar", metadata={"neutral": None})


def later(geometry, zoom):
    recipe = LaterRecipe(**vars(MODEL.recipe), zoom=zoom)
    return LaterModel(**vars(MODEL) | {"recipe": recipe}, geometry=geometry)


def test_a_field_that_comes_later_changes_nothing_while_it_is_neutral():
    assert later(None, 1.0).fingerprint() == MODEL.fingerprint()
    assert fingerprint.model_0_1_0(later(None, 1.0)) == fingerprint.model_0_1_0(MODEL)
    changed = [later("polar", 1.0), later(None, 2.0), later("polar", 2.0), later("cartesian", 2.0)]
    assert len({model.fingerprint() for model in (MODEL, *changed)}) == 5
    assert not any(fingerprint.model_0_1_0(model) for model in changed)  # 0.1.0 could not do that


def test_a_default_is_not_what_is_left_out():
    """Of a new field: the neutral value was written down when it came, and the default may become another."""
    ours = LaterModel(**vars(MODEL))
    assert ours.geometry == "polar"
    assert ours.fingerprint() != MODEL.fingerprint()


def test_names_can_be_others():
    renamed = dataclasses.replace(MODEL, name="small", recipe=dataclasses.replace(MODEL.recipe, name="ours"))
    assert renamed.fingerprint() == MODEL.fingerprint()
    assert not fingerprint.model_0_1_0(renamed) & fingerprint.model_0_1_0(MODEL)

    @dataclass(frozen=True)
    class Before:
        entry: str

    @dataclass(frozen=True)
    class After:
        checkpoint_key: str = field(metadata={"term": "entry"})

    assert fingerprint.fingerprint(After("encoder")) == fingerprint.fingerprint(Before("encoder"))


def test_a_raised_version_makes_all_again():
    raised = dataclasses.replace(MODEL, version=2)
    assert raised.fingerprint() != MODEL.fingerprint()
    assert not fingerprint.model_0_1_0(raised) & fingerprint.model_0_1_0(MODEL)
