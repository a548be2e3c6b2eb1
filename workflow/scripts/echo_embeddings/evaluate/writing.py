"""What an evaluation leaves: numbers, predictions, and the fitted head."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors.numpy import save_file

from ..core.files import atomic_write
from ..core.layout import Layout
from ..core.origin import SHORT
from ..qc.writing import plain
from . import summary
from .linear import Head
from .units import Units

Floats = npt.NDArray[np.float64]

PARTS = ("mean", "scale", "weights", "bias")  # of a head


def write(
    layout: Layout,
    numbers: Mapping[str, Any],
    units: Units,
    values: Floats,
    heads: Mapping[int | None, Head],
    seed: int,
) -> None:
    """Write the predictions and the head of a task and model, and last the `numbers`, which name both."""
    of_both = numbers["task"], numbers["model"]
    with atomic_write(layout.evaluation_predictions(*of_both)) as part:
        _predictions(units, values).to_parquet(part, index=False, compression="zstd")
    with atomic_write(layout.evaluation_head(*of_both)) as part:
        save_file(_tensors(units, heads), part, _about(numbers, seed))
    with atomic_write(layout.evaluation(*of_both)) as part:
        part.write_text(json.dumps(plain(numbers), indent=1, allow_nan=False), encoding="utf-8")


def _predictions(units: Units, values: Floats) -> pd.DataFrame:
    """One row a tested unit."""
    tested = np.flatnonzero(np.isfinite(values).all(axis=1))
    table = units.names.assign(
        fold=units.split.group, truth=summary.truths(units), prediction=summary.predicted(units, values)
    )
    for i, name in enumerate(units.classes or []):
        table[f"p_{name}"] = values[:, i]
    return table.iloc[tested]


def _tensors(units: Units, heads: Mapping[int | None, Head]) -> dict[str, npt.NDArray[Any]]:
    """The last head, those of the tested groups, and whose head is whose: patients stand there as `digest`."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    for group, head in heads.items():
        prefix = "" if group is None else f"group.{group}."
        tensors |= {prefix + name: np.ascontiguousarray(getattr(head, name)) for name in PARTS}
    whose = pd.DataFrame({"patient": units.names["subject_id"], "group": units.split.group}).drop_duplicates("patient")
    digests = np.array([digest(patient) for patient in whose["patient"]], np.int64)
    order = np.argsort(digests)
    return tensors | {"patients": digests[order], "groups": whose["group"].to_numpy(np.int64)[order]}


def digest(patient: str) -> int:
    """63 bits of a patient's SHA-256. It hides nobody from who can guess identifiers."""
    return int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") >> 1


def _about(numbers: Mapping[str, Any], seed: int) -> dict[str, str]:
    """The head's own account of itself, as texts."""
    names = ("task", "model", "kind", "by", "target", "classes", "split", "not_tested")
    about = {name: numbers[name] for name in names} | {"seed": seed, SHORT: numbers["vectors"].get(SHORT)}
    about["features"] = "embedding, all values in order; standardised by mean and scale, then weights and bias"
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
