"""What would make figures look better than they are, told in words. What makes them impossible stops the job."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from .clips import ALIKE
from .units import CATEGORIES, NUMBERS, Units

PATIENTS, OF_CLASS = 50, 20  # fewer say nothing


def not_tested(units: Units) -> str | None:
    """Why the figures say nothing, in words; None where they do."""
    tested = np.isin(units.split.group, units.split.tested)
    where = "" if tested.all() else " to test"
    patients = len(np.unique(units.patients[tested]))
    if patients < PATIENTS:
        return f"{patients} patients{where}, fewer than {PATIENTS}"
    if len(np.unique(units.truth[tested])) < 2:
        value = units.classes[int(units.truth[tested][0])] if units.classes else f"{float(units.truth[tested][0]):g}"
        return f"every label{where} is {value}"
    for part, words in ((tested, where), (~tested, " to train with")):
        few = {name: count for name, count in class_patients(units, part).items() if count < OF_CLASS}
        if few and part.any():
            said = ", ".join(f"{name} {count}" for name, count in list(few.items())[:5])
            more = f" and {len(few) - 5} more" if len(few) > 5 else ""
            return f"classes with fewer than {OF_CLASS} patients{words}: {said}{more}"
    return None


def class_patients(units: Units, part: npt.NDArray[np.bool_]) -> dict[str, int]:
    """How many patients each class has in a part of the units."""
    pairs = pd.DataFrame({"class": units.truth[part], "patient": units.patients[part]}).drop_duplicates()
    count = pairs["class"].value_counts()
    return {name: int(count.get(i, 0)) for i, name in enumerate(units.classes or [])}


def told(units: Units, target: str) -> list[str]:
    """What is to be known of labels and split before the figures are believed."""
    said = []
    group, tested = units.split.group, units.split.tested
    side = np.isin(group, tested) if len(tested) == 1 else group
    sides = pd.DataFrame({"alike": units.clips[ALIKE].to_numpy(), "group": side[units.of]})
    across = sides.groupby("alike")["group"].nunique()
    several = across.index[across > 1]
    if len(several):
        clips = int(sides["alike"].isin(several).sum())
        said.append(
            f"{clips:,} clips have a nearly equal one on another side of the split, {len(several):,} groups of them: "
            "what is learned of one is tested on the other (the quality page names them)"
        )
    if target in (*NUMBERS, *CATEGORIES):
        said.append(f"the label is called {target!r}, as what headers say; a probe may read it off the picture")
    for name in (*NUMBERS, *CATEGORIES):
        values = units.headers[name]
        known = values.notna().to_numpy()
        labels = pd.Series(units.truth)
        by_label = values.groupby(labels.to_numpy(), observed=True).nunique()
        by_value = labels.groupby(values.to_numpy(), observed=True).nunique()
        repeated = 2 * len(by_value) <= len(labels)
        if known.all() and repeated and len(by_value) > 1 and by_label.max() == by_value.max() == 1:
            said.append(f"each label goes with one {name} that headers say, and the reverse")
    if units.unlabelled:
        said.append(f"{units.unlabelled:,} clips have no label, and take no part")
    return said
