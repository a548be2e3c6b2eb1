"""A file of weights to what it holds, without running code of the file's; what cannot be opened is one true line."""

import argparse
import os
import pathlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray

from ..core.errors import UserError
from ..core.names import one_line
from . import huggingface, kinds

# What training programs keep beside weights and what does nothing when it is made, with names that earlier versions of
# its packages gave it. Paths become such as never touch a disk.
HARMLESS: list[Any] = [
    *(np.ndarray, np.dtype, multiarray.scalar, multiarray._reconstruct, argparse.Namespace),
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    (multiarray.scalar, "numpy.core.multiarray.scalar"),
    (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    *((kind, f"{kind.__module__}.{kind.__qualname__}") for kind in (pathlib.PurePosixPath, pathlib.PureWindowsPath)),
    *(
        (pure, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name, pure in (("PosixPath", pathlib.PurePosixPath), ("WindowsPath", pathlib.PureWindowsPath))
    ),
]


def opened(path: str | os.PathLike[str], where: str) -> dict[str, object]:
    """What the checkpoint at `path` holds: a dict of state dicts and other values, or one state dict.

    Tensors are memory-mapped. Raises `UserError`, one line that begins with `where`, if there is no file, it cannot be
    opened, is damaged or of another kind, or could only be read by running code that it names.
    """
    if reason := kinds.refusal(path):
        raise UserError(f"{where}: {reason}")
    # torch.load goes by the name: it would take any file called .safetensors for one.
    if huggingface.recognised(path) or Path(path).suffix == ".safetensors":
        return dict(huggingface.tensors(path, where))
    with torch.serialization.safe_globals(HARMLESS):
        try:
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # there is no end to what a damaged file brings
            raise UserError(f"{where}: {_why(path, error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: holds a {type(content).__name__}, not a dict of state dicts")
    return content


def _why(path: str | os.PathLike[str], error: Exception) -> str:
    """Why torch did not load the file; its own words advise to run whatever code the file holds."""
    try:
        code = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # as above: it is too damaged to say what it would run
        code = []
    if code:
        named = ", ".join(one_line(name) for name in code[:3]) + (" and others" if len(code) > 3 else "")
        return f"not loaded: it would run code ({named}); ask who made it for the state dict of the weights alone"
    if isinstance(error, pickle.UnpicklingError):
        return "not a whole checkpoint file (damaged or of another kind): its pickle is not one of weights"
    with open(path, "rb") as file:
        start = file.read(8)
    words = one_line(error)[:160] if start.startswith(b"PK") else f"it begins with {start!r}"
    return f"not a whole checkpoint file (truncated or of another kind): {words}"
