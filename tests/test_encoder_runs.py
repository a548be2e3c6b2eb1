"""Encoders of other families through the whole workflow: refused when it is planned, or run at their true size."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import save_file

from echo_embeddings.core import manifest
from echo_embeddings.encoders import extras
from testing import encoders
from testing.commands import run_snakemake
from testing.corpus import CINE
from testing.encoders import stored

DINOV2 = "vit_base_patch14_dinov2.lvd142m"
KEY = "s1/clip.mp4"


@pytest.fixture
def top(tmp_path):
    """A directory with a folder of one clip, and nothing that stands for weights but names."""
    (tmp_path / "dicom/p10/s1").mkdir(parents=True)
    shutil.copy(CINE["small"], tmp_path / "dicom/p10/s1/clip.dcm")
    (tmp_path / "weights").mkdir()
    for name in ("echo_prime_encoder.pt", "panecho.pt"):
        torch.save({"weights": {}}, tmp_path / "weights" / name)
    return tmp_path


def run(top, models, *arguments, **embed):
    """The workflow with these models of the registry, on the CPU."""
    config = {
        **{"dicom_dir": "dicom", "weights_dir": "weights", "models": models},
        **{"embed": {"device": "cpu", "num_workers": 0, "precision": "fp32", **embed}},
    }
    (top / "my.yaml").write_text(yaml.safe_dump(config))
    return run_snakemake(top, "--configfile", str(top / "my.yaml"), "--cores", "2", *arguments)


@pytest.mark.parametrize(
    ("models", "embed", "line"),
    [
        (
            ["panecho"],
            {"pool": "time"},
            "embed.pool: time: model panecho (PanEcho) gives a vector a clip, and nothing that stands for a part of "
            "it; take mean or clips, or leave the model out",
        ),
        (
            ["echoprime"],
            {},
            "config: models.0: model echoprime: recipe echoprime shows pictures in their own shape, and MP4 files are "
            "squeezed to a square; take echoprime-direct",
        ),
    ],
)
def test_what_cannot_be_is_one_line_when_the_workflow_is_planned(top, models, embed, line):
    result = run(top, models, "-n", **embed)
    assert result.returncode != 0
    assert [said for said in result.stdout.splitlines() if "model" in said] == [line]


@pytest.mark.slow
def test_each_at_its_true_size(top):
    """EchoPrime, PanEcho and EchoCLIP straight from DICOM, as others have them; PanEcho and DINOv2 by MP4."""
    timm = extras.package("timm")
    networks = {
        "echoprime": encoders.draw(encoders.echoprime(), 1, 1.5),
        "panecho": encoders.draw(encoders.PanEcho(), 1, 8),
        "echoclip": encoders.draw(encoders.EchoClip(), 1, 1.2),
        "dinov2-vitb": encoders.draw(timm.create_model(DINOV2), 1, 1.5),
    }
    torch.save(networks["echoprime"].state_dict(), top / "weights/echo_prime_encoder.pt")
    weights = {f"encoder.{key}": value for key, value in networks["panecho"].state_dict().items()}
    torch.save({"weights": weights}, top / "weights/panecho.pt")
    (top / "weights/echo-clip").mkdir()
    torch.save(networks["echoclip"].state_dict(), top / "weights/echo-clip/open_clip_pytorch_model.bin")
    save_file(networks["dinov2-vitb"].state_dict(), top / f"weights/{DINOV2}.safetensors")

    models = ["echoprime-direct", "panecho-direct", "panecho", "echoclip-direct", "dinov2-vitb"]
    done = run(top, models)
    assert done.returncode == 0, done.stdout
    results = top / "results"
    vectors = {name: torch.load(results / f"embeddings/{name}_embeddings_all.pt")[KEY] for name in models}
    frames = stored("small")
    with torch.inference_mode():
        expected = {
            "echoprime-direct": networks["echoprime"](encoders.echoprime_input(frames))[0],
            "panecho-direct": networks["panecho"](encoders.panecho_input(frames))[0],
            "echoclip-direct": networks["echoclip"](encoders.echoclip_input(frames)),
        }
    for name, vector in expected.items():
        assert (vectors[name] - vector).norm() < 1e-4 * vector.norm()
    by_mp4 = (vectors["panecho"] - expected["panecho-direct"]).norm() / expected["panecho-direct"].norm()
    assert 1e-4 < by_mp4 < 0.5  # squeezed and enlarged again, and the codec
    assert (vectors["dinov2-vitb"].shape, bool(vectors["dinov2-vitb"].isfinite().all())) == ((768,), True)

    record = json.loads((results / "embeddings/echoprime-direct_embeddings_p10.json").read_text())
    assert (record["family"], record["precision"], record["num_frames"]) == ("echoprime", "fp32", 16)
    assert record["recipe"]["mean"] == [29.110628, 28.076836, 29.096405]
    assert "channels in the order BGR; mean 29.1106, 28.0768, 29.0964" in record["preprocessing"]
    assert record["preprocessing"].endswith("of values in 0 to 255; what its head gives")
    assert [row.status for row in manifest.read(results / "dicom/p10.manifest.tsv")] == ["readable"]
    page = (results / "qc/index.html").read_text()
    assert "CC BY-NC-SA 4.0" in page
    assert "16 x 518 x 518, frames" in page
