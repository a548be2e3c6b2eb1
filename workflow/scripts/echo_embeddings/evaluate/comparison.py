"""Models compared on one task: differences of their figures on the same patients, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd

from ..core.errors import UserError
from ..core.names import one_line
from ..qc.base import SAMPLE, count, sample
from . import metrics
from .intervals import Floats, Interval, intervals
from .outcome import Outcome
from .tasks import REGRESSION


@dataclass(frozen=True)
class Comparison:
    """The differences of each two models on units that all of them predict."""

    shared: int = 0  # units that all of them predict
    units: int = 0  # of these compared: all, or a seeded sample
    patients: int = 0
    differences: dict[tuple[str, str], dict[str, Interval]] = field(default_factory=dict)  # of a pair, the first's less
    why_not: str = ""  # why there are none


def compare(outcomes: Sequence[Outcome], number: int, seed: int) -> Comparison:
    """Compare the models of one task that are tested, from `number` samples of patients drawn with `seed`.

    All figures are taken of the units that all these models predict, so that differences add up; of more than `SAMPLE`
    of them so many are drawn, because each class of each model is ranked once for a sample of patients. Raises
    `UserError` if a table of predictions cannot be read, or two have different truths of one unit.
    """
    tested = [outcome for outcome in outcomes if not outcome.not_tested]
    if len(tested) < 2:
        return Comparison(why_not="fewer than two models are tested")
    if len({tuple(outcome.classes) for outcome in tested}) > 1:
        return Comparison(why_not="the models were tested on different classes")
    tables = {outcome.model: _read(outcome) for outcome in tested}
    shared = sorted(set.intersection(*(set(table.index) for table in tables.values())))
    if not shared:
        return Comparison(why_not="no unit is predicted by all models")
    chosen = [shared[i] for i in sample(len(shared), SAMPLE)]
    tables = {model: table.loc[chosen] for model, table in tables.items()}
    first, *others = tested
    truth = tables[first.model]["truth"]
    for other in others:
        if len(apart := truth.index[truth.to_numpy() != tables[other.model]["truth"].to_numpy()]):
            raise UserError(
                f"{other.predictions}: another truth of {count(len(apart), 'unit')} than in {first.predictions}; "
                "delete both and run again"
            )
    patients, _ = pd.factorize(tables[first.model]["subject_id"])

    def figures(weights: Floats) -> dict[tuple[str, str, str], Floats]:
        of = {outcome.model: _figures(outcome, tables[outcome.model], weights) for outcome in tested}
        return {(a, b, name): of[a][name] - of[b][name] for a, b in combinations(of, 2) for name in of[a]}

    differences: dict[tuple[str, str], dict[str, Interval]] = {}
    noise = {outcome.model: outcome.probes[0].noise for outcome in tested}

    def of_both(key: tuple[str, str, str]) -> float:
        return max(noise[model] for model in key[:2])

    for (a, b, figure), found in intervals(figures, patients.astype(np.int64), number, seed, of_both).items():
        differences.setdefault((a, b), {})[figure] = found
    return Comparison(len(shared), len(chosen), int(patients.max()) + 1, differences)


def _read(outcome: Outcome) -> pd.DataFrame:
    """The predictions by key: columns `subject_id`, `truth`, and `prediction` or the classes' probabilities."""
    path = outcome.predictions
    values = ["prediction"] if outcome.kind == REGRESSION else _probabilities(outcome)
    try:
        table = pd.read_parquet(path, columns=["key", "subject_id", "truth", *values])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: no table of predictions: {one_line(error)}; delete it and run again") from error
    if table["key"].duplicated().any():
        raise UserError(f"{path}: no table of predictions: two of one key; delete it and run again")
    if outcome.kind != REGRESSION and (strange := sorted({*table["truth"].astype(str)} - {*outcome.classes})):
        raise UserError(f"{path}: {strange[0]!r} is no class of {outcome.path}; delete both and run again")
    return table.set_index("key")


def _probabilities(outcome: Outcome) -> list[str]:
    return [f"p_{name}" for name in outcome.classes]


def _figures(outcome: Outcome, table: pd.DataFrame, weights: Floats) -> Mapping[str, Floats]:
    """The figures of a model's predictions under weights [B, n]."""
    if outcome.kind == REGRESSION:
        truth, predicted = (table[name].to_numpy(np.float64) for name in ("truth", "prediction"))
        return metrics.regression(truth, predicted, weights)
    classes = {name: number for number, name in enumerate(outcome.classes)}
    truths = np.array([classes[name] for name in table["truth"].astype(str)], np.int64)
    return metrics.classification(truths, table[_probabilities(outcome)].to_numpy(np.float64), weights)
