"""An encoder in a Python file of one's own, which the registry entry names as `module`.

The file has `build(entry)`, and `load(module, checkpoint)` unless its checkpoint is the network's state dict; see
`contract`. Its SHA-256 is in the model's fingerprint; what the file imports is not.
"""

import importlib.util
import sys
from types import ModuleType

from torch import Tensor, nn

from ..core.errors import UserError
from ..core.names import one_line
from ..core.settings import Model
from .loading import Checkpoint


class Checked(nn.Module):
    """Another's network, whose output is looked at."""

    def __init__(self, network: nn.Module, code: ModuleType, entry: Model) -> None:
        super().__init__()
        self.network, self.code, self.entry = network, code, entry

    def forward(self, video: Tensor) -> Tensor:
        """Video [B, 3, T, H, W] to tokens [B, N, embed_dim] or vectors [B, embed_dim], or `UserError`."""
        made = self.network(video)
        shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        dim = self.entry.embed_dim
        if not isinstance(made, Tensor) or made.dim() not in (2, 3) or (shape[0], shape[-1]) != (len(video), dim):
            raise UserError(
                f"model {self.entry.name}: {self.entry.module} makes {shape} of {tuple(video.shape)}; it is to be "
                f"tokens ({len(video)}, N, {dim}) or vectors ({len(video)}, {dim}): the registry's embed_dim is {dim}"
            )
        return made


def build(entry: Model) -> nn.Module:
    """What the file's `build` makes of the entry."""
    code = _imported(entry)
    network = code.build(entry) if callable(getattr(code, "build", None)) else None
    if not isinstance(network, nn.Module):
        raise UserError(f"model {entry.name}: {entry.module} has no build(entry) that returns a torch.nn.Module")
    return Checked(network, code, entry)


def load(module: nn.Module, checkpoint: Checkpoint) -> None:
    """By the file's `load`, or as one state dict."""
    assert isinstance(module, Checked)
    if hasattr(module.code, "load"):
        module.code.load(module.network, checkpoint)
    else:
        checkpoint.fill(module.network, checkpoint.tensors())


def _imported(entry: Model) -> ModuleType:
    """The file, run. Raises `UserError` for whatever it raises."""
    name = f"encoder_of_{entry.code}"
    spec = importlib.util.spec_from_file_location(name, str(entry.module))
    if spec is None or spec.loader is None:
        raise UserError(f"model {entry.name}: {entry.module} is no Python file: its name does not end with .py")
    code = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look it up by its name
    try:
        spec.loader.exec_module(code)
    except Exception as error:  # it is another's code
        raise UserError(
            f"model {entry.name}: {entry.module} cannot be imported: {type(error).__name__}: {one_line(error)[:200]}"
        ) from error
    return code
