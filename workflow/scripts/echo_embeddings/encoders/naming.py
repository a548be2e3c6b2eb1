"""The parameters of an encoder by their official names, whatever wrapped, compiled or converted it."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..core.errors import UserError
from . import huggingface

LEFT_OVER = "pos_embed"  # from training without rotary embedding; the encoder has no use for it
CHECKPOINT_KEYS = ("encoder", "target_encoder", "ema_encoder", "predictor")  # of official files
# What stands before all names of a state dict: left by distributed training, by compiling, by classes around the
# encoder. No official name begins with any of them.
PREFIXES = re.compile(r"^(?:(?:module|backbone|_orig_mod|encoder|model)\.)+")
WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|model)\.)+")  # of these, those that may hold all of a training
COMPILED = "_orig_mod."  # and within names, where parts were compiled


def state_dict(content: Mapping[str, object], checkpoint_key: str, where: str) -> tuple[dict[str, Tensor], bool]:
    """The encoder's tensors under `checkpoint_key` of a checkpoint, and whether the file names that key.

    A file that is one state dict, and says by its names which part of training each tensor is of, is read as if these
    were its checkpoint keys; one of an encoder alone is taken for whatever key is asked. Values are not checked. Raises
    `UserError`, which begins with `where`, if the key is not there, or names do not say which tensor is which.
    """
    entries = {str(key): value for key, value in content.items() if isinstance(value, dict)}
    flat = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    named = True
    if not entries and flat:
        entries = _by_part(flat, where)
        if not entries:
            entries, named = {checkpoint_key: flat}, False
    if checkpoint_key not in entries:
        raise UserError(
            f"{where}: no checkpoint key {checkpoint_key!r}, which entry names; "
            f"the file has {', '.join(entries) or 'none'}"
        )
    where = f"{where}: checkpoint key {checkpoint_key!r}"
    return _official(entries[checkpoint_key], where), named


def _by_part(flat: Mapping[str, object], where: str) -> dict[str, dict[str, object]]:
    """The tensors of one state dict by the part of training that their names begin with; none if none has such.

    Raises `UserError` if some have and others have not.
    """
    parts: dict[str, dict[str, object]] = {}
    others = []
    for key, tensor in flat.items():
        part, _, name = WRAPPERS.sub("", key).partition(".")
        if name and part in CHECKPOINT_KEYS:
            parts.setdefault(part, {})[name] = tensor
        else:
            others.append(key)
    if parts and others:
        raise UserError(f"{where}: has {others[0]!r} beside {', '.join(parts)}: it is no V-JEPA file; save those alone")
    return parts


def _official(of_key: Mapping[object, object], where: str) -> dict[str, Tensor]:
    """The tensors of one encoder by its official names; `where` names the checkpoint key."""
    found = {str(key): tensor for key, tensor in of_key.items() if PREFIXES.sub("", str(key)) != LEFT_OVER}
    prefixes = {_prefix(key): key for key in found}
    if len(prefixes) > 1:
        (first, a), (second, b), *_ = prefixes.items()
        raise UserError(
            f"{where} has {a!r} and {b!r}, with {first or 'nothing'!r} and {second or 'nothing'!r} before the name: "
            "which of them are the encoder's is not known; save those alone"
        )
    state: dict[str, Tensor] = {}
    for key, tensor in found.items():
        name = PREFIXES.sub("", key).replace(COMPILED, "")
        if name in state:
            raise UserError(f"{where} has {name!r} twice")
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            kind = f"a {tensor.layout} on {tensor.device}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise UserError(f"{where}: {name!r} is {kind}, and no tensor of weights")
        state[name] = tensor
    return huggingface.official(state, where) if huggingface.names_these(state) else state


def _prefix(key: str) -> str:
    found = PREFIXES.match(key)
    return found[0] if found else ""
