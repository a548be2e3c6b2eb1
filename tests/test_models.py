"""The registry: what every entry says, and its table."""

import pytest

from echo_embeddings.core import configuration, settings
from echo_embeddings.core.errors import UserError
from echo_embeddings.encoders import contract
from echo_embeddings.encoders.architectures import ARCHITECTURES, FAMILIES
from testing.commands import call_command

CONFIG = configuration.defaults()
REGISTRY = configuration.check(CONFIG, data=False)
ECHO = ["echo-vitl-vmix22m", "echo-vitl-scratch", "echo-vitl-mimic100", "echo-vitl-mimic117", "echo-vitb-mimic169"]
OTHERS = ["echoprime", "panecho", "echoclip", "dinov2-vitb"]
NEWER = [f"vjepa2_1_vit_{size}_384" for size in ("base", "large", "giant", "gigantic")]


def test_the_registry_has_the_family():
    assert list(REGISTRY) == ["vitl", "vith", "vitg", "vitg-384", *NEWER, *ECHO, *OTHERS]
    for name, entry in REGISTRY.items():
        assert entry["url"] or entry["obtain"]
        if name in OTHERS:
            assert contract.misfit(settings.model(CONFIG, REGISTRY, name)) is None
            continue
        assert ARCHITECTURES[entry["constructor"]].embed_dim == entry["embed_dim"]
        assert entry["family"] in FAMILIES
        assert entry["url"] is None or entry["url"].endswith("/" + entry["checkpoint"])
    for name in ECHO:
        entry = REGISTRY[name]
        assert (entry["entry"], entry["resolution"], entry["recipe"]) == ("target_encoder", 224, "echojepa")
        assert "MIMIC-IV-Echo" in entry["pretrained_on"]
    assert [REGISTRY[name]["entry"] for name in NEWER] == ["ema_encoder"] * 2 + ["target_encoder"] * 2
    assert all(REGISTRY[name]["family"] == "vjepa2_1" for name in [*NEWER, *ECHO[2:]])


def test_a_model_is_six_lines(tmp_path):
    (tmp_path / "models.yaml").write_text(
        "mine:\n  constructor: vit_large\n  resolution: 224\n  embed_dim: 1024\n"
        "  batch_size: 64\n  checkpoint: mine.pt\n  entry: encoder\n"
    )
    config = configuration.defaults() | {"models": ["mine"], "models_file": str(tmp_path / "models.yaml")}
    registry = configuration.check(config, data=False)
    assert settings.model(config, registry, "mine").family == "vjepa2"


def command(directory, *arguments):
    return call_command("models", "--directory", directory, *arguments)


def test_the_table_says_what_is_there_what_is_missing_and_what_it_costs(tmp_path):
    (tmp_path / "resources/weights").mkdir(parents=True)
    (tmp_path / "resources/weights/vitl.pt").write_bytes(b"weights")
    (tmp_path / "elsewhere.pt").write_bytes(b"weights")
    (tmp_path / "my.yaml").write_text(f"checkpoints: {{vith: {tmp_path}/elsewhere.pt}}\n")
    result = command(tmp_path, "--configfile", str(tmp_path / "my.yaml"))
    assert result.returncode == 0, result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert lines.keys() == {"model", *REGISTRY, "2"}
    assert lines["vitl"].endswith("resources/weights/vitl.pt (0.0 GB)")
    assert lines["vith"].endswith(f"{tmp_path}/elsewhere.pt (0.0 GB)")
    assert lines["vitg"].endswith("missing: https://dl.fbaipublicfiles.com/vjepa2/vitg.pt")
    assert "missing: by hand, from" in lines["echo-vitb-mimic169"]
    for name, *said in (
        ("vitl", "V-JEPA 2", "16 x 256 x 256, guide", "MIT", "yes"),
        ("echo-vitl-mimic100", "V-JEPA 2.1", "16 x 224 x 224, echojepa", "not stated", "not stated"),
        ("echoprime", "EchoPrime", "16 x 224 x 224, echoprime", "MIT by its README, academic by its LICENSE", "no"),
        ("panecho", "PanEcho", "16 x 224 x 224, panecho", "CC BY-NC-SA 4.0", "no"),
        ("dinov2-vitb", "timm, frame by frame", "16 x 518 x 518, frames", "Apache-2.0", "yes"),
    ):
        assert all(words in lines[name] for words in said), lines[name]
    assert "1.6" in lines["vitl"]
    assert "14" in lines["vitg-384"]
    assert lines["2"] == f"2 of {len(REGISTRY)} checkpoints are there"


def test_a_checkpoint_of_no_model_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^config: checkpoints: 'vitz' is not in .*: vitl, vith.*$"):
        configuration.check(configuration.defaults() | {"checkpoints": {"vitz": "/x"}}, data=False)
    (tmp_path / "my.yaml").write_text("checkpoints: {vitz: /x}\n")
    result = command(tmp_path, "--configfile", str(tmp_path / "my.yaml"))
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
