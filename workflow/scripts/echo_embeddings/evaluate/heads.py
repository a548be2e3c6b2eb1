"""The heads of an evaluation, read back from the file that `writing` made."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors import SafetensorError, safe_open

from ..core.errors import UserError
from ..core.names import one_line
from ..core.origin import SHORT
from ..tables.identity import comparable
from .linear import Head
from .tasks import REGRESSION
from .writing import PARTS, digest

Integers = npt.NDArray[np.int64]

LAST, NONE, UNKNOWN = -1, -2, -3  # in the place of a group


@dataclass(frozen=True)
class Fitted:
    """What a file of `writing` holds."""

    task: str
    model: str
    target: str
    classes: list[str] | None  # None for a regression
    fingerprint: str | None  # the short one of the vectors
    not_tested: str | None  # why the evaluation's figures count for nothing
    heads: dict[int | None, Head]  # by the group that each never saw; under `LAST` that for all others
    patients: Integers  # digests, ascending
    groups: Integers  # of each

    @property
    def dim(self) -> int:
        """The length of the vectors."""
        return int(self.heads[LAST].mean.size)

    @property
    def known(self) -> list[int]:
        """The groups whose clips have a head."""
        return [group for group in self.heads if group is not None]

    def group_of(self, subjects: pd.Series) -> Integers:
        """Whose head predicts each of n clips: a group's, `LAST`, or none: `NONE`, or `UNKNOWN` without a patient."""
        places, names = pd.factorize(comparable(subjects))
        found = np.full(len(names) + 1, UNKNOWN, np.int64)  # places of missing ones are -1
        groups = dict(zip(self.patients.tolist(), self.groups.tolist(), strict=True))
        for i, name in enumerate(names):
            group = groups.get(digest(str(name)), LAST)
            found[i] = group if group in self.heads else NONE
        of_clips: Integers = found[places]
        return of_clips


def read(file: Path) -> Fitted:
    """The head in a file. Raises `UserError` if it is none that `writing` made, or damaged."""
    try:
        with safe_open(file, "np") as opened:
            about = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
        return _fitted(about, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else one_line(error)[:200]
        raise UserError(
            f"{file}: no head of an evaluation: {why}; `snakemake evaluate` writes {{model}}.head.safetensors"
        ) from error


def _fitted(about: Mapping[str, str], tensors: Mapping[str, npt.NDArray[Any]]) -> Fitted:
    names = ("task", "model", "target", "kind", "classes", "not_tested", SHORT)
    if missing := [name for name in names if name not in about]:
        raise ValueError(f"it does not say its {missing[0]}")
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", about[name]) for name in ("task", "model")):
        raise ValueError(f"{about['task']!r} or {about['model']!r} cannot be part of a file's name")
    classes = None if about["kind"] == REGRESSION else [str(name) for name in json.loads(about["classes"])]
    found = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("group.")})
    heads: dict[int | None, Head] = {
        group: Head(*(tensors[f"group.{group}.{part}"] for part in PARTS)) for group in found
    }
    heads[LAST] = Head(*(tensors[part] for part in PARTS))
    dim, wide = heads[LAST].mean.size, 1 if classes is None else len(classes)
    for head in heads.values():
        if [getattr(head, part).shape for part in PARTS] != [(dim,), (dim,), (dim, wide), (wide,)]:
            raise ValueError("the shapes of its tensors do not go together")
    if tensors["patients"].shape != tensors["groups"].shape or tensors["patients"].ndim != 1:
        raise ValueError("its patients and their groups do not go together")
    return Fitted(
        task=about["task"],
        model=about["model"],
        target=about["target"],
        classes=classes,
        fingerprint=_said(about[SHORT]),
        not_tested=_said(about["not_tested"]),
        heads=heads,
        patients=tensors["patients"],
        groups=tensors["groups"],
    )


def _said(text: str) -> str | None:
    return None if text == "null" else text
