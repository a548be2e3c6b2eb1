"""A file of weights to what it holds, without running code of the file's; what cannot be opened is one true line."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from ..core.errors import UserError
from ..core.names import one_line
from . import huggingface, kinds


class Unread:
    """Stands for what a training program kept beside weights: it takes whatever the file says, and keeps nothing.

    NumPy's own classes are not safe to make of a stranger's file: a forged dtype makes NumPy follow its pointers.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


# By the names that files have for them, those of earlier versions of the packages too.
HARMLESS: list[Any] = [
    (Unread, name)
    for name in (
        *("numpy.ndarray", "numpy.dtype", "argparse.Namespace"),
        *(f"numpy.{core}.multiarray.{name}" for core in ("_core", "core") for name in ("scalar", "_reconstruct")),
        *(
            f"{module}.{kind}Path"
            for module in ("pathlib", "pathlib._local")
            for kind in ("PurePosix", "PureWindows", "Posix", "Windows")
        ),
    )
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
