"""One file, one call: a DICOM or a video to its vector, by the workflow's own conversion, sampling and encoder.

Nothing below results/ is read or written. A DICOM goes through an MP4 in the directory for temporary files, which is
deleted unless the process is killed: the vector depends on what the codec does to the pixels. Models whose names end
with `-direct` are fed with the frames of the DICOM themselves.
"""

import contextlib
import copy
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..collection.kinds import VIDEOS, is_video, mp4_name
from ..convert.folder import convert_file, read_row
from ..convert.probe import probe_file
from ..core import configuration, registry, settings
from ..core.errors import UserError
from ..core.manifest import SKIPPED, Row
from ..core.names import encode_name, one_line
from ..core.settings import ConvertSettings, Model
from ..core.workers import Failure
from ..encoders import kinds
from ..encoders.checkpoint import load as load_encoder
from . import inference, sampling
from .direct import DicomReader
from .reader import Reader

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
Configuration = str | os.PathLike[str] | Mapping[str, Any]

DICOM, VIDEO = "clip.dcm", "clip"  # what a file is called in its row, whatever its own name is
CLIP = f"a clip is a DICOM of several frames, or a video whose name ends with {', '.join(VIDEOS)}"


@dataclass(frozen=True)
class Embedded:
    """The vector of one file, and what it was made of."""

    vector: Tensor  # float32 [embed_dim], in main memory
    frames: int  # of the clip
    indices: NDArray[np.int64]  # of the frames that were shown, [clips_per_video, num_frames]; fewer where zeros follow
    seconds: float  # from the file to the vector


class Embedder:
    """A model whose encoder is kept between calls; `load_model` makes it."""

    def __init__(
        self, model: Model, checkpoint: Path, convert: ConvertSettings, encoder: nn.Module, device: torch.device
    ) -> None:
        """`encoder` lies on `device` in the model's precision; its weights came from `checkpoint`."""
        self.model, self.checkpoint, self.device = model, checkpoint, device
        self._convert, self._encoder = convert, encoder

    def embed(self, paths: Paths) -> Tensor:
        """The vector of one file, float32 [embed_dim]; of N files a matrix, float32 [N, embed_dim], in their order.

        The tensor lies in main memory. A name that ends with .mp4, .avi, .mov, .mkv or .webm is a video's; any other
        file is to be a DICOM. Files are embedded one after the other. Raises `UserError`, one line that names the file,
        for the first that has no vector: it is missing, damaged or no clip (a still, for example). Raises `OSError` if
        the disk of temporary files is full.
        """
        if isinstance(paths, str | os.PathLike):
            return self.embed_one(paths).vector
        vectors = [self.embed_one(path).vector for path in paths]
        return torch.stack(vectors) if vectors else torch.empty(0, self.model.embed_dim, dtype=torch.float32)

    def embed_one(self, path: str | os.PathLike[str]) -> Embedded:
        """The vector of one file, with the frames that it was made of; otherwise as `embed`."""
        started = time.monotonic()
        row, frames = self._read(os.fspath(path))
        vector = self._forward(torch.from_numpy(frames))
        if not vector.isfinite().all():
            raise UserError(
                f"{path}: the encoder gave NaN or Inf; take embed.precision: fp32, or look at the checkpoint"
            )
        count = row.frames or 0
        recipe = self.model.recipe
        indices = sampling.sample(count, self.model.num_frames, recipe, sampling.rate_of(row, recipe))
        return Embedded(vector, count, indices, time.monotonic() - started)

    def _read(self, path: str) -> tuple[Row, NDArray[np.uint8]]:
        """The file's row, and what the encoder sees of it. Raises `UserError`; `OSError` if no MP4 can be written."""
        if not os.path.exists(path):
            raise UserError(f"{path}: no such file")
        if not os.path.isfile(path):  # a reader would wait for a pipe's writer
            raise UserError(f"{path}: no clip: not a regular file; {CLIP}")
        top, name = os.path.split(path)
        try:
            if reason := settings.unfit(self.model.name, self.model.recipe, is_video(path)):
                raise UserError(f"{path}: {reason}")
            if self.model.recipe.source == "dicom":
                row = read_row(path, encode_name(name), self._convert.modalities)
                return self._frames(path, row, DicomReader, Path(top))
            with tempfile.TemporaryDirectory() as directory:
                if is_video(path):
                    plain = VIDEO + os.path.splitext(path)[1]  # the workflow refuses names that are no keys
                    os.symlink(os.path.realpath(path), os.path.join(directory, plain))
                    return self._frames(path, probe_file(directory, plain), Reader, Path(directory))
                row = convert_file(path, DICOM, Path(directory, mp4_name(DICOM)), self._convert)
                return self._frames(path, row, Reader, Path(directory))
        except (UserError, OSError):
            raise
        except Exception as error:  # as in the workflow: there is no end to what a damaged file brings
            raise UserError(f"{path}: cannot be read: {type(error).__name__}: {one_line(error)[:200]}") from error

    def _frames(self, path: str, row: Row, reader: type[Reader], tree: Path) -> tuple[Row, NDArray[np.uint8]]:
        """The row, and what the encoder sees of its file, by a `reader` of `tree`; `path` is for messages."""
        if row.status == SKIPPED:
            raise UserError(f"{path}: no clip: {row.reason}; {CLIP}")
        if not row.is_clip:
            raise UserError(f"{path}: {row.reason}; look at the file, or take a whole copy of it")
        frames = reader(tree, self.model.num_frames, self.model.recipe, self.model.resolution).read(row)
        if isinstance(frames, Failure):
            raise UserError(
                f"{path}: cannot be shown as recipe {self.model.recipe.name} asks: {frames}; look at the file"
            )
        return row, frames

    def _forward(self, frames: Tensor) -> Tensor:
        """The vector, float32 [embed_dim] in main memory, of uint8 frames [T, height, width, 3]."""
        model = self.model
        dtype = inference.DTYPES[model.precision]
        with _in_memory(model.name, self.device):
            clips = [frames.to(self.device)]
            pooled = inference.forward(self._encoder, clips, model.resolution, dtype, recipe=model.recipe)
        # A copy that torch lets its owner train with, which the result of inference mode is not.
        return pooled.vectors[0].cpu().clone()


def load_model(
    name: str,
    *,
    device: str | None = None,
    config: Configuration | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Embedder:
    """Load a model of the registry, to embed files with it: `load_model("vitl").embed("clip.dcm")`.

    `load_model("vitl-direct")` is the same encoder, fed with the frames of the DICOM and not with those of its MP4.
    Only the sampled frames are decoded, and there is no error of a codec. Do not mix its vectors with those of "vitl".

    `device` is "cuda", which is torch's current GPU whoever else uses it, or "cpu"; by default "cuda" where torch sees
    a GPU and "cpu" where it does not, and the result's `device` says which. `config` is a configuration file of the
    workflow, or a nested dict, which is then all of it; by default the configuration of a run in the current directory.
    It says what decides a vector (the registry, `convert`, `embed.num_frames`, `embed.precision`) and where the
    checkpoint is; `checkpoint` names that file directly. Nothing is downloaded.

    Raises `UserError`, one line that says what to do, if the configuration is wrong, it has no such model, the
    checkpoint is missing or does not fit, or torch sees no GPU for "cuda".
    """
    keys = _keys(config)
    models = configuration.check(keys, data=False)
    if name not in models:
        raise UserError(f"model {registry.unknown(name, models, registry.path(keys['models_file']))}")
    path = registry.place(keys, models[name]) if checkpoint is None else Path(checkpoint)
    if kinds.absent(path):
        raise UserError(
            f"model {name}: no checkpoint {path}; get it ({registry.origin(models[name])}), "
            "or say where it is: weights_dir, checkpoints or the option checkpoint"
        )
    place = _device(device)
    model = settings.model(keys, models, name)
    encoder = load_encoder(path, model)
    with _in_memory(name, place):
        encoder.to(place, inference.DTYPES[model.precision])
    return Embedder(model, path, settings.convert_settings(keys, model.resolution), encoder, place)


def embed_file(
    paths: Paths,
    model: str,
    *,
    device: str | None = None,
    config: Configuration | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Tensor:
    """The vector of a DICOM or a video, float32 [embed_dim]; of a list of N a matrix, float32 [N, embed_dim].

    It is the vector that the workflow makes of the file, to rounding (1e-6 in float32 on one device). `model` is a name
    of the registry; the rest is as for `load_model`, and what is raised as for it and for `Embedder.embed`. Each call
    loads the encoder: for call after call, keep what `load_model` returns.
    """
    return load_model(model, device=device, config=config, checkpoint=checkpoint).embed(paths)


def _keys(config: Configuration | None) -> dict[str, Any]:
    """The configuration as a dict of its own, not checked yet."""
    if isinstance(config, Mapping):
        return copy.deepcopy(dict(config))
    return configuration.read(".", *([os.fspath(config)] if config is not None else []))


@contextlib.contextmanager
def _in_memory(model: str, device: torch.device) -> Iterator[None]:
    """Raise `UserError` where what the block does with a model has no room in the memory of its device."""
    try:
        yield
    except RuntimeError as error:
        if not inference.is_out_of_memory(error):
            raise
        raise UserError(
            f"model {model}: no room in the memory of {device}: {one_line(error)[:200]}; take embed.precision: bf16 "
            "or another device, or see who else uses this one"
        ) from error


def _device(device: str | None) -> torch.device:
    if device not in (None, "cuda", "cpu"):
        raise UserError(f"device {device!r}: take 'cuda' or 'cpu'")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda': torch sees no GPU here; take 'cpu'")
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
