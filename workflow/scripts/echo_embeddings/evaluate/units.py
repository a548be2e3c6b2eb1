"""A task's labels on a model's clips: which clips take part, which units they make, and what is known of these."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.errors import UserError
from ..core.settings import Tables
from ..tables import join
from ..tables.identity import comparable
from . import splits
from .clips import ALIKE, KEY
from .splits import Split
from .tasks import REGRESSION, Task

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NUMBERS = ("frames", "fps", "rows", "columns", "heart_rate")  # what headers say, as a control
CATEGORIES = ("manufacturer", "kind")
N_CLIPS = "n_clips"
CLASSES = 100  # that a label has at most; more are numbers, or names
MOST_CATEGORIES = 50  # as many values as trees tell apart; rarer ones are one


@dataclass(frozen=True)
class Units:
    """The n units of a task, and their c clips in the order of the merged file."""

    rows: Integers  # [c], ascending: where the clips stand in the merged file
    of: Integers  # [c]: the unit of each
    names: pd.DataFrame  # `key` and `subject_id` of each unit, texts
    truth: npt.NDArray[np.generic]  # [n]: float64 values, or int64 classes
    classes: list[str] | None
    split: Split
    headers: pd.DataFrame  # `NUMBERS`, `CATEGORIES` and `N_CLIPS` of each unit
    clips: pd.DataFrame  # `folder`, `file_path` and `ALIKE` of each clip
    unlabelled: int  # clips that would take part and have no label

    @property
    def patients(self) -> Integers:
        """The patient [n] of each unit, 0 to m - 1."""
        return pd.factorize(self.names["subject_id"])[0].astype(np.int64)

    def mean(self, values: Floats, of: Integers) -> Floats:
        """The mean [n, T] over each unit of values [c, T] that are `of` these units [c]."""
        sums = np.stack([np.bincount(of, column, len(self.names)) for column in values.T], axis=1)
        means: Floats = sums / np.bincount(of, minlength=len(self.names))[:, None]
        return means


def of_task(task: Task, frame: pd.DataFrame, known: Tables, seed: int, folds: int) -> Units:
    """The units of the clips of `frame`, which `clips.write` made. Raises `UserError` if they cannot be evaluated."""
    where = f"config: evaluate.tasks.{task.name}"
    values, joined = join.look_up(task.table, frame, known)
    print(joined, flush=True)
    if joined.error:
        raise UserError(joined.error)
    wanted = join.selected_mask(frame, task.where, f"evaluate.tasks.{task.name}.where")
    texts = values[task.target].astype("string")
    labelled = (texts.notna() & (texts.str.strip() != "")).fillna(False).to_numpy(bool)
    rows = np.flatnonzero(wanted & labelled)
    if not len(rows):
        raise UserError(f"{where}: no clip has a value of {task.target!r}" + (" where it should" if task.where else ""))
    clips, values = frame.iloc[rows], values.iloc[rows]
    _check_known(task, clips, where)
    name = {"path": KEY, "study": "study_id", "patient": "subject_id"}[task.by]
    names = pd.DataFrame({"subject_id": comparable(clips["subject_id"]), "key": clips[name].astype("string")})
    names["same"] = comparable(names["key"])
    # In order of the clips' keys, or of patient and name: what comes of them does not depend on the order of files.
    of = names.groupby(["key"] if task.by == "path" else ["subject_id", "same"], sort=True).ngroup()
    numbers: Integers = np.asarray(of, np.int64)
    first = of.drop_duplicates().sort_values().index
    named = names.loc[first, ["key", "subject_id"]].reset_index(drop=True)
    if named["key"].duplicated().any():  # patients share the names of studies
        named["key"] = named["subject_id"] + "/" + named["key"]
    truth, classes = _truth(task, values.loc[first, task.target], where)
    patients = names.loc[first, "subject_id"].tolist()
    return Units(
        rows=rows,
        of=numbers,
        names=named,
        truth=truth,
        classes=classes,
        split=_split(task, values.loc[first], patients, seed, folds, where),
        headers=_headers(clips, numbers),
        clips=clips[["folder", "file_path", ALIKE]].reset_index(drop=True),
        unlabelled=int((wanted & ~labelled).sum()),
    )


def _check_known(task: Task, clips: pd.DataFrame, where: str) -> None:
    """Raise `UserError` if the patient of a labelled clip is not known, or the study where labels are of studies."""
    for name in ("subject_id", "study_id") if task.by == "study" else ("subject_id",):
        unknown = clips[name].isna().to_numpy()
        if unknown.any():
            what = "patient" if name == "subject_id" else "study"
            raise UserError(
                f"{where}: the {what} of {int(unknown.sum()):,} labelled clips is not known, "
                f"{clips[KEY].iloc[int(unknown.argmax())]!r} among them; say it by layout, or by a table by path with "
                f"the column {name}: a split must not divide patients"
            )


def _truth(task: Task, values: pd.Series, where: str) -> tuple[npt.NDArray[np.generic], list[str] | None]:
    """Values as float64, or classes as numbers and their names in order."""
    if task.kind == REGRESSION:
        numbers = pd.to_numeric(values.astype(object), errors="coerce").astype(np.float64).to_numpy()
        wrong = ~np.isfinite(numbers)
        if wrong.any():
            raise UserError(
                f"{where}: {task.file}: {values.iloc[int(wrong.argmax())]!r} in {task.target!r} is no number, and "
                f"{int(wrong.sum()) - 1:,} others; correct the table, or take kind: classification"
            )
        return numbers, None
    texts = values.astype("string").str.strip().str.replace(r"^(-?\d+)\.0$", r"\1", regex=True)
    classes = sorted(texts.unique())
    if len(classes) > CLASSES:
        raise UserError(f"{where}: {task.target!r} has {len(classes):,} values, more than {CLASSES}; kind: regression?")
    return texts.map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64), classes


def _split(task: Task, values: pd.DataFrame, patients: list[str], seed: int, folds: int, where: str) -> Split:
    if task.split is None:
        return splits.by_hash(patients, seed, folds)
    said = values[task.split].astype("string")
    if said.isna().any():
        raise UserError(f"{where}: {task.file}: {int(said.isna().sum()):,} labels have no {task.split!r}; fill it in")
    return splits.given(said.tolist(), patients, seed, f"{where}: {task.file}: {task.split!r}")


def _headers(clips: pd.DataFrame, of: Integers) -> pd.DataFrame:
    """What headers say of each unit: the mean of numbers, the most frequent of categories, the number of clips."""
    table = pd.DataFrame(
        {name: pd.to_numeric(clips[name], errors="coerce").astype(np.float64).to_numpy() for name in NUMBERS}
    )
    made = table.groupby(of).mean()
    for name in CATEGORIES:
        texts = clips[name].astype("string").fillna("").to_numpy(dtype=object)
        counts = pd.DataFrame({"of": of, "value": texts}).value_counts(sort=False).reset_index()
        most = counts.sort_values(["of", "count", "value"], ascending=[True, False, True]).drop_duplicates("of")
        often = most["value"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
        kept = most["value"].where(most["value"].isin(often.index[: MOST_CATEGORIES - 1]), "other")
        made[name] = pd.Categorical(kept.to_numpy())
    made[N_CLIPS] = np.bincount(of).astype(np.float64)
    return made
