"""Weights as `transformers.VJEPA2Model` has them, under their official names; and files in the format safetensors."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..core.errors import UserError
from ..core.names import one_line

PARTS = ("query", "key", "value")  # three matrices here; one in the official files, with rows in this order
NAMES = (
    (re.compile(r"^embeddings\.patch_embeddings\."), "patch_embed."),
    (re.compile(r"^layer\."), "blocks."),
    (re.compile(r"(?<=\d)\.attention\."), ".attn."),
    (re.compile(r"^layernorm\."), "norm."),
)
THEIRS = re.compile(r"layer\.\d+\.attention\.")


def recognised(path: str | os.PathLike[str]) -> bool:
    """Whether the file at `path` is safetensors, whatever its name: it begins with its header's length and JSON."""
    with open(path, "rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and 8 + length <= Path(path).stat().st_size


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts that the file holds about itself, by name; no weights are read."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return dict(header.get("__metadata__", {}))


def tensors(path: str | os.PathLike[str], where: str) -> dict[str, Tensor]:
    """All tensors of the file at `path` by their own names, memory-mapped.

    Raises `UserError`, which begins with `where`, if it is truncated or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in sorted(file.keys())}
    except MemoryError:
        raise
    except Exception as error:  # of a damaged header or a type that torch lacks; there is no end to them
        raise UserError(
            f"{where}: not a whole safetensors file (truncated or of another kind): {one_line(error)[:160]}"
        ) from error


def names_these(state: Mapping[str, Tensor]) -> bool:
    """Whether an encoder's tensors have the names that `transformers` gives them."""
    return any(key.startswith("embeddings.patch_embeddings.") for key in state) or any(map(THEIRS.match, state))


def official(theirs: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """An encoder's tensors under their official names, with query, key and value joined.

    Raises `UserError`, which begins with `where`, for a query without its key and value, or a tensor that is there
    twice. Whether all tensors are there, and their shapes, are not checked here.
    """
    state: dict[str, Tensor] = {}
    for key in theirs:
        name, part = _official(key)
        joined = [key.replace(f".{part}.", f".{other}.") for other in PARTS] if part else [key]
        missing = [k for k in joined if k not in theirs]
        if missing:
            raise UserError(f"{where} has {key!r} and no {missing[0]!r}")
        if part in (None, PARTS[0]):
            if name in state:
                raise UserError(f"{where} has {name!r} twice, once under its official name")
            state[name] = _join([theirs[k] for k in joined], key, where)
    return state


def _join(parts: list[Tensor], key: str, where: str) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    shapes = [list(tensor.shape) for tensor in parts]
    if shapes.count(shapes[0]) != len(shapes):
        raise UserError(f"{where}: {key!r} is {shapes[0]}, its key and value are {shapes[1]} and {shapes[2]}")
    return torch.cat(parts)


def _official(name: str) -> tuple[str, str | None]:
    """The official name of an encoder's tensor, and whether it is the query, key or value; None if it is another."""
    for pattern, official in NAMES:
        name = pattern.sub(official, name)
    match = re.search(r"\.attn\.(query|key|value)\.", name)
    return (name.replace(f".{match[1]}.", ".qkv."), match[1]) if match else (name, None)
