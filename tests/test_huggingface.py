"""Checkpoints in the form of Hugging Face, written by `transformers`: the same vectors, or one line."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from echo_embeddings.core.errors import UserError
from echo_embeddings.core.settings import Model
from echo_embeddings.encoders import checkpoint, huggingface
from echo_embeddings.encoders.architectures import ARCHITECTURES
from echo_embeddings.encoders.vjepa import Encoder
from testing import oracle

TINY = ARCHITECTURES["vit_tiny"]


def write(directory, state, architecture, resolution=256):
    """Both forms of the same weights: the file that `transformers` writes, and the official one."""
    model = oracle.transformers_encoder(
        state, architecture.embed_dim, architecture.depth, architecture.heads, architecture.mlp_ratio, resolution
    )
    model.predictor.to_empty(device="cpu")
    for parameter in model.predictor.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(directory)
    checkpoint.save(directory / "w.pt", {"encoder": state}, "drawn for a test")
    return model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The directory of both files of a small model, and the model of `transformers`."""
    directory = tmp_path_factory.mktemp("tiny")
    return directory, write(directory, checkpoint.draw(TINY, seed=5).state_dict(), TINY, resolution=64)


def load(path, entry="encoder"):
    return checkpoint.load(path, Model("tiny", "vit_tiny", 64, 192, entry, 16, "fp32"))


def test_both_forms_give_the_same_vector(tiny):
    directory, model = tiny
    video = torch.randn(2, 3, 16, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        official, theirs = (load(directory / name)(video).mean(1) for name in ("w.pt", "model.safetensors"))
    assert torch.equal(official, theirs)
    independent = oracle.tokens(model, video).mean(1)
    assert (theirs - independent).abs().max() < 1e-4 * independent.abs().max()
    assert not torch.allclose(theirs[0], theirs[1], rtol=1e-2)


def test_it_is_known_by_its_content_not_by_its_name(tiny, tmp_path):
    directory, _ = tiny
    os.link(directory / "model.safetensors", tmp_path / "vit-tiny.pt")
    os.link(directory / "w.pt", tmp_path / "official")
    states = [load(tmp_path / name).state_dict() for name in ("vit-tiny.pt", "official")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert checkpoint.note(tmp_path / "vit-tiny.pt") is None
    assert checkpoint.note(tmp_path / "official") == "drawn for a test"
    os.link(directory / "w.pt", tmp_path / "w.safetensors")  # torch goes by the name
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load(tmp_path / "w.safetensors")


@pytest.mark.parametrize("constructor", ["vit_large", "vit_huge", "vit_giant_xformers"])
def test_the_official_sizes_key_by_key(constructor):
    """Names and shapes of every tensor, without weights."""
    architecture = ARCHITECTURES[constructor]
    with torch.device("meta"):
        wanted = {key: list(tensor.shape) for key, tensor in Encoder(architecture).state_dict().items()}
        model = oracle.transformers().VJEPA2Model(
            oracle.transformers().VJEPA2Config(
                hidden_size=architecture.embed_dim,
                num_hidden_layers=architecture.depth,
                num_attention_heads=architecture.heads,
                mlp_ratio=architecture.mlp_ratio,
            )
        )
    found = {}
    for key, tensor in model.encoder.state_dict().items():
        name, part = huggingface._official(key)
        rows, *rest = tensor.shape
        found[name] = [3 * rows if part else rows, *rest]
    assert found == wanted


def without(*names):
    return lambda state: [state.pop(name) for name in names]


def with_(**tensors):
    return lambda state: state.update({name.replace("__", "."): tensor for name, tensor in tensors.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("encoder.layer.3.mlp.fc1.bias"), "has no 'blocks.3.mlp.fc1.bias', which vit_tiny needs"),
        (
            without(*(f"encoder.layer.3.attention.{part}.weight" for part in ("query", "key", "value"))),
            "has no 'blocks.3.attn.qkv.weight', which vit_tiny needs",
        ),
        (without("encoder.layer.3.attention.key.bias"), "and no 'layer.3.attention.key.bias'"),
        (without("encoder.layer.3.attention.query.bias"), "and no 'layer.3.attention.query.bias'"),
        (with_(encoder__extra=torch.zeros(1)), "has 'extra', which vit_tiny does not know"),
        (
            with_(classifier__weight=torch.zeros(1)),
            "has 'classifier.weight' beside encoder, predictor: it is no V-JEPA file",
        ),
        (with_(encoder__norm__bias=torch.zeros(192)), "'norm.bias' twice"),
        (with_(encoder__layernorm__bias=torch.zeros(191)), r"'norm.bias' is \[191\], vit_tiny has \[192\]"),
        (
            with_(encoder__layer__0__attention__value__weight=torch.zeros(192, 191)),
            r"its key and value are \[192, 192\] and \[192, 191\]",
        ),
        (with_(encoder__layernorm__bias=torch.zeros(192, dtype=torch.int64)), "'norm.bias' is torch.int64"),
    ],
)
def test_what_does_not_fit_is_one_line(tiny, tmp_path, change, message):
    state = load_file(tiny[0] / "model.safetensors")
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path / "w.safetensors")
    assert str(error.value).startswith(f"model tiny: {tmp_path}/w.safetensors: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fraction", [0, 1e-6, 0.001, 0.3, 0.999])
def test_a_truncated_file(tiny, tmp_path, fraction):
    content = (tiny[0] / "model.safetensors").read_bytes()
    (tmp_path / "w").write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(UserError, match=r"not a whole (checkpoint|safetensors) file") as error:
        load(tmp_path / "w")
    assert "\n" not in str(error.value)


def test_another_entry_is_not_in_it(tiny):
    with pytest.raises(UserError, match="no checkpoint key 'target_encoder', which entry names; the file has encoder"):
        load(tiny[0] / "model.safetensors", entry="target_encoder")


def test_half_precision_becomes_float32(tiny, tmp_path):
    state = {key: tensor.half() for key, tensor in load_file(tiny[0] / "model.safetensors").items()}
    save_file(state, tmp_path / "w")
    assert {tensor.dtype for tensor in load(tmp_path / "w").state_dict().values()} == {torch.float32}
