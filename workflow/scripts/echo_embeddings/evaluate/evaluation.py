"""One task on one model's vectors: probes, controls, and what comes of them."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from ..core import origin
from ..core.errors import UserError
from ..core.layout import Layout
from ..core.settings import EVALUATE_VERSION, Tables
from ..core.vectors import read_vectors
from ..qc.base import Vectors, sample
from . import leaks, metrics, predictions, summary, writing
from .controls import METADATA
from .intervals import Interval, intervals
from .predictions import Options, Predictions
from .probes import SAMPLE
from .tasks import Task
from .units import Units, of_task

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Figures = dict[tuple[str, str], Floats]  # by probe or control, and name

AGAINST = "against_metadata"


def evaluate(task: Task, model: str, known: Tables, options: Options, layout: Layout) -> dict[str, Any]:
    """Evaluate what `layout` has of the model, and write the files of `writing`; the numbers are returned.

    Raises `UserError` if labels, split or files are not what they must be.
    """
    with threadpool_limits(1):  # a job for each core: threads would wait for each other's
        return _evaluate(task, model, known, options, layout)


def _evaluate(task: Task, model: str, known: Tables, options: Options, layout: Layout) -> dict[str, Any]:
    started = time.monotonic()

    def say(words: str) -> None:
        print(f"{task.name}, {model}: {words} ({time.monotonic() - started:.0f} s)", flush=True)

    clips, merged = layout.evaluated_clips(model), layout.merged(model)
    frame = pd.read_parquet(clips, dtype_backend="numpy_nullable")
    keys, tensor = read_vectors(merged)
    if len(keys) != len(frame):
        raise UserError(f"{clips}: {len(frame):,} clips, and {merged} has {len(keys):,} vectors; delete it, run again")
    units = of_task(task, frame, known, options.seed, options.folds)
    say(f"{len(units.rows):,} clips, {len(units.names):,} units, {units.split.says}")
    vectors = Vectors(tensor.numpy(), units.rows)
    found, baselines = predictions.of_task(task, units, vectors, options, say)
    main = next(iter(found.values()))
    measured = _measured(units, found | baselines, options)
    reason, beyond = leaks.not_tested(units), measured.pop(AGAINST)
    counts = metrics.OF_KIND[task.kind][0]
    constant = measured[next(iter(baselines))]["figures"][counts].value
    # Headers may be far worse than what knows nothing, which a model has to beat too.
    ends = [beyond[counts].low if beyond else np.nan, measured[next(iter(found))]["figures"][counts].low - constant]
    numbers = {
        "task": task.name,
        "model": model,
        **{name: getattr(task, name) for name in ("kind", "by", "target")},
        "table": task.file,
        "classes": units.classes,
        "counts": summary.counts(units),
        "split": units.split.says,
        "not_tested": reason,
        "told": leaks.told(units, task.target),
        "probes": {name: measured[name] for name in found},
        "controls": {name: measured[name] for name in baselines},
        AGAINST: beyond,
        "beats_metadata": bool(min(ends) > 0) if reason is None and np.isfinite(ends).all() else None,
        "shots": _shots(task, units, vectors, options),
        **summary.of(units, main.values),
        "vectors": origin.beside(merged),
        "seconds": time.monotonic() - started,
        "version": EVALUATE_VERSION,
    }
    writing.write(layout, numbers, units, main.values, main.heads, options.seed)
    say("done")
    return numbers


def _measured(units: Units, found: Mapping[str, Predictions], options: Options) -> dict[str, dict[str, Any]]:
    """Of each of the predictions, what JSON says: among that the figures with their intervals.

    Of more units than `probes.SAMPLE` so many are drawn for the ends of the intervals, which are a little wider then.
    And under `AGAINST` how much larger those of the first are than those of `METADATA`, of the same units.
    """
    tested = {name: np.flatnonzero(np.isfinite(one.values).all(axis=1)) for name, one in found.items()}
    first = next(iter(found))
    made: dict[str, dict[str, Interval]] = {}
    for at in {one.tobytes(): one for one in tested.values()}.values():
        here = [name for name in found if np.array_equal(tested[name], at)]
        chosen = at[sample(len(at), SAMPLE, options.seed)]

        def figures(
            weights: Floats, at: Integers = chosen, here: Sequence[str] = here
        ) -> dict[tuple[str, str], Floats]:
            each = {name: summary.figures(units, found[name].values, at, weights) for name in here}
            if {first, METADATA} <= each.keys():
                each[AGAINST] = {name: each[first][name] - each[METADATA][name] for name in each[first]}
            return {(name, figure): values for name, own in each.items() for figure, values in own.items()}

        patients = pd.factorize(units.patients[chosen])[0].astype(np.int64)

        def noise(key: tuple[str, str]) -> float:
            return found[first if key[0] == AGAINST else key[0]].noise

        found_here = intervals(figures, patients, options.bootstrap, options.seed, noise)
        if len(chosen) < len(at):
            of_all = figures(np.ones((1, len(at))), at)
            found_here = {key: one.moved(float(of_all[key][0])) for key, one in found_here.items()}
        for (whose, figure), interval in found_here.items():
            made.setdefault(whose, {})[figure] = interval
    said = {
        name: {
            **{"says": one.says, "units": len(tested[name])},
            **{"patients": len(np.unique(units.patients[tested[name]])), "chosen": one.chosen},
            **{"noise": one.noise, "figures": made[name]},
        }
        for name, one in found.items()
    }
    return said | {AGAINST: made.get(AGAINST, {})}


def _shots(task: Task, units: Units, clips: Vectors, options: Options) -> list[dict[str, Any]]:
    """The learning curve."""
    found = predictions.few(task, units, clips, options)
    if not found:
        return []
    measured = _measured(units, {f"{count}": one for count, one in found.items()}, options)
    return [{"patients": count, "figures": measured[f"{count}"]["figures"]} for count in found]
