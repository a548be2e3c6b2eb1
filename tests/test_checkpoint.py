"""Loading official checkpoints: right, or one line that says what is wrong."""

import os

import pytest
import torch

from echo_embeddings.core.errors import UserError
from echo_embeddings.core.settings import Model
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES, architecture

TINY = ARCHITECTURES["vit_tiny"]


def load(path, constructor="vit_tiny", embed_dim=192, entry="encoder", family="vjepa2"):
    return checkpoint.load(path, Model("tiny", constructor, 64, embed_dim, entry, 16, "fp32", family))


@pytest.fixture(scope="module")
def state():
    return checkpoint.draw(TINY, seed=0).state_dict()


def with_prefix(state):
    return {f"module.backbone.{key}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone.", "backbone."])
def test_prefixes_and_left_over_positions(tmp_path, state, prefix):
    content = {f"{prefix}{key}": tensor for key, tensor in state.items()}
    content[f"{prefix}pos_embed"] = torch.zeros(1, 2048, 192)
    torch.save({"encoder": content, "epoch": 3}, tmp_path / "w.pt")
    loaded = load(tmp_path / "w.pt").state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("constructor", ["vit_tiny", pytest.param("vit_large", marks=pytest.mark.slow)])
def test_a_checkpoint_in_the_official_format(tmp_path, constructor):
    """`encoder` and `target_encoder` differ, and the one asked for is loaded."""
    size = ARCHITECTURES[constructor]
    state = checkpoint.draw(size, seed=1).state_dict()
    other = {**state, "norm.weight": state["norm.weight"] + 1}
    checkpoint.save(tmp_path / "w.pt", {"encoder": state, "target_encoder": other}, "drawn for a test")
    keys = torch.load(tmp_path / "w.pt", mmap=True)["encoder"].keys()
    assert "module.backbone.pos_embed" in keys
    assert all(key.startswith("module.backbone.") for key in keys)
    for entry, expected in (("encoder", state), ("target_encoder", other)):
        loaded = load(tmp_path / "w.pt", constructor, size.embed_dim, entry).state_dict()
        assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    assert checkpoint.note(tmp_path / "w.pt") == "drawn for a test"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("blocks.3.mlp.fc1.bias"),
            "checkpoint key 'encoder' has no 'blocks.3.mlp.fc1.bias', which vit_tiny needs",
        ),
        (
            lambda s: s.update(extra=torch.zeros(1)),
            "checkpoint key 'encoder' has 'extra', which vit_tiny does not know",
        ),
        (
            lambda s: s.update({"norm.bias": torch.zeros(191)}),
            r"checkpoint key 'encoder': 'norm.bias' is \[191\], vit_tiny has \[192\]",
        ),
        (lambda s: s.update({"norm.bias": "text"}), "'norm.bias' is str"),
        (lambda s: s.update({"norm.bias": torch.zeros(192, dtype=torch.int64)}), "'norm.bias' is torch.int64"),
    ],
)
def test_what_does_not_fit_is_one_line_with_file_key_and_model(tmp_path, state, change, message):
    changed = dict(state)
    change(changed)
    torch.save({"encoder": with_prefix(changed)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path / "w.pt")
    assert str(error.value).startswith(f"model tiny: {tmp_path}/w.pt: ")
    assert "\n" not in str(error.value)


def test_wrong_entry_width_and_kind_of_file(tmp_path, state):
    torch.save({"encoder": with_prefix(state), "predictor": {}, "epoch": 1}, tmp_path / "w.pt")
    with pytest.raises(
        UserError, match="no checkpoint key 'ema_encoder', which entry names; the file has encoder, predictor"
    ):
        load(tmp_path / "w.pt", entry="ema_encoder")
    with pytest.raises(UserError, match="embed_dim is 1024, vit_tiny has 192"):
        load(tmp_path / "w.pt", embed_dim=1024)
    with pytest.raises(
        UserError,
        match=r"checkpoint key 'encoder': embedding dimension 192, vit_large has 1024; constructor: vit_tiny fits",
    ):
        load(tmp_path / "w.pt", constructor="vit_large", embed_dim=1024)
    with pytest.raises(UserError, match="checkpoint key 'predictor' holds no V-JEPA encoder"):
        load(tmp_path / "w.pt", entry="predictor")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds a list"):
        load(tmp_path / "list.pt")
    with pytest.raises(UserError, match="no such checkpoint"):
        load(tmp_path / "absent.pt")


def test_the_family_is_read_from_the_keys_and_compared(tmp_path, state):
    """2.1 given as 2, 2 given as 2.1: each stops, and each loads as what it is."""
    newer = checkpoint.draw(architecture("vit_tiny", "vjepa2_1"), seed=0).state_dict()
    checkpoint.save(tmp_path / "w.pt", {"target_encoder": state, "ema_encoder": newer}, "drawn for a test")
    with pytest.raises(UserError) as error:
        load(tmp_path / "w.pt", entry="ema_encoder", family="vjepa2")
    assert str(error.value).startswith(f"model tiny: {tmp_path}/w.pt: checkpoint key 'ema_encoder' has ")
    assert str(error.value).endswith(
        "it is a V-JEPA 2.1 encoder, and the registry says V-JEPA 2; "
        "set family: vjepa2_1, or take the file that was meant"
    )
    with pytest.raises(UserError) as error:
        load(tmp_path / "w.pt", entry="target_encoder", family="vjepa2_1")
    assert str(error.value).startswith(f"model tiny: {tmp_path}/w.pt: checkpoint key 'target_encoder' has 'norm.")
    assert "it is a V-JEPA 2 encoder, and the registry says V-JEPA 2.1; set family: vjepa2, " in str(error.value)
    for entry, family, expected in (("ema_encoder", "vjepa2_1", newer), ("target_encoder", "vjepa2", state)):
        loaded = load(tmp_path / "w.pt", entry=entry, family=family).state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_another_depth_of_the_same_width(tmp_path, state):
    shallow = {key: tensor for key, tensor in state.items() if not key.startswith("blocks.11.")}
    torch.save({"encoder": with_prefix(shallow)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="checkpoint key 'encoder' has 11 blocks, vit_tiny has 12"):
        load(tmp_path / "w.pt")


@pytest.mark.parametrize("fraction", [0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file(tmp_path, state, fraction):
    torch.save({"encoder": with_prefix(state)}, tmp_path / "w.pt")
    os.truncate(tmp_path / "w.pt", int((tmp_path / "w.pt").stat().st_size * fraction))
    with pytest.raises(UserError, match="not a whole checkpoint file") as error:
        load(tmp_path / "w.pt")
    assert "\n" not in str(error.value)


def test_half_precision_files_become_float32(tmp_path, state):
    torch.save({"encoder": {key: tensor.half() for key, tensor in state.items()}}, tmp_path / "w.pt")
    assert {tensor.dtype for tensor in load(tmp_path / "w.pt").state_dict().values()} == {torch.float32}


def test_digest_is_kept_until_the_file_changes(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"one")
    first = checkpoint.sha256(path, tmp_path / "cache")
    assert first == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    (kept,) = (tmp_path / "cache").glob("*.json")
    kept.write_text(kept.read_text().replace(first, "f" * 64))  # as if computed: shows that it is not read again
    assert checkpoint.sha256(path, tmp_path / "cache") == "f" * 64
    path.write_bytes(b"two!")
    assert checkpoint.sha256(path, tmp_path / "cache") not in (first, "f" * 64)
