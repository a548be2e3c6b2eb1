"""From a checkpoint file to an encoder: every key and shape must fit, or nothing is loaded.

An official file is a dict of state dicts and other values; the key of the state dict that is wanted is called the
checkpoint key here, `entry` in the registry.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..core import state
from ..core.errors import UserError
from ..core.files import atomic_write, sha256_of
from ..core.locks import file_lock
from ..core.vectors import save_tensors
from . import huggingface, kinds
from .architectures import ARCHITECTURES, FAMILIES, Architecture, architecture
from .naming import LEFT_OVER, state_dict
from .opening import opened
from .vjepa import Encoder

# Prefixes of parameter names that only one family has.
TELLTALE = {
    "vjepa2": ("norm.",),
    "vjepa2_1": ("video_mod_embed", "img_mod_embed", "patch_embed_img.", "norms_block."),
}
EXACT = (torch.float32, torch.float64)  # dtypes of weights that lose nothing that matters
HALF = (torch.float16, torch.bfloat16)
NOTE = "note"  # the key of a text about the weights, which reports repeat


def say(line: str) -> None:
    """Print a line for people, who may have the standard output for something else."""
    print(line, file=sys.stderr, flush=True)


def load(
    path: str | os.PathLike[str],
    name: str,
    constructor: str,
    embed_dim: int,
    checkpoint_key: str,
    family: str,
    tell: Callable[[str], object] = say,
) -> Encoder:
    """The encoder of model `name` with the weights under `checkpoint_key` of the checkpoint at `path`, as float32.

    The file is memory-mapped: only these weights are read. It is an official one, or safetensors of Hugging Face,
    whose only checkpoint key is "encoder"; its content shows which of the two. `tell` is called with a line for each
    thing about the file that is to be known and is no mistake; by default it is printed. Raises `UserError`, one line
    that names file, key and model, if the file is missing, broken, of another kind or to be read only by running its
    code, the checkpoint key is not there, the weights are of the other family or of another embedding dimension or
    depth, or a parameter is missing, unknown, of another shape, or holds NaN or Inf.
    """
    wanted = architecture(constructor, family)
    if wanted.embed_dim != embed_dim:
        raise UserError(f"model {name}: embed_dim is {embed_dim}, {constructor} has {wanted.embed_dim}")
    where = f"model {name}: {path}"
    content = opened(path, where)
    with torch.device("meta"):
        encoder = Encoder(wanted)
    try:
        state, key_is_named = state_dict(content, checkpoint_key, where)
        of_key = f"{where}: checkpoint key {checkpoint_key!r}"
        _check_family(state, family, of_key)
        _check_size(state, wanted, constructor, of_key)
        _compare(encoder.state_dict(), state, constructor, of_key)
    except UserError as error:
        if part := kinds.shard(path):
            raise UserError(f"{where}{part}") from error
        raise
    if not key_is_named:
        tell(f"{where}: one state dict without checkpoint keys, taken for {checkpoint_key!r}, which entry names")
    halves = sorted({str(tensor.dtype) for tensor in state.values() if tensor.dtype in HALF})
    if halves:
        tell(f"{where}: weights in half precision ({', '.join(halves)}): vectors differ from those of the float32 file")
    weights = {key: tensor.float() for key, tensor in state.items()}
    _check_finite(weights, of_key)
    encoder.load_state_dict(weights, strict=True, assign=True)
    return encoder.eval().requires_grad_(False)


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
        if value.dtype not in (*EXACT, *HALF):
            raise UserError(
                f"{where}: {key!r} is {value.dtype}: weights of 8 bits mean nothing without their scales; "
                "take the file in float32"
            )


def _check_finite(weights: dict[str, Tensor], where: str) -> None:
    """Raise `UserError` for the first parameter that holds NaN or Inf, float32. All weights are read."""
    for key, tensor in weights.items():
        if tensor.sum().isfinite():  # a tenth of the time of a look at each
            continue
        if wrong := int((~tensor.isfinite()).sum()):
            raise UserError(f"{where}: {key!r} holds NaN or Inf, {wrong} of {tensor.numel()} values; take a whole file")


def note(path: str | os.PathLike[str]) -> str | None:
    """The checkpoint's text about its own weights (that the demo's are drawn at random); None if it has none."""
    content = huggingface.metadata(path) if huggingface.recognised(path) else opened(path, str(path))
    text = content.get(NOTE)
    return text if isinstance(text, str) else None


def sha256(path: str | os.PathLike[str], cache: str | os.PathLike[str]) -> str:
    """The SHA-256 of the file at `path`, hexadecimal; it is remembered in the directory `cache`.

    It is computed again only if the file's size or modification time has changed: a checkpoint has up
    to 16 GB, and every folder's job asks for it. Raises `UserError` if there is no such file, or it is no checkpoint.
    """
    if reason := kinds.refusal(path):
        raise UserError(f"{path}: {reason}")
    identity, kept = _identity(path), _kept(path, cache)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(kept.with_suffix(".lock")):  # the folders' jobs start together: one reads, the others wait
        remembered = state.load(kept, _remembered)
        if remembered and remembered[0] == identity:
            return remembered[1]
        digest = sha256_of(path)
        with atomic_write(kept) as part:
            part.write_text(json.dumps({"identity": identity, "sha256": digest}))
    return digest


def unlike_registry(path: str | os.PathLike[str], digest: str, expected: str | None) -> str | None:
    """That the file at `path` has another `digest` than the registry's `expected`, in words; None if it has not.

    It is no error: a registry may name the digest of one of several files that all fit.
    """
    if expected is None or digest == expected:
        return None
    return (
        f"{path}: another file than the registry's: its SHA-256 is {digest[:12]}.., the registry says "
        f"{expected[:12]}..; vectors of the two are not to be mixed"
    )


def look_up_sha256(path: str | os.PathLike[str], cache: str | os.PathLike[str]) -> str:
    """As `sha256`, but nothing is written."""
    remembered = state.load(_kept(path, cache), _remembered, leave=True)
    return remembered[1] if remembered and remembered[0] == _identity(path) else sha256_of(path)


def _identity(path: str | os.PathLike[str]) -> list[object]:
    """What of a file changes with its content."""
    status = Path(path).stat()
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns]


def _kept(path: str | os.PathLike[str], cache: str | os.PathLike[str]) -> Path:
    """Where the digest of a file is remembered."""
    return Path(cache) / (hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:16] + ".json")


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
