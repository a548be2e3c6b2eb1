"""From a checkpoint file to an encoder, and what is to be known of the file.

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
from torch import Tensor, nn

from ..core import state
from ..core.errors import UserError
from ..core.files import atomic_write, sha256_of
from ..core.locks import file_lock
from ..core.settings import Model
from ..core.vectors import save_tensors
from . import contract, huggingface, kinds
from .architectures import Architecture
from .loading import Checkpoint
from .naming import LEFT_OVER
from .opening import opened
from .vjepa import Encoder

NOTE = "note"  # the key of a text about the weights, which reports repeat


def say(line: str) -> None:
    """Print a line for people, who may have the standard output for something else."""
    print(line, file=sys.stderr, flush=True)


def load(path: str | os.PathLike[str], model: Model, tell: Callable[[str], object] = say) -> nn.Module:
    """The encoder of `model` with its weights from the checkpoint at `path`, as float32.

    The file is memory-mapped: only these weights are read. It is one of torch, or safetensors; its content shows which
    of the two. `tell` is called with a line for each thing about the file that is to be known and is no mistake; by
    default it is printed. Raises `UserError`, one line that names the model, and the file and key where it is them, if
    the model cannot be meant, a package that its family needs is not installed, the file is missing, broken, of another
    kind or to be read only by running its code, or its weights do not fit.
    """
    if reason := contract.misfit(model):
        raise UserError(reason)
    family = contract.code(model)
    network = model.constructor or contract.FAMILIES[model.family].title
    where = f"model {model.name}: {path}"
    encoder: nn.Module = family.build(model)
    file = Checkpoint(path, model.entry, where, network, tell)
    try:
        if hasattr(family, "load"):
            family.load(encoder, file)
        else:
            file.fill(encoder, file.tensors())
    except UserError as error:
        if part := kinds.shard(path):
            raise UserError(f"{where}{part}") from error
        raise
    return encoder.eval().requires_grad_(False)


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
