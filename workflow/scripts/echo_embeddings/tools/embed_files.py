"""What `echo-embeddings embed` does: single files to vectors, and how each was made."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ..core.files import atomic_write
from ..core.names import one_line
from ..embed.one_file import Embedded, Embedder
from ..encoders import contract


def embed_files(model: Embedder, files: Sequence[Path], out: Path | None) -> Iterator[str]:
    """Embed N files one after the other; yields, line by line, what is to be said.

    `out` becomes a file of numpy: float32 [embed_dim] for one file, [N, embed_dim] for several, in their order.
    """
    recipe = model.model.recipe
    gpu = f" ({torch.cuda.get_device_name(model.device)})" if model.device.type == "cuda" else ""
    yield f"model {model.model.name} on {model.device}{gpu}, {model.model.precision}, {model.checkpoint}"
    yield f"recipe {recipe.name}, mask {recipe.mask}: {contract.says(model.model)}"
    vectors = []
    with contextlib.ExitStack() as stack:
        if out:  # tried before the work
            file = stack.enter_context(stack.enter_context(atomic_write(out)).open("wb"))
        for path in files:
            made = model.embed_one(path)
            yield f"{one_line(path)}: {_says(made)}"
            vectors.append(made.vector.numpy())
        if out:
            matrix = np.stack(vectors) if len(vectors) > 1 else vectors[0]
            np.save(file, matrix)
    if out:
        yield f"{one_line(out)}: {matrix.dtype} {list(matrix.shape)}"


def _says(made: Embedded) -> str:
    """The vector's size, and the frames that it was made of; those of each part of the video stand together."""
    shown = " | ".join(" ".join(map(str, part)) for part in made.indices.tolist())
    vector = f"float32 {list(made.vector.shape)}, norm {made.vector.norm():.4g}"
    return f"{vector}, in {made.seconds:.1f} s, from frames {shown} of {made.frames}"
