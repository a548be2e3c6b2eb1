"""What figures say, in words: for pages, and for whoever reads no further."""

import math
from dataclasses import dataclass

from ..qc.base import Level
from .controls import METADATA
from .intervals import Interval
from .metrics import SMALLER_IS_BETTER
from .outcome import Outcome, Probe

FIGURES = {
    **{"r2": "R²", "mae": "MAE", "rmse": "RMSE", "pearson": "Pearson", "spearman": "Spearman"},
    **{"auroc": "AUROC", "average_precision": "average precision"},
    **{"balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1"},
}
CONTROLS = {
    **{"mean": "mean", "majority": "majority", "shuffled": "labels shuffled", METADATA: "metadata only"},
}
NONE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
UNITS = {"path": ("clip", "clips"), "study": ("study", "studies"), "patient": ("patient", "patients")}


@dataclass(frozen=True)
class Verdict:
    """Whether a model beats what headers alone predict."""

    level: Level
    short: str
    sentence: str
    beside: str  # the sentence where the figures stand beside it


def verdict(outcome: Outcome) -> Verdict:
    """The main probe against the control that knows nothing but the headers."""
    if outcome.not_tested:
        return Verdict("not tested", "not tested", *[f"Not tested: {outcome.not_tested}."] * 2)
    control = outcome.control(METADATA)
    name = outcome.names[0]
    if control is None or outcome.beats_metadata is None or name not in outcome.against_metadata:
        return Verdict("not tested", "not compared", *["Not compared with the headers' metadata."] * 2)
    beats = "Beats" if outcome.beats_metadata else "Does not beat"
    both = (outcome.probes[0].figures[name].value, control.figures[name].value)
    values = f"{FIGURES[name]} {figure(name, both[0])} against {figure(name, both[1])}"
    difference = f"a difference of {with_interval(name, outcome.against_metadata[name])}"
    return Verdict(
        "good" if outcome.beats_metadata else "fault",
        f"{beats.lower()} metadata",
        f"{beats} the headers' metadata: {values}, {difference}.",
        f"{beats} the headers' metadata: {difference}.",
    )


def within_controls(outcome: Outcome) -> list[str]:
    """The probes that cannot be told from a control, or are worse, a sentence each."""
    name = outcome.names[0]
    pairs = [(probe, control) for probe in outcome.probes for control in outcome.controls]
    said = [_against(name, probe, control) for probe, control in pairs]
    return [] if outcome.not_tested else [sentence for sentence in said if sentence]


def _against(name: str, probe: Probe, control: Probe) -> str:
    mine, its = probe.figures[name], control.figures[name].value
    what = f"what the control “{called(control.name)}” gives ({figure(name, its)})"
    if mine.low <= its <= mine.high:
        return f"The interval of {probe.name}, {span(name, mine)}, includes {what}."
    return f"The interval of {probe.name}, {span(name, mine)}, lies below {what}." if mine.high < its else ""


def called(name: str) -> str:
    """What a control is called."""
    return CONTROLS.get(name, name)


def figure(name: str, value: float | None) -> str:
    """A figure as people read it: to three decimals, or in its label's unit to four digits; a dash for none."""
    if value is None or math.isnan(value):
        return NONE
    in_full = name in SMALLER_IS_BETTER or abs(value) >= 1000
    return (f"{value:#.4g}".rstrip(".") if in_full else f"{value:z.3f}").replace("-", MINUS)


def span(name: str, found: Interval) -> str:
    """`0.371 to 0.453`; a dash where there is no interval."""
    return f"{figure(name, found.low)} to {figure(name, found.high)}" if math.isfinite(found.low) else NONE


def with_interval(name: str, found: Interval) -> str:
    """`0.412 (0.371 to 0.453)`."""
    return f"{figure(name, found.value)} ({span(name, found)})"


def units(outcome: Outcome, number: int) -> str:
    """`1 study`, `2 studies`."""
    one, many = UNITS[outcome.by]
    return f"{number:,} {one if number == 1 else many}"
