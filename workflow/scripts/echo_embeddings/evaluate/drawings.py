"""The pictures of a task's page, drawn as those of the quality pages are."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..qc.base import spread
from ..qc.plots import DASHES, MAIN, SECOND, WIDTH, as_picture, half_page, short
from .intervals import Floats, Interval

COUNTED = 30  # classes: the counts of more are not written into the confusion matrix


@as_picture
def scatter(points: Sequence[tuple[float, float]], target: str) -> Figure:
    """Truth against prediction, a dot a unit."""
    figure, axes = half_page(4.0)
    truth, predicted = np.array(points, dtype=float).reshape(-1, 2).T
    size = float(np.clip(12000 / max(len(points), 1), 4, 20))
    axes.scatter(truth, predicted, s=size, color=MAIN, alpha=0.45, linewidths=0, rasterized=True)
    _diagonal(axes, truth, predicted)
    axes.set(xlabel=f"{short(target)}, truth", ylabel="prediction")
    return figure


@as_picture
def calibration(points: Sequence[tuple[float, float, int]], xlabel: str, ylabel: str) -> Figure:
    """What is predicted against what is observed, a dot a bin, larger where there are more units."""
    figure, axes = half_page(4.0)
    predicted, observed, units = np.array(points, dtype=float).reshape(-1, 3).T
    axes.plot(predicted, observed, color=MAIN, linewidth=0.9)
    axes.scatter(predicted, observed, s=12 + 60 * units / units.max(), color=MAIN, zorder=3)
    _diagonal(axes, predicted, observed)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def _diagonal(axes: Axes, x: Floats, y: Floats) -> None:
    """Where both are equal, as far as there are points."""
    ends = spread(min(x.min(), y.min()), max(x.max(), y.max()))
    axes.plot(ends, ends, color=SECOND, linewidth=1, linestyle=DASHES[1])


@as_picture
def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Counts of units, rows are truth, nothing where there is none; the colour is the share of the row."""
    table = np.array(counts, dtype=float)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    edge = max(WIDTH, 2.6 + 0.32 * len(table))
    figure = Figure(figsize=(edge, 0.85 * edge), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
    bar.outline.set_visible(False)
    names = [short(name) for name in classes]
    sideways = sum(map(len, names)) > 30
    axes.set_xticks(range(len(names)), names, rotation=90 if sideways else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="truth")
    axes.grid(False)
    if len(table) <= COUNTED:
        for row, column in np.argwhere(table):
            count = table[row, column]
            text = f"{count:.0f}" if count < 10_000 else f"{count / 1000:.0f}k"
            colour = "white" if share[row, column] > 0.55 else "#3B4651"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8 if len(table) < 12 else 6.5)
    return figure


@as_picture
def learning_curve(shots: Sequence[tuple[int, Interval]], everyone: float, name: str) -> Figure:
    """A figure by how many patients were learnt from, with intervals, and that of all patients as a line."""
    figure, axes = half_page()
    patients = [number for number, _ in shots]
    values, lows, highs = (np.array([getattr(found, part) for _, found in shots]) for part in ("value", "low", "high"))
    errors = np.nan_to_num(np.stack([values - lows, highs - values]))
    axes.errorbar(patients, values, errors, color=MAIN, marker="o", markersize=4, linewidth=1, capsize=3)
    axes.axhline(everyone, color=SECOND, linewidth=1, linestyle=DASHES[1])
    axes.annotate("all patients", (0, everyone), (4, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", color="#3B4651", fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(patients, [f"{number:,}" for number in patients])
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set(xlabel="patients that were learnt from", ylabel=name)
    return figure
