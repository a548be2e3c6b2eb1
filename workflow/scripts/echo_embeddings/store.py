"""Embedding files: `dict[str, Tensor]`, key -> float32 [embed_dim], written whole, read, merged."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .files import UserError, one_line, whole


def write(path: str | os.PathLike[str], keys: list[str], matrix: Tensor) -> None:
    """Write float32 `matrix` [N, embed_dim] under its N `keys`, sorted by key.

    The file is a dict whose values are rows of one tensor, so that it is as large as its numbers
    and opens with `torch.load(path)`. Raises `ValueError` on keys that are not unique or not N.
    """
    if len(set(keys)) != len(keys) or matrix.dim() != 2 or len(keys) != matrix.shape[0]:
        raise ValueError(f"{len(keys)} keys ({len(set(keys))} unique) for a matrix of {tuple(matrix.shape)}")
    order = sorted(range(len(keys)), key=keys.__getitem__)
    ordered = matrix.detach().to("cpu", torch.float32)[order].contiguous()
    with whole(path) as part:
        torch.save({keys[i]: row for i, row in zip(order, ordered.unbind(), strict=True)}, part)


def read(path: str | os.PathLike[str]) -> tuple[list[str], Tensor]:
    """The N keys of an embedding file and its float32 matrix [N, embed_dim], in the file's order.

    The matrix of a file made by `write` is memory-mapped; a dict of separate tensors, as other
    programs write it, is copied into one. Raises `UserError` if the file is no embedding file: not
    readable, not a dict of vectors, vectors of different length or type.
    """
    try:
        vectors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such embedding file") from error
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: cannot be read as an embedding file: {one_line(error)[:200]}") from error
    if not isinstance(vectors, dict):
        raise UserError(f"{path}: holds a {type(vectors).__name__}, not a dict of vectors")
    keys = list(vectors)
    for key, vector in vectors.items():
        if not isinstance(key, str) or not isinstance(vector, Tensor) or vector.dim() != 1:
            raise UserError(f"{path}: {key!r}: not a vector under a name")
        first = vectors[keys[0]]
        if vector.dtype != torch.float32:
            raise UserError(f"{path}: {key!r}: dtype {vector.dtype}, expected torch.float32")
        if vector.shape != first.shape:
            raise UserError(f"{path}: {key!r}: dimension {len(vector)}, where {keys[0]!r} has {len(first)}")
    if not keys:
        return [], torch.empty(0, 0)
    return keys, _as_matrix(list(vectors.values()))


def _as_matrix(rows: list[Tensor]) -> Tensor:
    """The rows as one [N, D] tensor: a view where they already lie one behind the other in memory."""
    first, length = rows[0], len(rows[0])
    storage = first.untyped_storage().data_ptr()
    in_place = all(
        row.untyped_storage().data_ptr() == storage
        and row.storage_offset() == first.storage_offset() + i * length
        and row.stride() == (1,)
        for i, row in enumerate(rows)
    )
    return first.as_strided((len(rows), length), (length, 1)) if in_place else torch.stack(rows)


def merge(
    parts: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
    embed_dim: int,
    prefix_folder: bool = False,
) -> int:
    """Merge the folders' files `parts` (folder -> path) into one at `path`; returns the number of vectors.

    Keys stay as they are, or become `{folder}/{key}`. Raises `UserError` on a missing folder, a key
    that two folders share, another dimension than `embed_dim`, a dtype other than float32, NaN or Inf.
    """
    missing = [f"{folder} ({part})" for folder, part in parts.items() if not Path(part).exists()]
    if missing:
        raise UserError(f"merge: no embedding file for folder {', '.join(missing)}")
    owner: dict[str, str] = {}
    matrices = []
    for folder, part in parts.items():
        keys, matrix = read(part)
        if not keys:
            continue
        if matrix.shape[1] != embed_dim:
            raise UserError(f"merge: {part}: vectors of dimension {matrix.shape[1]}, the model's is {embed_dim}")
        finite = torch.isfinite(matrix).all(dim=1)
        if not finite.all():
            raise UserError(f"merge: {part}: {keys[int((~finite).nonzero()[0])]!r} holds NaN or Inf")
        for key in keys:
            name = f"{folder}/{key}" if prefix_folder else key
            if name in owner:
                raise UserError(
                    f"merge: folders {owner[name]} and {folder} share the key {name!r}; "
                    "set merge.prefix_folder: true to put the folder's name before every key"
                )
            owner[name] = folder
        matrices.append(matrix)
    merged = torch.cat(matrices) if matrices else torch.empty(0, embed_dim)
    write(path, list(owner), merged)
    return len(owner)
