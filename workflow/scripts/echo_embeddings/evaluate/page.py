"""The pages of what vectors can predict: one that sets all tasks and models side by side, and one a task."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..qc.base import Naming, count, hashed
from ..qc.base import plain as as_it_is
from ..qc.tables import FolderFiles
from ..qc.writing import link, plain, write_page, write_pair
from . import drawings, gallery, words
from .comparison import Comparison, compare
from .outcome import Outcome, read
from .tasks import REGRESSION

Folders = Mapping[str, FolderFiles]


@dataclass(frozen=True)
class Options:
    """What the pages show, and how models are compared."""

    pictures: bool
    hash_names: bool
    prefix_folder: bool  # whether keys begin with the folder's name
    bootstrap: int  # samples of patients
    seed: int


@dataclass(frozen=True)
class Class:
    """A class of a task, and how well it is found."""

    name: str
    units: int
    patients: int | None
    recall: float  # the share of its units that are said to be of it
    precision: float  # the share of those said to be of it that are


@dataclass(frozen=True)
class Drawn:
    """What the page of a task shows of a model besides its figures."""

    pictures: Mapping[str, str]
    classes: list[Class]
    worst: list[gallery.Shown]


def write_pages(
    results: Mapping[str, Mapping[str, Path]], output: Path, folders: Mapping[str, Folders], options: Options
) -> None:
    """Write the page of all tasks to `output`, its numbers to a `.json` file beside it, and a page for each task.

    `results` are the JSON files of each task and model, with the tables of predictions beside them; `folders` is what
    each model's folders left behind, for pictures. The page of a task is `{task}/index.html` beside `output`. Raises
    `UserError` if a file is missing or not what it should be.
    """
    tasks = {task: [read(path) for path in models.values()] for task, models in results.items()}
    naming: Naming = hashed if options.hash_names else as_it_is
    clips = _clips(tasks, folders, options) if options.pictures else {}
    compared = {}
    for task, outcomes in tasks.items():
        compared[task] = compare(outcomes, options.bootstrap, options.seed)
        page = output.parent / task / "index.html"
        write_page(
            page,
            "task.html.j2",
            **_common(options),
            task=task,
            outcomes=outcomes,
            comparison=compared[task],
            told=_shared({o.model: o.told for o in outcomes}),
            splits=_shared({o.model: [o.split] for o in outcomes}),
            drawn={o.model: _drawn(o, clips.get(o.model), folders.get(o.model, {}), naming) for o in outcomes},
            numbers={o.model: link(o.path, page) for o in outcomes},
            index=link(output, page),
        )
        print(
            f"{task}: {count(len(outcomes), 'model')}, {len(compared[task].differences):,} pairs compared", flush=True
        )
    models = list(dict.fromkeys(o.model for outcomes in tasks.values() for o in outcomes))
    write_pair(
        output,
        _numbers(tasks, compared),
        "tasks.html.j2",
        **_common(options),
        models=models,
        tasks=tasks,
        by_model={task: {o.model: o for o in outcomes} for task, outcomes in tasks.items()},
        compared=compared,
        pages={task: link(output.parent / task / "index.html", output) for task in tasks},
    )


def _common(options: Options) -> dict[str, Any]:
    """What both templates are given."""
    said: tuple[Callable[..., Any], ...] = (
        *(words.verdict, words.within_controls, words.called, words.figure, words.span, words.with_interval),
        words.units,
    )
    return {"options": options, "figure_names": words.FIGURES, **{function.__name__: function for function in said}}


def _clips(
    tasks: Mapping[str, Sequence[Outcome]], folders: Mapping[str, Folders], options: Options
) -> dict[str, pd.DataFrame]:
    """The clips that are shown of each model: a manifest is read once for all tasks."""
    every = [outcome for outcomes in tasks.values() for outcome in outcomes]
    return {
        model: gallery.clips_of((o for o in every if o.model == model), of, options.prefix_folder)
        for model, of in folders.items()
    }


def _shared(sentences: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The models of each sentence; none where it is of all."""
    found: dict[str, list[str]] = {}
    for model, said in sentences.items():
        for sentence in said:
            found.setdefault(sentence, []).append(model)
    return {sentence: [] if len(of) == len(sentences) else of for sentence, of in found.items()}


def _drawn(o: Outcome, clips: pd.DataFrame | None, folders: Folders, naming: Naming) -> Drawn:
    pictures = {}
    if o.scatter:
        pictures["scatter"] = drawings.scatter(o.scatter, o.target)
    if o.confusion:
        pictures["confusion"] = drawings.confusion(o.confusion, o.classes)
    if o.calibration:
        labels = (
            ("mean prediction of a tenth of units", "mean truth")
            if o.kind == REGRESSION
            else ("probability of the predicted class", "share that is of this class")
        )
        pictures["calibration"] = drawings.calibration(o.calibration, *labels)
    if o.shots:
        name = o.names[0]
        curve = [(patients, figures[name]) for patients, figures in o.shots]
        pictures["shots"] = drawings.learning_curve(curve, o.probes[0].figures[name].value, words.FIGURES[name])
    return Drawn(pictures, _classes(o), gallery.shown(o, clips, folders, naming))


def _classes(o: Outcome) -> list[Class]:
    if not o.confusion:
        return []
    counts = np.array(o.confusion, dtype=float)
    with np.errstate(invalid="ignore"):
        recall, precision = (counts.diagonal() / counts.sum(axis=axis) for axis in (1, 0))
    patients = {name: of["patients"] for name, of in (o.counts.of_class or {}).items()}
    return [
        Class(name, int(counts[i].sum()), patients.get(name), float(recall[i]), float(precision[i]))
        for i, name in enumerate(o.classes)
    ]


def _numbers(tasks: Mapping[str, Sequence[Outcome]], compared: Mapping[str, Comparison]) -> dict[str, Any]:
    """What the page of all tasks shows, as JSON has it; all else stands in the files of the models."""
    return {
        task: {
            "figure": outcomes[0].names[0] if outcomes else None,
            "models": {
                o.model: {
                    "figures": plain(o.probes[0].figures),
                    "controls": {control.name: plain(control.figures[o.names[0]]) for control in o.controls},
                    "beats_metadata": o.beats_metadata,
                    "says": words.verdict(o).sentence,
                }
                for o in outcomes
            },
            "compared": {
                "shared": compared[task].shared,
                "units": compared[task].units,
                "patients": compared[task].patients,
                "differences": [
                    {"models": list(pair), "figures": plain(found)}
                    for pair, found in compared[task].differences.items()
                ],
            },
        }
        for task, outcomes in tasks.items()
    }
