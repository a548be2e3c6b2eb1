"""Weights into a network: every key and shape must fit, or nothing is loaded."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, bfloat16, float16, float32, float64, nn

from ..core.errors import UserError
from .opening import opened

EXACT = (float32, float64)  # dtypes of weights that lose nothing that matters
HALF = (float16, bfloat16)


@dataclass
class Checkpoint:
    """A file of weights, as it is given to the `load` of a family."""

    path: str | os.PathLike[str]
    key: str  # of the state dict in it, `entry` in the registry; empty: it is one state dict
    where: str  # what begins messages about it: model and file
    network: str  # what messages call the network
    tell: Callable[[str], object]  # called with a line for what is to be known and is no mistake
    content: dict[str, object] = field(init=False)  # what the file holds; tensors are memory-mapped

    def __post_init__(self) -> None:
        """Open it. Raises `UserError` if it is missing, broken, or to be read only by running its code."""
        self.content = opened(self.path, self.where)

    @property
    def place(self) -> str:
        """What begins messages about the weights."""
        return f"{self.where}: checkpoint key {self.key!r}" if self.key else self.where

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """The state dict under `key`, by its names in the file. Raises `UserError` if there is none.

        Of names that do not begin with `prefix` nothing is taken; the others lose it.
        """
        found = self.content.get(self.key) if self.key else self.content
        if not isinstance(found, Mapping):
            keys = ", ".join(str(key) for key, value in self.content.items() if isinstance(value, Mapping))
            raise UserError(
                f"{self.where}: no checkpoint key {self.key!r}, which entry names; the file has {keys or 'none'}"
            )
        names = {str(key): value for key, value in found.items()}
        return {key.removeprefix(prefix): value for key, value in names.items() if key.startswith(prefix)}

    def fill(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Load `tensors` into `module`, as float32; counters of batches stay whole numbers.

        Raises `UserError`, one line that names file, key and model, for a tensor that is missing, unknown, of another
        shape or type, or holds NaN or Inf.
        """
        self._compare(module.state_dict(), tensors)
        halves = sorted({str(tensor.dtype) for tensor in tensors.values() if tensor.dtype in HALF})
        if halves:
            self.tell(
                f"{self.where}: weights in half precision ({', '.join(halves)}): vectors differ from those of the "
                "float32 file"
            )
        weights = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
        self._check_finite(weights)
        module.load_state_dict(weights, strict=True, assign=True)

    def _compare(self, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        """Raise `UserError` for the first parameter that is missing, unknown, or of another shape or type."""
        for key in (k for k in wanted if k not in tensors):
            raise UserError(f"{self.place} has no {key!r}, which {self.network} needs")
        for key, value in tensors.items():
            if key not in wanted:
                raise UserError(f"{self.place} has {key!r}, which {self.network} does not know")
            if not isinstance(value, Tensor) or value.shape != wanted[key].shape:
                shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise UserError(f"{self.place}: {key!r} is {shape}, {self.network} has {list(wanted[key].shape)}")
            if not wanted[key].is_floating_point() and value.dtype == wanted[key].dtype:
                continue
            if not value.is_floating_point():
                raise UserError(f"{self.place}: {key!r} is {value.dtype}, not floating-point weights")
            if value.dtype not in (*EXACT, *HALF):
                raise UserError(
                    f"{self.place}: {key!r} is {value.dtype}: weights of 8 bits mean nothing without their scales; "
                    "take the file in float32"
                )

    def _check_finite(self, weights: Mapping[str, Tensor]) -> None:
        """Raise `UserError` for the first parameter that holds NaN or Inf. All weights are read."""
        for key, tensor in weights.items():
            if tensor.sum().isfinite():  # a tenth of the time of a look at each
                continue
            if wrong := int((~tensor.isfinite()).sum()):
                raise UserError(
                    f"{self.place}: {key!r} holds NaN or Inf, {wrong} of {tensor.numel()} values; take a whole file"
                )
