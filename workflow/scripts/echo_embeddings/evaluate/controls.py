"""What any probe has to beat: predictions that do not see the vectors, or not the labels."""

import numpy as np
import numpy.typing as npt

from .splits import Split

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

METADATA = "metadata"  # the control that knows nothing but the clips' headers, of `probes.trees`


def constant(targets: Floats, split: Split) -> Floats:
    """Of each unit [n] the mean of the targets [n, T] that its probe is trained with; NaN if it is not tested."""
    made = np.full(targets.shape, np.nan)
    for tested in split.tested:
        made[split.group == tested] = targets[np.isin(split.group, split.training(tested))].mean(axis=0)
    return made


def shuffled(truth: npt.NDArray[np.generic], patients: Integers, seed: int) -> npt.NDArray[np.generic]:
    """Labels [n] given to other patients: each patient gets all of one other's, in turn where there are fewer."""
    order = np.argsort(patients, kind="stable")
    starts = np.flatnonzero(np.diff(patients[order], prepend=-1))
    own = np.split(order, starts[1:])
    made = truth.copy()
    for mine, theirs in zip(own, np.random.default_rng(seed).permutation(len(own)), strict=True):
        made[mine] = truth[np.resize(own[theirs], len(mine))]
    return made
