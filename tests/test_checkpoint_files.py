"""What may lie where a checkpoint should: whatever it is, it is loaded right or named in one true line."""

import argparse
import contextlib
import json
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from numpy._core import multiarray
from safetensors.torch import save_file

from echo_embeddings.core import configuration
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.settings import Model
from echo_embeddings.encoders import checkpoint, kinds
from echo_embeddings.encoders.architectures import ARCHITECTURES
from echo_embeddings.tools import doctor, models
from echo_embeddings.tools.machine import AMBER, GREEN, RED
from testing import oracle

TINY = ARCHITECTURES["vit_tiny"]
STATE = checkpoint.draw(TINY, seed=0).state_dict()
OFFICIAL = {f"module.backbone.{key}": tensor for key, tensor in STATE.items()}
ENTRY = {
    **{"constructor": "vit_tiny", "resolution": 64, "embed_dim": 192, "entry": "encoder", "family": "vjepa2"},
    **{"recipe": "guide", "module": None, "sha256": None},
}


def load(path, entry="encoder", tell=pytest.fail):
    return checkpoint.load(path, Model("tiny", "vit_tiny", 64, 192, entry, 16, "fp32"), tell=tell)


def same(encoder, state=None):
    loaded, wanted = encoder.state_dict(), state or STATE
    return loaded.keys() == wanted.keys() and all(torch.equal(loaded[key], wanted[key]) for key in wanted)


def examined(path, **changes):
    """The findings of doctor on a model whose checkpoint is `path`."""
    config = configuration.defaults() | {"models": ["tiny"], "weights_dir": "."}
    entry = ENTRY | {"checkpoint": str(path), "url": None, "obtain": "by hand"} | changes
    return list(doctor.weights(config, {"tiny": entry}))


# --- files that are none ----------------------------------------------------------------------------

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4800000000\n"


class Code:
    """What runs a program when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def legacy(path):
    torch.save({"encoder": OFFICIAL}, path, _use_new_zipfile_serialization=False)


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vitl.pt", b"weights")


def snapshot(path):
    path.mkdir()
    (path / "config.json").write_text("{}")
    save_file(STATE, path / "model.safetensors")


def snapshot_of_shards(path):
    snapshot(path)
    (path / "model.safetensors").rename(path / "model-00001-of-00003.safetensors")
    shutil.copy(path / "model-00001-of-00003.safetensors", path / "model-00002-of-00003.safetensors")


NO_CHECKPOINT = {
    "empty": (lambda path: path.touch(), "not a whole checkpoint file but an empty one, 0 bytes; fetch it again"),
    "page": (
        lambda path: path.write_text("\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title>"),
        "a web page (HTML), which a drive or a proxy sent in the file's place; open the address in a browser",
    ),
    "git-lfs": (
        lambda path: path.write_text(POINTER),
        "a git-lfs pointer to 4,800,000,000 bytes and not the file itself; run `git lfs pull` where it was cloned",
    ),
    "git-annex": (
        lambda path: path.write_text("/annex/objects/SHA256E-s4800000000--00.pt\n"),
        "a git-annex pointer and not the file itself; run `git annex get` where it was cloned",
    ),
    "legacy": (legacy, "in torch's format from before version 1.6, of which no part can be read alone; save it anew"),
    "zip": (zipped, "a zip archive that torch did not write, with 'vitl.pt' in it; unpack it"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(40)), "packed (gzip); unpack it"),
    "text": (lambda path: path.write_text("weights"), "(truncated or of another kind): it begins with b'weights'"),
    "pickle": (
        lambda path: path.write_bytes(pickle.dumps({"encoder": 1})),
        "(truncated or of another kind): it begins with b'\\x80\\x04",
    ),
    "program": (
        lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path),
        "not loaded: it would run code: it is a TorchScript program; take the file of its weights",
    ),
    "snapshot": (snapshot, "a directory, a snapshot of Hugging Face; name the file in it: model.safetensors"),
    "shards": (snapshot_of_shards, "a directory with the weights in 2 files; save them as one file and name that"),
    "directory": (lambda path: path.mkdir(), "a directory; name the file in it: there are no weights in it"),
    "pipe": (os.mkfifo, "not a file; put the checkpoint there or set weights_dir"),
    "absent": (lambda path: None, "no such checkpoint; put it there or set weights_dir"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", NO_CHECKPOINT)
def test_what_is_no_checkpoint_says_what_it_is(tmp_path, name):
    path = tmp_path / "w.pt"
    make, words = NO_CHECKPOINT[name]
    make(path)
    with pytest.raises(UserError) as error:
        load(path)
    assert str(error.value).startswith(f"model tiny: {path}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert "weights_only=False" not in str(error.value)
    (finding,) = examined(path)
    assert finding.level == RED
    assert words in finding.says or name == "absent"
    if name not in ("text", "pickle"):
        assert words in kinds.refusal(path)
        with pytest.raises(UserError, match=r"w\.pt: "):
            checkpoint.sha256(path, tmp_path / "digests")
    if name != "absent":
        assert not kinds.absent(path)


@contextlib.contextmanager
def held_back_by_permissions():
    """A directory that others may read, and this process an account that permissions hold back, as root is not."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)
    root = os.geteuid() == 0
    try:
        yield directory, (lambda: os.seteuid(65534)) if root else (lambda: None)
    finally:
        if root:
            os.seteuid(0)
        for path in directory.rglob("*"):
            path.chmod(stat.S_IRWXU)
        shutil.rmtree(directory)


@pytest.mark.parametrize("closed", ["file", "directory"])
def test_a_file_that_permissions_close_says_so(closed):
    with held_back_by_permissions() as (directory, become_another):
        (directory / "in").mkdir()
        torch.save({"encoder": OFFICIAL}, directory / "in/w.pt")
        (directory / "in" / ("w.pt" if closed == "file" else "")).chmod(0)
        become_another()
        with pytest.raises(
            UserError, match=r"cannot be opened: Permission denied; let the account .* read it"
        ) as error:
            load(directory / "in/w.pt")
        with pytest.raises(UserError, match="cannot be opened: Permission denied"):
            checkpoint.sha256(directory / "in/w.pt", directory / "digests")
        assert not kinds.absent(directory / "in/w.pt")
        (finding,) = examined(directory / "in/w.pt")
        assert (finding.level, finding.says) == (RED, str(error.value))
        config = configuration.defaults() | {"checkpoints": {"vitl": str(directory / "in/w.pt")}}
        assert "w.pt: cannot be opened: Permission denied" in models.table(
            config, configuration.check(config, data=False)
        )


def test_code_is_not_run_and_named(tmp_path):
    ran, path = tmp_path / "ran", tmp_path / "w.pt"
    torch.save({"encoder": OFFICIAL, "callback": Code(ran)}, path)
    with pytest.raises(UserError) as error:
        load(path)
    assert str(error.value) == (
        f"model tiny: {path}: not loaded: it would run code (posix.system); "
        "ask who made it for the state dict of the weights alone"
    )
    assert not ran.exists()
    torch.save(torch.nn.Linear(2, 2), path)  # a whole module, which its class would have to make
    with pytest.raises(UserError, match=r"it would run code \(torch.nn.modules.linear.Linear\)"):
        load(path)
    assert [one.level for one in examined(path)] == [RED]
    torch.load(tmp_path / "w.pt", weights_only=False)  # the file is as whole as such a file can be


def test_what_training_programs_keep_beside_weights_is_no_obstacle(tmp_path):
    beside = {
        "config": Path("/data/config.yaml"),
        "loss": np.float64(0.25),
        "steps": np.arange(3),
        "names": np.array(["a", "b"]),
        "arguments": argparse.Namespace(folder=PurePosixPath("a"), lr=np.float32(1e-4)),
    }
    torch.save({"encoder": OFFICIAL, **beside}, tmp_path / "w.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pt", weights_only=True)
    assert same(load(tmp_path / "w.pt"))
    with pytest.raises(pickle.UnpicklingError):  # what is allowed here is allowed nowhere else
        torch.load(tmp_path / "w.pt", weights_only=True)
    assert checkpoint.note(tmp_path / "w.pt") is None


class Forged:
    """A dtype or array as pickle makes it, with whatever state."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


ADDRESS = (0x4141414141414140).to_bytes(8, "little")
OBJECT = Forged(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
VOID = Forged(np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 1))
FORGED = {
    "scalar": Forged(multiarray.scalar, (OBJECT, ADDRESS)),
    "array": Forged(multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, (1,), OBJECT, False, ADDRESS)),
    "fields": Forged(multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, (1,), VOID, False, ADDRESS)),
}
# In a process of its own, which NumPy would take with it.
READ = """
import sys
from echo_embeddings.encoders.opening import opened
for path in sys.argv[1:]:
    print(*opened(path, "here"), flush=True)
"""


def test_a_forged_array_beside_weights_makes_nothing_follow_its_pointers(tmp_path):
    paths = [tmp_path / f"{what}.pt" for what in FORGED]
    for path, forged in zip(paths, FORGED.values(), strict=True):
        torch.save({"encoder": OFFICIAL, "loss": forged}, path)
    done = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "encoder loss\n" * len(FORGED), "")


@pytest.mark.parametrize("value", [3, torch.zeros(2, 2).to_sparse(), torch.zeros(2, 2, device="meta")])
def test_what_is_no_tensor_of_weights_is_named(tmp_path, value):
    (key, _), *_ = STATE.items()
    torch.save({"encoder": STATE | {key: value}}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=rf"checkpoint key 'encoder': '{re.escape(key)}' is .*and no tensor of weights"):
        load(tmp_path / "w.pt")


def test_what_is_left_over_of_training_may_stand_under_any_prefix(tmp_path):
    state = {f"module.backbone.{key}": value for key, value in OFFICIAL.items() if not key.endswith("pos_embed")}
    torch.save({"encoder": state | {"module.pos_embed": torch.zeros(1)}}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("now", "then"),
    [(b"cpathlib\nPosixPath\n", b"cpathlib\nWindowsPath\n"),
     (b"cpathlib\nPosixPath\n", b"cpathlib._local\nPosixPath\n"),
     (b"cnumpy._core.multiarray\nscalar\n", b"cnumpy.core.multiarray\nscalar\n")],
    ids=["windows", "python 3.13", "numpy 1"],
)  # fmt: skip
def test_so_it_is_under_the_names_of_other_systems_and_versions(tmp_path, now, then):
    torch.save({"encoder": OFFICIAL, "at": Path("/a"), "loss": np.float64(0.25)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in content if name.endswith("data.pkl")]
    assert now in content[name]
    content[name] = content[name].replace(now, then)
    writer = torch._C.PyTorchFileWriter(str(tmp_path / "other.pt"))
    for name, data in content.items():
        record = name.split("/", 1)[1]
        if record not in ("version", ".data/serialization_id", ".format_version", ".storage_alignment"):
            writer.write_record(record, data, len(data))
    writer.write_end_of_file()
    assert same(load(tmp_path / "other.pt"))


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module.module.", "encoder.", "model.", "module._orig_mod.backbone.", "model.encoder.module."],
)
def test_whatever_wrapped_the_encoder(tmp_path, prefix):
    content = {f"{prefix}{key}": tensor for key, tensor in STATE.items()}
    torch.save({"encoder": content}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"))


def test_blocks_that_were_compiled_one_by_one(tmp_path):
    content = {f"module.{key}".replace("blocks.3.", "blocks.3._orig_mod."): tensor for key, tensor in STATE.items()}
    torch.save({"encoder": content}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"))
    content["module.blocks.3.norm1.bias"] = STATE["blocks.3.norm1.bias"]
    torch.save({"encoder": content}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"checkpoint key 'encoder' has 'blocks.3.norm1.bias' twice"):
        load(tmp_path / "w.pt")


def test_two_encoders_under_one_key_are_ambiguous(tmp_path):
    content = {f"{part}.{key}": tensor for part in ("module", "other.module") for key, tensor in STATE.items()}
    torch.save({"encoder": content}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"'module.' and 'nothing' before the name: which of them are the encoder's"):
        load(tmp_path / "w.pt")


def test_one_state_dict_of_an_encoder_alone_is_taken_and_told(tmp_path):
    told = []
    torch.save(OFFICIAL, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt", "target_encoder", told.append))
    assert told == [
        f"model tiny: {tmp_path}/w.pt: one state dict without checkpoint keys, taken for 'target_encoder', "
        "which entry names"
    ]
    assert [one.level for one in examined(tmp_path / "w.pt")] == [AMBER, GREEN]
    save_file(STATE, tmp_path / "w.safetensors")
    assert same(load(tmp_path / "w.safetensors", tell=told.append))
    assert len(told) == 2


def test_one_state_dict_of_a_training_is_read_by_its_parts(tmp_path):
    other = checkpoint.draw(TINY, seed=1).state_dict()
    flat = {f"module.encoder.{key}": tensor for key, tensor in STATE.items()}
    flat |= {f"module.target_encoder.{key}": tensor for key, tensor in other.items()}
    torch.save(flat, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"))
    assert same(load(tmp_path / "w.pt", "target_encoder"), other)
    with pytest.raises(UserError, match=r"no checkpoint key 'ema_encoder', .* the file has encoder, target_encoder"):
        load(tmp_path / "w.pt", "ema_encoder")


def test_state_dicts_of_transformers_in_torchs_format(tmp_path):
    model = oracle.transformers_encoder(STATE, 192, 12, 3, 4.0, 256)
    model.predictor.to_empty(device="cpu")
    whole, alone = model.state_dict(), model.encoder.state_dict()
    torch.save(whole, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"))
    with pytest.raises(UserError, match=r"no checkpoint key 'target_encoder', .* the file has encoder, predictor"):
        load(tmp_path / "w.pt", "target_encoder")
    torch.save({"encoder": {f"module.{key}": tensor for key, tensor in alone.items()}}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"))
    told = []
    torch.save(alone, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt", tell=told.append))
    assert len(told) == 1


def test_one_shard_of_several_says_so(tmp_path):
    model = oracle.transformers_encoder(STATE, 192, 12, 3, 4.0, 256)
    model.predictor.to_empty(device="cpu")
    model.save_pretrained(tmp_path, max_shard_size="10MB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    for number, path in enumerate(shards, start=1):
        with pytest.raises(UserError) as error:
            load(path)
        assert str(error.value) == (
            f"model tiny: {path}: it is number {number} of {len(shards)} files that hold the weights; "
            "save them as one file"
        )
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index.values()) == {path.name for path in shards}
    whole = tmp_path / "model-00001-of-00001.safetensors"
    save_file(STATE, whole)
    assert same(load(whole, tell=lambda line: None))


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    spoilt = {key: tensor.clone() for key, tensor in OFFICIAL.items()}
    spoilt["module.backbone.blocks.7.mlp.fc1.weight"][3, :2] = value
    torch.save({"encoder": spoilt}, tmp_path / "w.pt")
    with pytest.raises(
        UserError, match=r"'blocks.7.mlp.fc1.weight' holds NaN or Inf, 2 of 147456 values; take a whole"
    ):
        load(tmp_path / "w.pt")
    assert [one.level for one in examined(tmp_path / "w.pt")] == [RED]


def test_large_weights_whose_sum_is_not_finite_are_weights(tmp_path):
    state = STATE | {"norm.bias": torch.full((192,), 3e38)}
    torch.save({"encoder": state}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"), state)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_8_bits_are_refused(tmp_path, dtype):
    torch.save({"encoder": {key: tensor.to(dtype) for key, tensor in OFFICIAL.items()}}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=f"is {dtype}: weights of 8 bits mean nothing without their scales"):
        load(tmp_path / "w.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_told(tmp_path, dtype, capsys):
    halves = {key: tensor.to(dtype) for key, tensor in OFFICIAL.items()}
    torch.save({"encoder": halves}, tmp_path / "w.pt")
    told = []
    assert not same(load(tmp_path / "w.pt", tell=told.append))
    assert told == [
        f"model tiny: {tmp_path}/w.pt: weights in half precision ({dtype}): "
        "vectors differ from those of the float32 file"
    ]
    assert [one.level for one in examined(tmp_path / "w.pt")] == [AMBER, GREEN]
    checkpoint.load(tmp_path / "w.pt", Model("tiny", "vit_tiny", 64, 192, "encoder", 16, "fp32"))
    assert capsys.readouterr().err == told[0] + "\n"


def test_double_precision_loses_nothing(tmp_path):
    torch.save({"encoder": {key: tensor.double() for key, tensor in OFFICIAL.items()}}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"))


# --- digests ----------------------------------------------------------------------------------------


def test_a_file_that_is_another_than_the_registrys_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"encoder": OFFICIAL}, tmp_path / "w.pt")
    digest = checkpoint.look_up_sha256("w.pt", "digests")
    assert digest == checkpoint.sha256("w.pt", "digests")
    assert [one.level for one in examined("w.pt", sha256=digest)] == [GREEN]
    amber, green = examined("w.pt", sha256="0" * 64)
    assert (amber.level, green.level) == (AMBER, GREEN)
    assert amber.says == (
        f"w.pt: another file than the registry's: its SHA-256 is {digest[:12]}.., the registry says "
        "000000000000..; vectors of the two are not to be mixed"
    )
    assert not Path("results").exists()  # doctor changes nothing


def test_a_digest_that_cannot_be_looked_up_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"encoder": OFFICIAL}, "w.pt")
    Path("results/state").mkdir(parents=True)
    Path("results/state/checkpoints").write_text("no directory")
    amber, green = examined("w.pt", sha256="0" * 64)
    assert (amber.level, green.level) == (AMBER, GREEN)
    assert "its SHA-256 cannot be compared with the registry's" in amber.says


def test_the_registry_has_the_one_digest_that_is_known():
    registry = configuration.check(configuration.defaults(), data=False)
    known = {name: entry["sha256"] for name, entry in registry.items() if entry["sha256"]}
    assert known == {"echo-vitb-mimic169": "40384a17d3d32375142e3bd3a43d2f5bfa2b174b44c6960958bffd731e9624c1"}
