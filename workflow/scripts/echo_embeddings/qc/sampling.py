"""The clips that one can look at one by one: whole patients, and whatever a page names."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .base import SEED, Bools, Integers
from .tables import UNKNOWN

POINTS = 20_000  # clips at most


@dataclass(frozen=True)
class Drawn:
    """Some of the n finite vectors."""

    places: Integers  # [P], ascending, among the n
    by_patient: Bools  # [P]: drawn with their patient; the others are there because the page names them
    dropped: int  # clips that the page names and that are not among them


def draw(patients: pd.Series, named: Iterable[int], size: int = POINTS) -> Drawn:
    """At most `size` of the n clips of these `patients` [n]: all `named` ones, and whole patients in a seeded order.

    `named` are places among the n, those that matter most first: half of `size` at most. A clip of an unknown patient
    counts as a patient of its own. All of one patient are drawn, so that a patient's clips are found together.
    """
    n = len(patients)
    wanted = list(dict.fromkeys(named))
    forced = np.zeros(n, bool)
    forced[wanted if n <= size else wanted[: size // 2]] = True
    codes = pd.factorize(patients.where(patients != UNKNOWN))[0]
    unknown = codes < 0
    codes[unknown] = codes.max(initial=-1) + 1 + np.arange(unknown.sum())
    rank = np.random.default_rng(SEED).permutation(codes.max(initial=-1) + 1)
    order = np.argsort(rank[codes], kind="stable") if n else np.empty(0, np.intp)
    room = size - int(forced.sum())
    taken = np.zeros(n, bool)
    # Forced clips take no room twice: of each patient in turn the others count.
    taken[order[np.cumsum(~forced[order]) <= room]] = True
    places: Integers = np.flatnonzero(taken | forced)
    return Drawn(places, taken[places], len(wanted) - int(forced.sum()))
