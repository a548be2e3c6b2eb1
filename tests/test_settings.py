"""The configuration: defaults, and every mistake as one line, all at once."""

import copy
import dataclasses
import re

import pytest
import yaml

from echo_embeddings.core import configuration, registry, settings
from echo_embeddings.core.errors import UserError
from testing import REPOSITORY

BASE = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
SCHEMA = yaml.safe_load((REPOSITORY / "workflow/schemas/config.schema.yaml").read_text())


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    (tmp_path / "resources/dicom").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


def leaves(schema, path=()):
    for key, part in schema["properties"].items():
        if "properties" in part:
            assert part["description"]
            yield from leaves(part, (*path, key))
        else:
            yield (*path, key), part


def test_every_key_has_type_description_and_the_default_that_config_yaml_shows():
    for path, part in leaves(SCHEMA):
        value = BASE
        for key in path:
            value = value[key]
        assert "type" in part or "enum" in part, path
        assert part["description"].endswith("."), path
        assert part["default"] == value, path


def test_the_base_configuration_is_complete_and_an_empty_one_becomes_it():
    config = {}
    registry = configuration.check(config)
    assert config == BASE
    assert list(registry)[:4] == ["vitl", "vith", "vitg", "vitg-384"]


def changed(**changes):
    config = copy.deepcopy(BASE)
    for path, value in changes.items():
        *parents, key = path.split("__")
        part = config
        for parent in parents:
            part = part[parent]
        part[key] = value
    return config


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"dicom_dirr": "x"}, "config: unknown key 'dicom_dirr'; did you mean 'dicom_dir'?"),
        ({"convert__zzz": 1}, "config: convert: unknown key 'zzz'; known: fps, codec"),
        ({"limit": "five"}, "config: limit: 'five' is not a whole number"),
        ({"limit": "5.0"}, "config: limit: '5.0' is not a whole number"),
        ({"embed__num_workers": "true"}, "config: embed.num_workers: 'true' is not a whole number"),
        ({"folders": "p10"}, "config: folders: 'p10' is not a list, as [a, b]"),
        ({"qc": True}, "config: qc: true is not a section of keys"),
        ({"limit": -1}, "config: limit: -1 is less than the minimum of 0"),
        ({"convert__workers": 0}, "config: convert.workers: 0 is less than the minimum of 1"),
        ({"convert": "{workers: 7}"}, "config: convert: '{workers: 7}' is not a section of keys"),
        ({"embed__device": "gpu"}, "config: embed.device: 'gpu' is not one of ['cuda', 'cpu']"),
        ({"models": ["vitl", "vitz"]}, "config: models.1: 'vitz' is not in"),
        ({"dicom_dir": "nowhere"}, "config: dicom_dir: no directory 'nowhere' in"),
        (
            {"folders": ["p10/p10000001"]},
            "config: folders.0: 'p10/p10000001' has a '/': point dicom_dir one level deeper",
        ),
        ({"embed__num_frames": 16.0}, "config: embed.num_frames: 16.0 is not a whole number"),
        ({"convert__fps": float("nan")}, "config: convert.fps: nan is not a number or text"),
        ({"convert__fps": "film"}, "config: convert.fps: 'film' does not match '^source$': Frame rate of the MP4"),
        ({"convert__quality": 40}, "config: convert.quality: 40 is greater than the maximum of 31"),
        ({"convert__pixel_format": "yuv444p"}, "config: convert.pixel_format: 'yuv420p' was expected"),
        ({"convert__modalities": ["us"]}, "config: convert.modalities.0: 'us' does not match"),
        ({"models_file": ""}, "config: models_file: '' should be non-empty"),
        ({"models_file": "absent.yaml"}, "config: models_file: no file 'absent.yaml' in /"),
        ({"folders": yaml.safe_load("[2024-03-01]")}, "config: folders.0: 2024-03-01 is not text: write it in quotes"),
        ({"folders": [10]}, "config: folders.0: 10 is not text: write it in quotes"),
    ],
)
def test_a_mistake_is_one_line(changes, line):
    with pytest.raises(UserError) as error:
        configuration.check(changed(**changes))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(line)


def test_a_model_that_is_not_there_is_told_with_the_nearest():
    for wrong, hint in (("vitz", "; did you mean 'vitl'?"), ("ViTG384", "; did you mean 'vitg-384'?")):
        with pytest.raises(UserError, match=re.escape(hint) + "$"):
            configuration.check(changed(models=[wrong]))
    with pytest.raises(UserError, match=r"^config: models\.0: 'resnet50' is not in [^;]*$"):
        configuration.check(changed(models=["resnet50"]))


@pytest.mark.parametrize("place", ["~/echo", "$HOME/echo"])
def test_what_only_a_shell_would_expand_is_said(place):
    with pytest.raises(UserError, match=r"; ~ and \$ mean nothing here, write the whole path"):
        configuration.check(changed(dicom_dir=place))


def test_all_mistakes_at_once():
    with pytest.raises(UserError) as error:
        configuration.check(changed(limit="x", models=["vitz"], dicom_dir="nowhere", embed__typo=1))
    assert len(str(error.value).splitlines()) == 4


def test_strings_of_the_command_line_become_what_the_schema_takes():
    """Snakemake hands over every value below the first level of `--config` as a string."""
    config = changed(limit="5", qc={"pictures": "false", "collection": "null", "hash_names": "true"}, folders=["10"])
    config["convert"] |= {
        "workers": "7",
        "fps": "24",
        "timeout": "2.5",
        "encoder_options": {"trellis": "0", "mbd": "rd"},
    }
    config["embed"] |= {"device": "cpu", "batch_size": "auto", "compile": "true"}
    configuration.check(config)
    assert config["limit"] == 5
    assert config["folders"] == ["10"]  # a name
    assert config["qc"] | {"pictures": False, "collection": None, "hash_names": True} == config["qc"]
    convert = {"workers": 7, "fps": 24, "timeout": 2.5, "encoder_options": {"trellis": 0, "mbd": "rd"}}
    assert config["convert"] | convert == config["convert"]
    assert config["embed"] | {"device": "cpu", "batch_size": "auto", "compile": True} == config["embed"]


@pytest.mark.parametrize(
    ("device", "chosen", "clips"), [("cuda", "auto", 32), ("cpu", "auto", 4), ("cuda", 7, 7), ("cpu", 64, 64)]
)
def test_clips_a_batch(device, chosen, clips):
    config = changed(embed__device=device, embed__batch_size=chosen)
    assert settings.batch_size(config, registry.read(REPOSITORY / "config/models.yaml")[0], "vitl") == clips


@pytest.mark.parametrize(
    ("registry", "message"),
    [
        ("vitl: {constructor: vit_small}", "vitl.constructor: 'vit_small' is not one of"),
        ("vitl: {constructor: vit_large}", "vitl: key 'resolution' is missing"),
        ("vitl: {resolution: 256}", "vitl: key 'constructor' is missing"),
        ("vitl: {resolution: 256}", "vitl: key 'entry' is missing"),
        ("vitl: {resolution: 250}", "vitl.resolution: 250 is not a multiple of 16"),
        ("own: {family: echo}", "own.family: 'echo' is not one of"),
        ("own: {family: panecho}", "own: key 'recipe' is missing"),
        ("own: {family: frames, recipe: frames}", "own: key 'constructor' is missing"),
        ("own: {family: python, recipe: guide}", "own: key 'module' is missing"),
        ("own: {family: frames, recipe: frames, resolution: 517}", "own.resolution: 517 is not a multiple of 2"),
        ("index: {}", "'index' does not match"),
        ("1: {}", "1 is not text"),
        ("[", "is not YAML"),
        ("[]", r"\[\] is not a section of keys"),
    ],
)
def test_a_wrong_registry(tmp_path, registry, message):
    (tmp_path / "models.yaml").write_text(registry)
    with pytest.raises(UserError, match=message):
        configuration.check(changed(models_file="models.yaml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("limit: 3\nembed: {device: cpu}\nlimit: 4", "is not YAML: line 3: 'limit' stands in line 1 already; keep one"),
        ("embed:\n  device: cpu\n  device: cuda", "line 3: 'device' stands in line 2 already"),
        ("embed: {device: cpu, device: cuda}", "line 1: 'device' stands in line 1 already"),
        ("embed:\n\tdevice: cpu", "line 2: found character .* token; indent with spaces, not tabs"),
        ("models: [vitl\nlimit: 3", "is not YAML: line 2: expected"),
        ("", "has no keys; write one a line"),
        ("words", "has no keys; write one a line"),
        ("- vitl", "has no keys; write one a line"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(tmp_path, text, says):
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(UserError, match=says) as error:
        configuration.read(".", str(tmp_path / "my.yaml"))
    assert "\n" not in str(error.value)


def test_the_models_of_the_base_configuration_must_be_in_a_registry_of_ones_own(tmp_path):
    (tmp_path / "models.yaml").write_text(
        "tiny: {constructor: vit_tiny, resolution: 256, embed_dim: 192, batch_size: 4, checkpoint: a.pt, "
        "entry: encoder}"
    )
    with pytest.raises(UserError, match=r"^config: models\.0: 'vitl' is not in models\.yaml: tiny$"):
        configuration.check({"models_file": "models.yaml"})


def test_what_is_wrong_in_a_key_hides_nothing_of_the_others(tmp_path):
    """The checks beyond the schema go on with what it finds sound; a wrong key is not judged by its default."""
    (tmp_path / "resources/dicom").rmdir()
    wrong = {
        "dicom_dir": 5,
        "models": "vitl",
        "checkpoints": {"vitl": 5, "vitz": "z.pt"},
        "recipes": {"mine": {"sampling": "rate", "crop": 5}},
        "record_list": 5,
        "require_complete": True,
        "folders": ["a/b"],
    }
    with pytest.raises(UserError) as error:
        configuration.check(wrong)
    places = [line.removeprefix("config: ").partition(":")[0] for line in str(error.value).splitlines()]
    assert places == [
        "checkpoints.vitl", "dicom_dir", "models", "recipes.mine.crop", "record_list", "checkpoints", "recipes.mine",
        "folders.0",
    ]  # fmt: skip


def test_without_a_clone_the_base_configuration_is_the_defaults(tmp_path, monkeypatch):
    (tmp_path / "my.yaml").write_text("embed: {device: cpu}\n")
    monkeypatch.setattr(configuration, "repository", lambda: None)
    monkeypatch.setattr(registry, "repository", lambda: None)
    config = configuration.read(".", "my.yaml")
    assert config == {"embed": {"device": "cpu"}}
    assert next(iter(configuration.check(config))) == "vitl"
    assert config == changed(embed__device="cpu")


def test_a_key_may_override_what_an_anchor_brings(tmp_path):
    (tmp_path / "models.yaml").write_text(
        "a: &a {constructor: vit_tiny, resolution: 256, embed_dim: 192, batch_size: 4, checkpoint: a.pt, "
        "entry: encoder}\n"
        "b: &b {<<: *a, checkpoint: b.pt}\nc: {<<: *b, checkpoint: c.pt}\n"
    )
    registry = configuration.check(changed(models_file=str(tmp_path / "models.yaml"), models=["c"]))
    assert [entry["checkpoint"] for entry in registry.values()] == ["a.pt", "b.pt", "c.pt"]


def other(value):
    """A value of the same kind that is not `value`."""
    if isinstance(value, tuple):
        return (*value, "CT")
    if isinstance(value, dict):
        return {**value, "trellis": 0}
    if isinstance(value, bool | None):
        return not value
    return value + ("x" if isinstance(value, str) else 1)


def test_fingerprints_change_with_every_value_and_with_no_name():
    registry = configuration.check(config := changed())
    convert, model = settings.convert_settings(config, 256), settings.model(config, registry, "vitl")
    changes = [(convert, field.name, other(getattr(convert, field.name))) for field in dataclasses.fields(convert)]
    for field in dataclasses.fields(model):
        if field.name != "recipe":
            changes.append((model, field.name, other(getattr(model, field.name))))
    for field in dataclasses.fields(model.recipe):
        value = other(getattr(model.recipe, field.name))
        changes.append((model, "recipe", dataclasses.replace(model.recipe, **{field.name: value})))
    for made, name, value in changes:
        label = name in ("name", "module", "mask_fallback") or getattr(value, "name", "guide") != "guide"
        assert (dataclasses.replace(made, **{name: value}).fingerprint() == made.fingerprint()) == label


def with_recipes(tmp_path, recipes, name="mine"):
    (tmp_path / "models.yaml").write_text(
        "tiny: {constructor: vit_tiny, resolution: 64, embed_dim: 192, batch_size: 4, checkpoint: t.pt, "
        f"entry: encoder, recipe: {name}}}"
    )
    return changed(models_file="models.yaml", models=["tiny"], recipes=recipes)


def test_a_recipe_of_ones_own_reaches_the_model(tmp_path):
    keys = {
        "sampling": "rate",
        "rate": 8,
        "clips_per_video": 2,
        "mask": "sector",
        "aspect": "letterboxed",
        "crop": False,
    }
    config = with_recipes(tmp_path, {"mine": keys})
    model = settings.model(config, configuration.check(config), "tiny")
    assert {key: getattr(model.recipe, key) for key in keys} == keys


def test_a_recipe_may_say_frames_precision_and_statistics(tmp_path):
    keys = {"frames": 8, "precision": "fp32", "mean": [1, 2, 3], "std": [4, 5, 6], "white": 255, "channels": "bgr"}
    config = with_recipes(tmp_path, {"mine": keys})
    model = settings.model(config, configuration.check(config), "tiny")
    assert (model.num_frames, model.precision, config["embed"]["num_frames"]) == (8, "fp32", 16)
    assert (model.recipe.mean, model.recipe.std) == ((1, 2, 3), (4, 5, 6))
    said = model.recipe.says(8, 64)
    assert "8 frames" in said
    assert "channels in the order BGR; mean 1, 2, 3, standard deviation 4, 5, 6 of values in 0 to 255" in said


@pytest.mark.parametrize(
    ("recipes", "name", "line"),
    [
        ({}, "mine", "models.yaml: tiny.recipe: no recipe 'mine': guide, echojepa"),
        ({"guide": {}}, "guide", "config: recipes: 'guide' is there already and stays as it is; take another name"),
        (
            {"mine": {"sampling": "rate"}},
            "mine",
            "config: recipes.mine: rate goes with sampling: rate, and with nothing",
        ),
        ({"mine": {"stride": 2}}, "mine", "config: recipes.mine: stride goes with sampling: stride, "),
        ({"mine": {"maks": "sector"}}, "mine", "config: recipes.mine: unknown key 'maks'; did you mean 'mask'?"),
        ({"mine": {"mask": "box"}}, "mine", "config: recipes.mine.mask: 'box' is not one of ['none', "),
        (
            {"mine": {"aspect": "native"}},
            "mine",
            "config: models.0: model tiny: recipe mine shows pictures in their own shape, and MP4 files are squeezed "
            "to a square; take tiny-direct",
        ),
        (
            {"mine": {"aspect": "native", "source": "dicom", "crop": False}},
            "mine",
            "config: recipes.mine: without crop a picture must be square",
        ),
        (
            {"mine": {"sampling": "stride", "stride": 2, "padding": "zeros"}},
            "mine",
            "config: recipes.mine: padding: zeros goes with frames, and with one clip a video",
        ),
        ({"mine": {"mean": [0.5, 0.5]}}, "mine", "config: recipes.mine.mean: [0.5, 0.5] is too short"),
        (
            {"mine": {"std": [0.5, 0.5, 0]}},
            "mine",
            "config: recipes.mine.std.2: 0 is less than or equal to the minimum",
        ),
        ({"mine": {"crop": 1.5}}, "mine", "config: recipes.mine.crop: 1.5 is greater than or equal to the maximum"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path, recipes, name, line):
    with pytest.raises(UserError) as error:
        configuration.check(with_recipes(tmp_path, recipes, name))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(line)


@pytest.mark.parametrize(
    ("recipe", "models", "line"),
    [
        ({}, ["tiny-direct"], "model tiny-direct is fed straight from DICOM, and these are videos; take tiny"),
        (
            {"source": "dicom"},
            ["tiny"],
            "model tiny is fed straight from DICOM, and these are videos; take a model whose recipe says source: mp4",
        ),
        ({"aspect": "native"}, ["tiny"], None),
    ],
)
def test_videos_and_models_fed_from_dicom(tmp_path, recipe, models, line):
    config = with_recipes(tmp_path, {"mine": recipe}) | {"mp4_dir": str(tmp_path), "models": models}
    if line is None:
        configuration.check(config)
    else:
        with pytest.raises(UserError, match=f"^{re.escape(f'config: models.0: {line}')}$"):
            configuration.check(config)


@pytest.mark.parametrize("recipes", [None, 3, "mine"])
def test_recipes_that_are_no_section_are_one_line(recipes):
    with pytest.raises(UserError, match=r"^config: recipes: .* is not a section of keys$"):
        configuration.check(changed(recipes=recipes))


def test_a_twin_has_no_entry_of_its_own(tmp_path):
    config = with_recipes(tmp_path, {"mine": {"sampling": "stride", "stride": 2}}) | {"models": ["tiny-direct", "tiny"]}
    registry = configuration.check(config)
    assert list(registry) == ["tiny"]
    twin, model = (settings.model(config, registry, name) for name in config["models"])
    assert twin.recipe == dataclasses.replace(model.recipe, source="dicom")
    assert (twin.clips, model.clips) == ("dicom", 64)
    assert "tiny-direct-direct" not in registry
    with pytest.raises(KeyError):
        registry["tiny-direct-direct"]
    (tmp_path / "models.yaml").write_text((tmp_path / "models.yaml").read_text().replace("tiny:", "tiny-direct:"))
    with pytest.raises(UserError, match=r"models\.yaml: tiny-direct: names with -direct behind them are those of"):
        configuration.check(config)
