"""timm and torchvision, which come with `pip install .[encoders]`: only some families need them."""

import importlib
from types import ModuleType

import torch
from torch import library

from ..core.errors import UserError

_OPERATORS = library.Library("torchvision", "FRAGMENT")


def package(name: str) -> ModuleType:
    """torchvision or timm, or a module of theirs. Raises `UserError` where it is not installed, or not for this torch.

    PyPI's torchvision is built for CUDA. Beside a torch that is not, its compiled operators cannot be loaded, and it
    stops while it is imported, when it describes two of them to torch. No encoder here has any of them: so they are
    declared, without code, and it is imported again.
    """
    try:
        torchvision()
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name} is not installed, which this family of encoders needs: make encoders, or pip "
            "install -r requirements/encoders.txt (docs/encoders.md)"
        ) from error
    except (ImportError, RuntimeError) as error:
        raise UserError(f"{name} cannot be imported beside torch {torch.__version__}: {error}") from error


def torchvision() -> None:
    """Import torchvision, as `package` says. Raises `ModuleNotFoundError`, or what it raises itself."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        for operator in ("nms", "qnms"):
            _OPERATORS.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
