"""Which units an evaluation trains with, chooses by and tests: always whole patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.errors import UserError
from ..tables.identity import fold_of

Integers = npt.NDArray[np.int64]

PARTS = {
    **{"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
}
FOLDS = (3, 20)  # from least to most: of two, one alone is trained with, and there is nothing to choose by
INNER = 5  # groups to choose by, where a split into train and test names none


@dataclass(frozen=True)
class Split:
    """A division of n units into groups."""

    group: Integers  # [n]
    tested: tuple[int, ...]  # the groups that predictions are made of, each by a probe that never saw it
    chosen_by: tuple[int, ...] | None  # the groups that penalties are chosen by; None: all that are trained with
    says: str

    def training(self, tested: int | None) -> tuple[int, ...]:
        """The groups that predict the group `tested`; None: that the last head is fitted to."""
        every = tuple(np.unique(self.group).tolist())
        if self.chosen_by is not None or len(self.tested) == 1:  # what a given split calls its test stays one
            return tuple(one for one in every if one not in self.tested)
        return tuple(one for one in every if one != tested)

    def choosing(self, training: Sequence[int]) -> tuple[int, ...]:
        """Those of the groups `training` that are left out in turn to choose by."""
        return tuple(training) if self.chosen_by is None else self.chosen_by


def by_hash(patients: Sequence[str], seed: int, folds: int) -> Split:
    """Folds of patients [n]. They do not depend on which others there are, and are not stratified.

    Raises `UserError` if all are in one.
    """
    known = {patient: fold_of(patient, seed, folds) for patient in set(patients)}
    group = np.array([known[patient] for patient in patients], np.int64)
    if len(set(known.values())) < 2:
        raise UserError(
            f"all {len(known)} labelled patients fall into one of {folds} folds: there is none to train with; "
            "take more patients, or another seed"
        )
    return Split(
        group,
        tuple(np.unique(group).tolist()),
        None,
        f"{folds} folds of patients, by a hash of patient and seed {seed}; not stratified by label",
    )


def given(values: Sequence[str], patients: Sequence[str], seed: int, where: str) -> Split:
    """The split that a column says of units [n] of `patients` [n]: train, val and test, or numbers of folds.

    Raises `UserError`, which begins with `where`, if it is neither, or has a patient on two sides.
    """
    texts = np.array([value.strip().lower().removesuffix(".0") for value in values])
    _check_patients(texts, patients, where)
    there = sorted(set(texts.tolist()))
    if all(text.isascii() and text.isdecimal() for text in there):
        if not FOLDS[0] <= len(there) <= FOLDS[1]:
            raise UserError(f"{where}: {len(there):,} folds; take {FOLDS[0]} to {FOLDS[1]}")
        group = texts.astype(np.int64)
        return Split(group, tuple(np.unique(group).tolist()), None, f"{len(there)} folds, as the table has them")
    strange = [text for text in there if text not in PARTS]
    parts = np.array([PARTS.get(text, "") for text in texts])
    if strange or not {"train", "test"} <= set(parts.tolist()):
        raise UserError(
            f"{where}: its values are {', '.join(there[:8])}; they must be train, val and test (val may be absent), "
            "or numbers of folds"
        )
    if (parts == "val").any():
        group = np.select([parts == "train", parts == "val"], [0, 1], 2)
        return Split(
            group, (2,), (1,), "train, val and test as the table has them; val chooses, and is trained with then"
        )
    inner = by_hash(patients, seed, INNER).group
    group = np.where(parts == "test", INNER, inner)
    return Split(group, (INNER,), None, "train and test as the table has them; penalties are chosen within train")


def _check_patients(values: npt.NDArray[np.str_], patients: Sequence[str], where: str) -> None:
    seen: dict[str, str] = {}
    for patient, value in zip(patients, values.tolist(), strict=True):
        if seen.setdefault(patient, value) != value:
            raise UserError(
                f"{where}: patient {patient} is in {seen[patient]!r} and in {value!r}: what is learned of a patient "
                "would be tested on the same patient; put each patient on one side"
            )
