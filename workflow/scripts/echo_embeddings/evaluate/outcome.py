"""What a model's vectors predict of a task, read from the JSON file that holds it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.names import one_line
from . import metrics
from .intervals import Interval

Figures = Mapping[str, Interval]


@dataclass(frozen=True)
class Probe:
    """A probe or a control, and its figures."""

    name: str
    says: str  # what it is, in words
    units: int
    patients: int
    noise: float  # the share of its variation that is of the fits
    figures: Figures


@dataclass(frozen=True)
class Counts:
    """How much there is of what a task asks for."""

    clips: int  # with a label
    units: int
    tested: int  # units
    patients: int
    unlabelled: int  # clips
    of_class: Mapping[str, Mapping[str, int]] | None  # units and patients


@dataclass(frozen=True)
class Stratum:
    """Units that share a value of a column; their figures are those of the main probe, without intervals."""

    column: str
    value: str
    units: int
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class Unit:
    """One whose prediction is far off."""

    key: str
    truth: float | str
    prediction: float | str
    clips: list[tuple[str, str]]  # folder and MP4 of some of its clips


@dataclass(frozen=True)
class Outcome:
    """A task by a model's vectors."""

    path: Path  # the file; the predictions lie beside it
    task: str
    model: str
    kind: str
    by: str  # what a unit is: path (a clip), study or patient
    target: str
    table: str
    classes: list[str]
    counts: Counts
    split: str
    not_tested: str  # why its figures say nothing; empty where they do
    told: list[str]
    probes: list[Probe]  # the main one first
    controls: list[Probe]
    against_metadata: Figures
    beats_metadata: bool | None
    shots: list[tuple[int, Figures]]  # patients that were learnt from
    strata: list[Stratum]
    worst: list[Unit]
    calibration: list[tuple[float, float, int]]  # predicted, observed, units
    confusion: list[list[int]] | None  # rows are truth
    scatter: list[tuple[float, float]] | None  # truth and prediction

    @property
    def names(self) -> tuple[str, ...]:
        """The figures of its kind, the main one first."""
        return metrics.OF_KIND[self.kind]

    @property
    def stratum_names(self) -> tuple[str, ...]:
        """The figures that strata have."""
        return tuple(name for name in self.names if any(name in one.figures for one in self.strata))

    @property
    def predictions(self) -> Path:
        """The table of predictions."""
        return self.path.with_suffix(".predictions.parquet")

    def control(self, name: str) -> Probe | None:
        """The control of that name, if there is one."""
        return next((control for control in self.controls if control.name == name), None)


def read(path: Path) -> Outcome:
    """The outcome that the JSON file at `path` holds. Raises `UserError` if it is none."""
    try:
        return _outcome(path, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"it has no {one_line(error)}" if isinstance(error, KeyError) else one_line(error)
        raise UserError(f"{path}: not the figures of an evaluation: {what}; delete it and run again") from error


def _outcome(path: Path, has: Mapping[str, Any]) -> Outcome:
    if has["kind"] not in metrics.OF_KIND:
        raise ValueError(f"kind is {has['kind']!r}")
    names = metrics.OF_KIND[has["kind"]]
    probes = _probes(has["probes"], names)
    if not probes:
        raise ValueError("it has no probe")
    if has["confusion"] and len(has["confusion"]) != len(has["classes"]):
        raise ValueError(f"confusion has {len(has['confusion'])} rows for {len(has['classes'])} classes")
    return Outcome(
        path=path,
        **{key: has[key] for key in ("task", "model", "kind", "by", "target", "table", "split", "told")},
        counts=Counts(**{field.name: has["counts"][field.name] for field in dataclasses.fields(Counts)}),
        classes=[str(name) for name in has["classes"] or ()],
        not_tested=has["not_tested"] or "",
        probes=probes,
        controls=_probes(has["controls"], names),
        against_metadata=_figures(has["against_metadata"] or {}, ()),
        beats_metadata=has["beats_metadata"],
        shots=[(shot["patients"], _figures(shot["figures"], names)) for shot in has["shots"] or ()],
        strata=[Stratum(one["column"], str(one["value"]), one["units"], one["figures"]) for one in has["strata"]],
        worst=[
            Unit(one["key"], one["truth"], one["prediction"], [(folder, mp4) for folder, mp4 in one["clips"]])
            for one in has["worst"]
        ],
        calibration=[
            (one["predicted"], one["observed"], one["units"])
            for one in has["calibration"] or ()
            if one["predicted"] is not None and one["observed"] is not None
        ],
        confusion=has["confusion"],
        scatter=has["scatter"],
    )


def _probes(found: Mapping[str, Any], names: Sequence[str]) -> list[Probe]:
    return [
        Probe(name, one["says"], one["units"], one["patients"], one["noise"], _figures(one["figures"], names))
        for name, one in found.items()
    ]


def _figures(found: Mapping[str, Any], names: Sequence[str]) -> dict[str, Interval]:
    """The figures found, among them those of these `names`; what is null is NaN."""
    if missing := [name for name in names if name not in found]:
        raise KeyError(missing[0])
    return {name: Interval(*map(_number, (one["value"], one["low"], one["high"]))) for name, one in found.items()}


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
