"""From a checkpoint file to an encoder: every key and shape must fit, or nothing is loaded.

An official file is a dict of state dicts and other values; the key of the state dict that is wanted is called the
checkpoint key here, `entry` in the registry.
"""

import hashlib
import json
import os
import pickle
import re
from pathlib import Path

import torch
from torch import Tensor

from ..core import state
from ..core.errors import UserError
from ..core.files import atomic_write, sha256_of
from ..core.locks import file_lock
from ..core.names import one_line
from ..core.vectors import save_tensors
from . import huggingface
from .architectures import ARCHITECTURES, FAMILIES, Architecture, architecture
from .vjepa import Encoder

PREFIXES = ("module.", "backbone.")  # left by distributed training and by the wrapper class
LEFT_OVER = "pos_embed"  # from training without rotary embedding; the encoder has no use for it
# Prefixes of parameter names that only one family has.
TELLTALE = {
    "vjepa2": ("norm.",),
    "vjepa2_1": ("video_mod_embed", "img_mod_embed", "patch_embed_img.", "norms_block."),
}
HUGGING_FACE = "encoder"  # the checkpoint key of the official files that those of Hugging Face were made from
NOTE = "note"  # the key of a text about the weights, which reports repeat


def load(
    path: str | os.PathLike[str], name: str, constructor: str, embed_dim: int, checkpoint_key: str, family: str
) -> Encoder:
    """The encoder of model `name` with the float32 weights under `checkpoint_key` of the checkpoint at `path`.

    The file is memory-mapped: only these weights are read. It is an official one, or safetensors of Hugging Face,
    whose only checkpoint key is "encoder"; its content shows which of the two. Raises `UserError`, one line that names
    file, key and model, if the file is missing, broken or of another kind, the checkpoint key is not there, the weights
    are of the other family or of another embedding dimension or depth, or a parameter is missing, unknown or of another
    shape.
    """
    wanted = architecture(constructor, family)
    if wanted.embed_dim != embed_dim:
        raise UserError(f"model {name}: embed_dim is {embed_dim}, {constructor} has {wanted.embed_dim}")
    where = f"model {name}: {path}"
    state = _state_dict(_open(path, where), checkpoint_key, where)
    where = f"{where}: checkpoint key {checkpoint_key!r}"
    _check_family(state, family, where)
    _check_size(state, wanted, constructor, where)
    with torch.device("meta"):
        encoder = Encoder(wanted)
    _compare(encoder.state_dict(), state, constructor, where)
    encoder.load_state_dict({key: tensor.float() for key, tensor in state.items()}, strict=True, assign=True)
    return encoder.eval().requires_grad_(False)


def _open(path: str | os.PathLike[str], where: str) -> dict[str, object]:
    if not Path(path).is_file():
        raise UserError(f"{where}: no such checkpoint; put it there or set weights_dir")
    # torch.load goes by the name: it would take any file called .safetensors for one.
    if huggingface.recognised(path) or Path(path).suffix == ".safetensors":
        return {HUGGING_FACE: huggingface.encoder(path, where)}
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{where}: not a whole checkpoint file (truncated or of another kind): {one_line(error)[:160]}"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: holds a {type(content).__name__}, not a dict of state dicts")
    return content


def _state_dict(content: dict[str, object], checkpoint_key: str, where: str) -> dict[str, Tensor]:
    """The tensors under a checkpoint key, by the encoder's own names."""
    if not isinstance(content.get(checkpoint_key), dict):
        there = ", ".join(str(key) for key, value in content.items() if isinstance(value, dict))
        raise UserError(
            f"{where}: no checkpoint key {checkpoint_key!r}, which entry names; the file has {there or 'none'}"
        )
    state: dict[str, Tensor] = {}
    for key, tensor in content[checkpoint_key].items():  # type: ignore[attr-defined]
        name = str(key)
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if name in state:
            raise UserError(f"{where}: checkpoint key {checkpoint_key!r} has {name!r} twice")
        if name != LEFT_OVER:
            state[name] = tensor
    return state


def _check_family(state: dict[str, Tensor], family: str, where: str) -> None:
    """Raise `UserError` if the keys are those of another family than the registry says, or of none."""
    found = {key: name for key in state for name, prefixes in TELLTALE.items() if key.startswith(prefixes)}
    for key, name in found.items():
        if name != family:
            raise UserError(
                f"{where} has {key!r}: it is a {FAMILIES[name].name} encoder, and the registry says "
                f"{FAMILIES[family].name}; set family: {name}, or take the file that was meant"
            )
    if not found:
        raise UserError(f"{where} holds no V-JEPA encoder: it has neither 'norm.weight' nor 'video_mod_embed'")


def _check_size(state: dict[str, Tensor], wanted: Architecture, constructor: str, where: str) -> None:
    """Raise `UserError` if the weights are of another embedding dimension or depth than `wanted`."""
    weight = state.get("patch_embed.proj.weight")
    embed_dim = weight.shape[0] if isinstance(weight, Tensor) and weight.dim() else wanted.embed_dim
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    if embed_dim != wanted.embed_dim:
        fits = [name for name, architecture in ARCHITECTURES.items() if architecture.embed_dim == embed_dim]
        hint = f"; constructor: {fits[0]} fits" if fits else ""
        raise UserError(f"{where}: embedding dimension {embed_dim}, {constructor} has {wanted.embed_dim}{hint}")
    if depth != wanted.depth:
        raise UserError(f"{where} has {depth} blocks, {constructor} has {wanted.depth}")


def _compare(wanted: dict[str, Tensor], state: dict[str, Tensor], constructor: str, where: str) -> None:
    """Raise `UserError` for the first parameter that is missing, unknown, or of another shape or type."""
    for key in (k for k in wanted if k not in state):
        raise UserError(f"{where} has no {key!r}, which {constructor} needs")
    for key, value in state.items():
        if key not in wanted:
            raise UserError(f"{where} has {key!r}, which {constructor} does not know")
        if not isinstance(value, Tensor) or value.shape != wanted[key].shape:
            shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"{where}: {key!r} is {shape}, {constructor} has {list(wanted[key].shape)}")
        if not value.is_floating_point():
            raise UserError(f"{where}: {key!r} is {value.dtype}, not floating-point weights")


def note(path: str | os.PathLike[str]) -> str | None:
    """The checkpoint's text about its own weights (that the demo's are drawn at random); None if it has none."""
    content = huggingface.metadata(path) if huggingface.recognised(path) else _open(path, str(path))
    text = content.get(NOTE)
    return text if isinstance(text, str) else None


def sha256(path: str | os.PathLike[str], cache: str | os.PathLike[str]) -> str:
    """The SHA-256 of the file at `path`, hexadecimal; it is remembered in the directory `cache`.

    It is computed again only if the file's size or modification time has changed: a checkpoint has up
    to 16 GB, and every folder's job asks for it. Raises `UserError` if there is no such file.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint; put it there or set weights_dir")
    status = Path(path).stat()
    name = os.path.abspath(path)
    identity = [name, status.st_size, status.st_mtime_ns]
    kept = Path(cache) / (hashlib.sha256(name.encode()).hexdigest()[:16] + ".json")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(kept.with_suffix(".lock")):  # the folders' jobs start together: one reads, the others wait
        remembered = state.load(kept, _remembered)
        if remembered and remembered[0] == identity:
            return remembered[1]
        digest = sha256_of(path)
        with atomic_write(kept) as part:
            part.write_text(json.dumps({"identity": identity, "sha256": digest}))
    return digest


def _remembered(path: Path) -> tuple[list[object], str]:
    """What `sha256` remembers of a checkpoint: its identity and its digest."""
    record = state.read_json(path)
    if not re.fullmatch(r"[0-9a-f]{64}", record["sha256"]):
        raise ValueError("no SHA-256")
    return list(record["identity"]), record["sha256"]


def draw(architecture: Architecture, seed: int) -> Encoder:
    """An encoder with random float32 weights under which different videos get different vectors.

    Each weight matrix is normal with std 2 / sqrt(fan-in), the patch embedding 4 / sqrt(fan-in), biases
    have std 0.02, norms lie near 1. With the usual small weights all vectors are nearly the same.
    """
    generator = torch.Generator().manual_seed(seed)
    encoder = Encoder(architecture)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.02, generator=generator)
            elif "norm" in name:
                parameter.normal_(1, 0.02, generator=generator)
            else:
                gain = 4.0 if name.startswith("patch_embed") else 2.0
                parameter.normal_(0, gain / parameter[0].numel() ** 0.5, generator=generator)
    return encoder.eval().requires_grad_(False)


def save(path: str | os.PathLike[str], state_dicts: dict[str, dict[str, Tensor]], text: str) -> None:
    """Write state dicts, by checkpoint key, in the official format: prefixed names, a left-over `pos_embed`.

    `text` is what `note` reads.
    """
    content: dict[str, object] = {
        name: {"module.backbone." + key: tensor for key, tensor in {LEFT_OVER: torch.zeros(1, 1, 1), **state}.items()}
        for name, state in state_dicts.items()
    }
    save_tensors({**content, "epoch": 0, NOTE: text}, path)
