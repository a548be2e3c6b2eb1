"""`echo-embeddings verify`: drawn weights, one known clip, and everything that may be wrong with a model's entry."""

import dataclasses

import pytest
import yaml

from echo_embeddings.core import configuration
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.recipe import RECIPES, Recipe
from echo_embeddings.core.settings import Model
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES
from echo_embeddings.tools import verify
from testing.commands import call_command

ENTRY = {
    "constructor": "vit_tiny",
    "resolution": 64,
    "embed_dim": 192,
    "batch_size": 4,
    "checkpoint": "tiny.pt",
    "entry": "target_encoder",
    "recipe": "echojepa",
}


def command(directory, entry=None, name="tiny"):
    if entry is not None:
        (directory / "models.yaml").write_text(yaml.safe_dump({"tiny": entry}))
    (directory / "my.yaml").write_text("models_file: models.yaml\nmodels: [tiny-direct]\nweights_dir: .\n")
    configfile = directory / "my.yaml"
    return call_command("verify", name, "--directory", directory, "--configfile", configfile, "--device", "cpu")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A directory with weights and a registry in which their vector is recorded, as the command says it."""
    directory = tmp_path_factory.mktemp("verify")
    states = {name: checkpoint.draw(ARCHITECTURES["vit_tiny"], seed).state_dict() for seed, name in
              enumerate(("encoder", "target_encoder"))}  # fmt: skip
    checkpoint.save(directory / "tiny.pt", states, "drawn for a test")
    first = command(directory, ENTRY)
    assert first.returncode == 0, first.stderr
    assert "whether it is the right one is not known" in first.stdout
    lines = first.stdout[first.stdout.index("  known_vectors:") :]
    known = yaml.safe_load(lines)["known_vectors"]
    return directory, {**ENTRY, "known_vectors": known}


def test_the_recorded_vector_is_found_again(recorded):
    directory, entry = recorded
    result = command(directory, entry)
    assert result.returncode == 0, result.stderr
    assert "model tiny: right: the vector of the known clip is 0.00% off the recorded one" in result.stdout


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": RECIPES["guide"]},
        {"recipe": Recipe("no mask", sampling="echojepa")},
        {"recipe": Recipe("stride of 2", sampling="stride", stride=2, mask="echojepa-boxes")},
        {"entry": "encoder"},
        {"resolution": 96},
    ],
    ids=str,
)
def test_a_wrong_mask_stride_entry_or_resolution_is_one_line(recorded, change, monkeypatch):
    directory, entry = recorded
    monkeypatch.chdir(directory)
    model = Model("tiny", "vit_tiny", 64, 192, "target_encoder", 16, "fp32", recipe=RECIPES["echojepa"])
    model = dataclasses.replace(model, **change)
    digest, vector = verify.vector(model, directory / "tiny.pt", configuration.defaults(), "cpu", 1)
    with pytest.raises(UserError) as error:
        verify.judge(model, digest, vector.tolist(), entry["known_vectors"])
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("model tiny: the vector of the known clip is ")
    assert "off the one recorded for this checkpoint" in str(error.value)


@pytest.mark.parametrize("name", ["tiny", "tiny-direct"])
def test_a_recipe_that_no_mp4_file_can_serve_is_verified_straight_from_the_dicom(recorded, tmp_path, name):
    (tmp_path / "tiny.pt").symlink_to(recorded[0] / "tiny.pt")
    result = command(tmp_path, {**ENTRY, "recipe": "echoprime"}, name)
    assert result.returncode == 0, result.stderr
    assert "\nmodel tiny-direct: the checkpoint fits and gives a finite vector; " in result.stdout


def test_the_twin_has_no_recorded_vector_of_its_own(recorded):
    directory, entry = recorded
    assert "model tiny: right: " in command(directory, entry, "tiny-direct").stdout


def test_another_file_is_not_known(recorded, tmp_path):
    _, entry = recorded
    checkpoint.save(
        tmp_path / "tiny.pt", {"target_encoder": checkpoint.draw(ARCHITECTURES["vit_tiny"], 7).state_dict()}, ""
    )
    result = command(tmp_path, entry)
    assert "records none for its SHA-256 (it has 1 of other files)" in result.stdout
    absent = command(tmp_path, entry, name="tinny")
    assert absent.stderr == "echo-embeddings: no model 'tinny' in the registry: tiny\n"
