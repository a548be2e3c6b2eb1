"""The quality page's pictures. Each function draws what it is given and returns an SVG as a data URI.

As the source of an `img` an SVG keeps its ids to itself and needs no other file.
"""

import base64
import functools
import io
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .numbers import Floats, Histogram

P = ParamSpec("P")

# Okabe and Ito's colours, which colour-blind readers can tell apart, without the yellow that white drowns
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "^", "s")
STYLES = [(colour, marker) for marker in MARKERS for colour in COLOURS]
OTHERS = ("#BBBBBB", "o")
MAIN, SECOND = COLOURS[:2]
MAX_BOXES = 30
STYLE: Any = {
    "axes.edgecolor": "#8A94A0",
    "axes.labelcolor": "#3B4651",
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.formatter.use_mathtext": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "lines.linewidth": 0.9,
    "savefig.dpi": 200,  # of the bitmaps inside the SVG
    "svg.hashsalt": "echo_embeddings",
    "text.parse_math": False,
    "xtick.color": "#5A6672",
    "ytick.color": "#5A6672",
}


def _picture(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Let `draw` draw in this module's style, and return its figure as a data URI."""

    @functools.wraps(draw)
    def picture(*args: P.args, **kwargs: P.kwargs) -> str:
        with matplotlib.rc_context(STYLE):
            file = io.BytesIO()
            draw(*args, **kwargs).savefig(file, format="svg", metadata={"Date": None})
        return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()

    return picture


def _axes(height: float) -> tuple[Figure, Axes]:
    """A figure of the page's width, `height` in inches, and its only axes."""
    figure = Figure(figsize=(4.8, height), layout="constrained")
    return figure, figure.add_subplot()


def _short(name: str) -> str:
    """The name, its middle left out where it is too long for a picture."""
    return name if len(name) <= 16 else f"{name[:7]}…{name[-8:]}"


@_picture
def histogram(data: Histogram, xlabel: str, ylabel: str, height: float = 2.9) -> Figure:
    """The histogram as one filled outline."""
    figure, axes = _axes(height)
    axes.stairs(data.counts, data.edges, fill=True, color=MAIN)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure


@_picture
def boxes(table: pd.DataFrame, xlabel: str) -> Figure:
    """A box from quartile to quartile for each folder, its whiskers from the least to the greatest norm.

    `table`: rows of `numbers.statistics`; the first `MAX_BOXES` are drawn.
    """
    rows = table.head(MAX_BOXES).to_dict("records")
    quartiles = {"whislo": "norm_min", "q1": "norm_q1", "med": "norm_median", "q3": "norm_q3", "whishi": "norm_max"}
    figure, axes = _axes(height=max(2.9, 1.0 + 0.24 * len(rows)))
    axes.bxp(
        [{name: row[column] for name, column in quartiles.items()} for row in rows],
        orientation="horizontal",
        showfliers=False,
        widths=0.55,
        patch_artist=True,
        boxprops={"facecolor": "#CCE3F0", "edgecolor": MAIN},
        medianprops={"color": SECOND, "linewidth": 1.6},
        whiskerprops={"color": MAIN},
        capprops={"color": MAIN},
    )
    axes.set_yticks(range(1, len(rows) + 1), [_short(row["folder"]) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    return figure


@_picture
def heat_map(matrix: Floats, labels: Sequence[str]) -> Figure:
    """The similarities [n, n] of n clips; `labels`, n folders of which equal ones are neighbours, mark the axes."""
    figure, axes = _axes(height=4.1)
    image = axes.imshow(matrix, cmap="cividis", interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="cosine similarity")
    bar.outline.set_visible(False)
    starts = [i for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
    ends = [*starts[1:], len(labels)]
    centres = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    names = [_short(labels[start]) for start in starts]
    axes.set_yticks(centres, names)
    axes.set_xticks(centres, names, rotation=90 if len("".join(names)) > 30 else 0)
    axes.tick_params(length=0)
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="white", linewidth=0.7)
        axes.axvline(start - 0.5, color="white", linewidth=0.7)
    axes.spines[:].set_visible(False)
    return figure


@_picture
def scatter(points: Floats, labels: Sequence[str], explained: Floats) -> Figure:
    """Points [P, 2] of P clips, coloured by `labels`, their folders; `explained`: the axes' shares of variance."""
    folders = sorted(set(labels))
    of = np.array(labels, dtype=object)
    figure, axes = _axes(height=4.1)
    styles = STYLES[: len(folders)] + [OTHERS] * (len(folders) - len(STYLES))
    for folder, (colour, marker) in zip(folders, styles, strict=True):
        x, y = points[of == folder].T
        axes.scatter(x, y, s=11, c=colour, marker=marker, alpha=0.7, linewidths=0, rasterized=True)
    shown = [_short(folder) for folder in folders[: len(STYLES)]] + ["others"] * (len(folders) > len(STYLES))
    legend = figure.legend(
        axes.collections[: len(shown)],
        [str(i) for i in range(len(shown))],
        loc="outside lower center",
        ncols=max(1, 50 // (4 + max(map(len, shown)))),
        frameon=False,
        markerscale=1.8,
        handletextpad=0.1,
        columnspacing=1.0,
    )
    for text, name in zip(legend.get_texts(), shown, strict=True):  # here a leading "_" does not hide a name
        text.set_text(name)
    shares = [f" ({share:.1%} of the variance)" for share in explained[:2]] + [""]
    axes.set(xlabel=f"component 1{shares[0]}", ylabel=f"component 2{shares[1]}")
    return figure


@_picture
def explained_variance(explained: Floats) -> Figure:
    """Bars of each component's share [K] of the variance, and a line of their running sum."""
    figure, axes = _axes(height=4.1)
    numbers = range(1, len(explained) + 1)
    axes.bar(numbers, 100 * explained, color=MAIN, width=0.7, label="each component")
    axes.plot(numbers, 100 * np.cumsum(explained), color=SECOND, marker="o", markersize=4, label="all up to it")
    axes.set_xticks(numbers)
    axes.set(xlabel="component", ylabel="share of the variance (%)", ylim=(0, 105))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


@_picture
def line(values: Floats, ylabel: str) -> Figure:
    """One value for each dimension, [D]."""
    figure, axes = _axes(height=2.3)
    axes.plot(values, color=MAIN, linewidth=0.6, marker="o" if len(values) == 1 else "")
    axes.set(xlabel="dimension", ylabel=ylabel)
    axes.margins(x=0.01)
    return figure
