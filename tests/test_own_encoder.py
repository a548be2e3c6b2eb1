"""An encoder of one's own: the example of docs/encoders.md as it stands there, and what can be wrong with one."""

import re
import shutil
import sys

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from echo_embeddings import UserError, load_model
from echo_embeddings.core import configuration, settings
from echo_embeddings.core.registry import read
from echo_embeddings.dicom.frames import decode_frames
from echo_embeddings.dicom.header import check_clip, read_header
from echo_embeddings.encoders import checkpoint, contract, extras
from testing import REPOSITORY
from testing.commands import call_command
from testing.corpus import CINE

WEIGHTS = "resources/weights"  # from the directory of a run
PAGE = (REPOSITORY / "docs/encoders.md").read_text()
FILES = dict(re.findall(r"`(my[\w.]*)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))

OWN = """
from torch import nn


class Colours(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, video):
        return self.scale * video.mean(dim=(2, 3, 4))


def build(entry):
    return Colours()
"""
ENTRY = {"family": "python", "module": "own.py", "recipe": "guide", "resolution": 64, "embed_dim": 3, "batch_size": 2}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A directory with the page's files, and drawn weights in the layout of the published ones."""
    top = tmp_path_factory.mktemp("example")
    for name, text in FILES.items():
        (top / name).write_text(text)
    network = extras.package("torchvision.models.video").r3d_18()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:  # filters that see no uniform brightness: else all clips look nearly the same
                parameter.normal_(0, 2 / parameter[0].numel() ** 0.5, generator=generator)
                parameter.sub_(parameter.flatten(1).mean(dim=1).view(-1, *[1] * (parameter.dim() - 1)))
    (top / WEIGHTS).mkdir(parents=True)
    torch.save(network.state_dict(), top / WEIGHTS / "r3d_18-b3b3357e.pth")
    network.fc = nn.Identity()
    return top, network.eval()


def test_the_pages_example_is_short():
    assert FILES.keys() == {"my_encoder.py", "my_models.yaml", "my.yaml"}
    assert sum(FILES[name].count("\n") for name in ("my_encoder.py", "my_models.yaml")) <= 60


def test_the_pages_example_gives_the_vectors_of_another_construction(example, monkeypatch):
    top, network = example
    clip = check_clip(CINE["small"], *read_header(CINE["small"]), ())
    frames, prepared = list(decode_frames(clip)), []
    shown = [frames[min(2 * i, len(frames) - 1)] for i in range(16)]
    low, high = (np.float32(extreme([extreme(frame) for frame in shown])) for extreme in (np.min, np.max))
    for frame in shown:
        small = cv2.resize(frame, (112, 112), interpolation=cv2.INTER_AREA).astype(np.float32)
        small = ((small - low) / (high - low) * np.float32(255)).astype(np.uint8).astype(np.float32)
        large = cv2.resize(small, (128, 128), interpolation=cv2.INTER_LINEAR)[8:120, 8:120]
        prepared.append((large / 255 - [0.43216, 0.394666, 0.37645]) / [0.22803, 0.22145, 0.216989])
    video = torch.from_numpy(np.stack(prepared).astype(np.float32)).permute(3, 0, 1, 2)[None]
    with torch.inference_mode():
        expected, other = network(torch.cat([video, video.flip(2, 3)]))
    monkeypatch.chdir(top)
    config = yaml.safe_load(FILES["my.yaml"]) | {"embed": {"precision": "fp32"}}
    found = load_model("r3d-direct", device="cpu", config=config).embed(CINE["small"])
    assert (found - expected).norm() < 1e-4 * expected.norm()
    assert (other - expected).norm() > 0.1 * expected.norm()


def test_the_pages_example_is_verified(example):
    top, _ = example
    result = call_command("verify", "r3d", "--directory", top, "--configfile", top / "my.yaml", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    assert "the checkpoint fits and gives a finite vector" in result.stdout


@pytest.fixture
def own(tmp_path):
    """Loads an encoder of a file with `text`, and whatever else its entry says."""

    def own(text="import torch" + OWN, **changes):
        (tmp_path / "own.py").write_text(text)
        torch.save({"scale": torch.tensor([1.0, 2.0, 3.0])}, tmp_path / "own.pt")
        (tmp_path / "models.yaml").write_text(yaml.safe_dump({"own": {**ENTRY, "checkpoint": "own.pt"} | changes}))
        config = configuration.defaults() | {
            **{"models_file": str(tmp_path / "models.yaml"), "models": ["own"], "weights_dir": str(tmp_path)},
        }
        model = settings.model(config, configuration.check(config, data=False), "own")
        return model, lambda: checkpoint.load(tmp_path / "own.pt", model)

    return own


def test_a_file_without_load_has_the_state_dict_of_its_network(own):
    _, built = own()
    video = torch.arange(3.0)[None, :, None, None, None].expand(2, 3, 4, 8, 8)
    assert built()(video).tolist() == [[0.0, 2.0, 6.0]] * 2


def test_the_fingerprint_has_the_file_and_not_its_place(own, tmp_path):
    model, _ = own()
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "own.py", tmp_path / "elsewhere/other.py")
    assert own(module="elsewhere/other.py")[0].fingerprint() == model.fingerprint()
    assert own("import torch  # another\n" + OWN)[0].fingerprint() != model.fingerprint()


@pytest.mark.parametrize(
    ("text", "changes", "says"),
    [
        ("import no_such_thing\n", {}, r"own\.py cannot be imported: ModuleNotFoundError: No module named 'no_such_th"),
        ("1 +\n", {}, r"own\.py cannot be imported: SyntaxError: "),
        ("def make(entry): ...\n", {}, r"own\.py has no build\(entry\) that returns a torch\.nn\.Module"),
        ("def build(entry): return 7\n", {}, r"own\.py has no build\(entry\) that returns a torch\.nn\.Module"),
        ("import torch" + OWN.replace("scale", "gain"), {}, r"own\.pt has no 'gain', which Python file needs"),
        ("import torch" + OWN.replace("ones(3)", "ones(4)"), {}, r"own\.pt: 'scale' is \[3\], Python file has \[4\]"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(own, text, changes, says):
    _, built = own(text, **changes)
    with pytest.raises(UserError, match=says) as error:
        built()
    assert str(error.value).startswith("model own: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [{"embed_dim": 4}, {"text": "import torch" + OWN.replace("self.scale * video.mean(dim=(2, 3, 4))", "video")}],
)
def test_vectors_of_another_shape_are_one_line(own, change):
    _, built = own(**change)
    encoder = built()
    with pytest.raises(UserError, match=r"^model own: .*own\.py makes \(2, .*\) of \(2, 3, 3, 8, 8\); it is to be"):
        encoder(torch.ones(2, 3, 3, 8, 8))


def test_module_goes_with_family_python_and_must_be_there(tmp_path):
    (tmp_path / "own.py").write_text("")
    entry = {**ENTRY, "checkpoint": "own.pt"}

    def wrong(**changes):
        (tmp_path / "models.yaml").write_text(yaml.safe_dump({"own": {**entry, **changes}}))
        return read(tmp_path / "models.yaml")[1]

    assert wrong() == []
    (line,) = wrong(module="gone.py")
    assert line.endswith(f"own.module: no file {tmp_path}/gone.py")
    (line,) = wrong(family="panecho")
    assert line.endswith("own.module: goes with family: python, and with no other")


def test_a_missing_package_is_one_line(monkeypatch):
    for name in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, name, None)
    registry = configuration.check(configuration.defaults(), data=False)
    for name in ("echoprime", "panecho", "dinov2-vitb"):
        model = settings.model(configuration.defaults(), registry, name)
        with pytest.raises(UserError, match=r"^the package torchvision is not installed, .*make encoders") as error:
            contract.code(model).build(model)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("pool", ["time", "tokens"])
def test_features_of_parts_are_refused_where_there_are_none(pool):
    registry = configuration.check(configuration.defaults(), data=False)
    said = {
        name: contract.misfit(settings.model(configuration.defaults(), registry, name), pool)
        for name in ("vitl", "dinov2-vitb", "echoprime", "panecho")
    }
    assert said["vitl"] is said["dinov2-vitb"] is None
    assert said["echoprime"].startswith(f"embed.pool: {pool}: model echoprime (EchoPrime) gives a vector a clip, ")
    assert "\n" not in said["panecho"]
