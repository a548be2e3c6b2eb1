"""Embedding files: `dict[str, Tensor]`, key -> float32 [embed_dim], written whole, read, merged."""

import os
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from .errors import UserError
from .files import atomic_write
from .names import one_line


def save_tensors(content: object, path: str | os.PathLike[str]) -> None:
    """`torch.save`, whole or not at all. Raises `OSError` if the disk is full, as every other file does."""
    with atomic_write(path) as part, open(part, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch ends its archive although a write has failed, and that fails in other words.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def write_vectors(path: str | os.PathLike[str], keys: list[str], matrix: Tensor) -> None:
    """Write float32 `matrix` [N, embed_dim] under its N `keys`, sorted by key.

    The file is a dict whose values are rows of one tensor, so that it is as large as its numbers
    and opens with `torch.load(path)`. A matrix that is sorted already is written without a copy.
    Raises `ValueError` on keys that are not unique or not N.
    """
    if matrix.dim() != 2 or len(keys) != matrix.shape[0]:
        raise ValueError(f"{len(keys)} keys for a matrix of {tuple(matrix.shape)}")
    matrix = matrix.detach().to("cpu", torch.float32).contiguous()
    if any(one >= next_one for one, next_one in pairwise(keys)):
        order = sorted(range(len(keys)), key=keys.__getitem__)
        keys, matrix = [keys[i] for i in order], matrix[order]
        if any(one == next_one for one, next_one in pairwise(keys)):
            raise ValueError("keys are not unique")
    elif matrix.untyped_storage().nbytes() != matrix.nbytes:  # torch.save writes the whole storage behind a view
        matrix = matrix.clone()
    save_tensors(dict(zip(keys, matrix.unbind(), strict=True)), path)


def read_vectors(path: str | os.PathLike[str]) -> tuple[list[str], Tensor]:
    """The N keys of an embedding file and its float32 matrix [N, embed_dim], in the file's order.

    The matrix of a file made by `write_vectors` is memory-mapped, and no tensor is built for a row: half a million
    take a second or two. Writing to it leaves the file alone. A dict of separate tensors, as other programs
    write it, is copied into one. Raises `UserError`, which names the file, if it is no embedding file: not
    readable, not a dict of vectors, vectors of different length or type.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such embedding file")
    try:
        return _map(path)
    except Exception:  # there is no end to what a damaged or another program's file brings; `_load` judges it
        return _load(path)


class _Offsets(pickle.Unpickler):
    """Reads the pickle in a file of `torch.save`: for a dict of vectors, key -> where its vector begins.

    `torch.save` writes a zip archive. Its member `data.pkl` is the pickled dict, in which each vector is a call:
    `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`. The numbers are not in there: a
    storage is a reference to another member, `data/0` and so on. `torch.load` makes every call, and needs ten times
    as long as this for the half a million vectors of a collection (docs/benchmarks.md). Here a call returns its
    offset, in float32 values, after it has been seen that all vectors are alike: of one storage, of one length,
    their values side by side.

    An unpickler calls whatever a file names, so this one knows three names, all that vectors need, and none of them
    can do harm. Any other name, as of a tensor of another type or of code that someone wants to run, raises
    `pickle.UnpicklingError` before anything is called.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.seen: tuple[str, tuple[int, ...], tuple[int, ...]] | None = None  # storage, size, stride of all vectors
        self._known: dict[tuple[str, str], Callable[..., object]] = {
            ("torch._utils", "_rebuild_tensor_v2"): self._offset,
            ("torch", "FloatStorage"): float,  # never called: it stands for float32 in what refers to a storage
            ("collections", "OrderedDict"): dict,  # the hooks of each tensor: none
        }

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a dict of vectors")
        return self._known[module, name]

    def persistent_load(self, reference: tuple[str, type, str, str, int]) -> str:
        """The name of the storage that is meant; the rest is its type, its device and how many values it has."""
        _, kind, name, _, _ = reference
        if kind is not float:
            raise pickle.UnpicklingError("a storage that is not float32")
        return name

    def _offset(self, storage: str, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> int:
        if self.seen is None:
            self.seen = storage, size, stride
        if self.seen != (storage, size, stride):
            raise pickle.UnpicklingError("vectors that are not alike")
        return offset


def _map(path: str | os.PathLike[str]) -> tuple[list[str], Tensor]:
    """`read_vectors` for a file made by `write_vectors`; raises some exception where the file is of another form."""
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        top = pickled.removesuffix("data.pkl")
        with archive.open(pickled) as stream:
            unpickler = _Offsets(stream)
            offsets: dict[str, int] = unpickler.load()
        if unpickler.seen is None:
            raise ValueError("no vectors")
        storage, (width,), stride = unpickler.seen
        record = archive.getinfo(f"{top}data/{storage}")
        expected = (
            archive.read(f"{top}byteorder").decode() == sys.byteorder,
            stride == (1,),
            set(map(type, offsets)) == {str},
            list(offsets.values()) == list(range(0, len(offsets) * width, width)),  # the rows of one matrix, in order
            (record.compress_type, record.file_size) == (zipfile.ZIP_STORED, 4 * len(offsets) * width),
        )
        if not all(expected):
            raise ValueError("not one matrix whose rows stand in order under their keys")
        # The content of a member follows a header of 30 bytes, a name and an extra field, whose lengths end the header.
        file.seek(record.header_offset + 26)
        start = record.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    matrix = np.memmap(path, np.float32, mode="c", offset=start, shape=(len(offsets), width))
    return list(offsets), torch.from_numpy(matrix)


def _load(path: str | os.PathLike[str]) -> tuple[list[str], Tensor]:
    """`read_vectors` for any file that `torch.load` opens; the vectors are copied."""
    try:
        vectors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch has no type of its own for a file that is damaged
        if refused := re.search(
            r"Unsupported global: GLOBAL (numpy\S+)", str(error)
        ):  # arrays, or keys that are np.str_
            raise UserError(
                f"{path}: holds {refused[1]}, where text -> float32 tensor is wanted; save it again with torch.save("
                "{str(key): torch.as_tensor(vector) for key, vector in vectors.items()}, path)"
            ) from error
        raise UserError(
            f"{path}: cannot be read as an embedding file: {one_line(error)[:200]}; "
            "if the workflow made it, delete it and run again: no vector that a job remembers is computed again"
        ) from error
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
    return keys, torch.stack(list(vectors.values())) if keys else torch.empty(0, 0)


def merge_vectors(
    parts: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
    embed_dim: int,
    prefix_folder: bool = False,
) -> int:
    """Merge the folders' files `parts` (folder -> path) into one at `path`; returns the number of vectors.

    Keys stay as they are, or become `{folder}/{key}`. Memory: the merged matrix, once. Raises `UserError` on
    a missing folder, a key that two folders share, another dimension than `embed_dim`, a dtype other than
    float32, NaN or Inf.
    """
    missing = [f"{folder} ({part})" for folder, part in parts.items() if not Path(part).exists()]
    if missing:
        raise UserError(f"merge: no embedding file for folder {', '.join(missing)}")
    names, merged = _gather(parts, embed_dim, prefix_folder)
    write_vectors(path, names, merged)
    return len(names)


def merged_key(folder: str, key: str, prefix_folder: bool) -> str:
    """What a folder's clip is called in the merged file."""
    return f"{folder}/{key}" if prefix_folder else key


def _gather(
    parts: Mapping[str, str | os.PathLike[str]], embed_dim: int, prefix_folder: bool
) -> tuple[list[str], Tensor]:
    """The parts' names, sorted, and their vectors [N, embed_dim]."""
    owner: dict[str, str] = {}  # of each name, in the order of the parts
    matrices: list[Tensor] = []
    for folder, part in parts.items():
        keys, matrix = read_vectors(part)
        if keys and matrix.shape[1] != embed_dim:
            raise UserError(f"merge: {part}: vectors of dimension {matrix.shape[1]}, the model's is {embed_dim}")
        for key in keys:
            name = merged_key(folder, key, prefix_folder)
            if name in owner:
                raise UserError(
                    f"merge: folders {owner[name]} and {folder} share the key {name!r}; "
                    "set merge.prefix_folder: true to put the folder's name before every key"
                )
            owner[name] = folder
        matrices.append(matrix.reshape(len(keys), embed_dim))
    names = sorted(owner)
    row = {name: i for i, name in enumerate(names)}
    rows = torch.tensor([row[name] for name in owner], dtype=torch.int64).split([len(matrix) for matrix in matrices])
    merged = torch.empty(len(names), embed_dim)
    for part, where in zip(parts.values(), rows, strict=True):
        matrix = matrices.pop(0)  # let go of each mapping once it is copied
        finite = torch.isfinite(matrix).all(dim=1)
        if not finite.all():
            raise UserError(f"merge: {part}: {names[where[~finite][0]]!r} holds NaN or Inf")
        merged[where] = matrix
    return names, merged
