"""Weights in the format of Hugging Face, safetensors of `transformers.VJEPA2Model`, under their official names."""

import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..core.errors import UserError
from ..core.names import one_line

ENCODER, PREDICTOR = "encoder.", "predictor."  # prefixes of all names; only the encoder is read
PARTS = ("query", "key", "value")  # three matrices here; one in the official files, with rows in this order
NAMES = (
    (re.compile(r"^embeddings\.patch_embeddings\."), "patch_embed."),
    (re.compile(r"^layer\."), "blocks."),
    (re.compile(r"(?<=\d)\.attention\."), ".attn."),
    (re.compile(r"^layernorm\."), "norm."),
)


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


def encoder(path: str | os.PathLike[str], where: str) -> dict[str, Tensor]:
    """The encoder's tensors under their official names, with query, key and value joined.

    All but the joined ones are memory-mapped. Raises `UserError`, which begins with `where`, if the file is truncated
    or damaged, holds a tensor that `transformers.VJEPA2Model` does not have, or a query without its key and value.
    Whether all tensors are there, and their shapes, are not checked here.
    """
    state: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            keys = set(file.keys())
            for key in sorted(keys):
                if key.startswith(PREDICTOR):
                    continue
                if not key.startswith(ENCODER):
                    raise UserError(
                        f"{where}: has {key!r}, which is in neither the encoder nor the predictor of V-JEPA 2"
                    )
                name, part = _official(key.removeprefix(ENCODER))
                joined = [key.replace(f".{part}.", f".{other}.") for other in PARTS] if part else [key]
                missing = [k for k in joined if k not in keys]
                if missing:
                    raise UserError(f"{where}: has {key!r} and no {missing[0]!r}")
                if part in (None, PARTS[0]):
                    if name in state:
                        raise UserError(f"{where}: has {name!r} twice, once under its official name")
                    state[name] = _join([file.get_tensor(k) for k in joined], key, where)
    except SafetensorError as error:
        raise UserError(
            f"{where}: not a whole safetensors file (truncated or of another kind): {one_line(error)[:160]}"
        ) from error
    return state


def _join(tensors: list[Tensor], key: str, where: str) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    shapes = [list(tensor.shape) for tensor in tensors]
    if shapes.count(shapes[0]) != len(shapes):
        raise UserError(f"{where}: {key!r} is {shapes[0]}, its key and value are {shapes[1]} and {shapes[2]}")
    return torch.cat(tensors)


def _official(name: str) -> tuple[str, str | None]:
    """The official name of an encoder's tensor, and whether it is the query, key or value; None if it is another."""
    for pattern, official in NAMES:
        name = pattern.sub(official, name)
    match = re.search(r"\.attn\.(query|key|value)\.", name)
    return (name.replace(f".{match[1]}.", ".qkv."), match[1]) if match else (name, None)
