"""The pictures of the pages. Each function draws what it is given and returns an SVG as a data URI.

As the source of an `img` an SVG keeps its ids to itself and needs no other file.
"""

import base64
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from . import palette
from .base import Floats, Histogram
from .projection import View
from .similarity import HeatMap

P = ParamSpec("P")

COLOURS = palette.LIGHT
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)))
OTHERS = "#BBBBBB"
MAIN, SECOND = COLOURS[:2]
WIDTH = 4.8  # inches, half of the page
FEW = 12  # components: of more, the scale of their numbers is logarithmic
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#8A94A0",
    "axes.formatter.use_mathtext": False,
    "axes.grid": True,
    "axes.labelcolor": "#3B4651",
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 180,  # of the bitmaps inside the SVG
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#E8ECF0",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "svg.hashsalt": "echo_embeddings",
    "text.parse_math": False,
    "xtick.color": "#5A6672",
    "ytick.color": "#5A6672",
}


def as_picture(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Let `draw` draw in this module's style, and return its figure as a data URI."""

    @functools.wraps(draw)
    def picture(*args: P.args, **kwargs: P.kwargs) -> str:
        with matplotlib.rc_context(STYLE):
            file = io.BytesIO()
            FigureCanvasSVG(draw(*args, **kwargs)).print_svg(file, metadata={"Date": None})  # savefig would draw twice
        return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()

    return picture


def half_page(height: float = 3.0) -> tuple[Figure, Axes]:
    """A figure of half the page's width, `height` in inches, and its only axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def short(name: str) -> str:
    """The name, its middle left out where it is too long for a picture."""
    return name if len(name) <= 26 else f"{name[:12]}…{name[-13:]}"


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    """A legend below the picture; a name may begin with an underscore, which matplotlib takes for hidden."""
    shown = [short(name) for name in names]
    columns = max(1, min(len(shown), 52 // (5 + max(map(len, shown), default=1))))
    places = list(map(str, range(len(shown))))
    legend = figure.legend(handles, places, loc="outside lower center", ncols=columns, columnspacing=1.2, **options)
    for text, name in zip(legend.get_texts(), shown, strict=True):
        text.set_text(name)


@as_picture
def distributions(named: Mapping[str, Histogram], total: Histogram, xlabel: str) -> Figure:
    """Densities laid over each other: one line a name, all of them together as an area."""
    figure, axes = half_page(3.3)
    area = axes.stairs(_density(total), total.edges, fill=True, color="#D8DEE5")
    lines = []
    for i, data in enumerate(named.values()):
        colour, dashes = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        lines.append(axes.stairs(_density(data), data.edges, color=colour, linestyle=dashes, linewidth=1.2))
    axes.set(xlabel=xlabel, ylabel="density")
    _legend(figure, [area, *lines], ["all", *named], handlelength=1.4)
    return figure


def _density(data: Histogram) -> Floats:
    total = data.counts.sum()
    return data.counts / (total or 1) / np.diff(data.edges)


@as_picture
def drift(table: pd.DataFrame, limit: float, chance: float) -> Figure:
    """A dot for each folder's drift, and a bar up to `chance` times what chance gives; `table` as in `statistics`."""
    figure, axes = half_page(max(1.8, 0.9 + 0.22 * len(table)))
    places = np.arange(len(table))
    axes.barh(places, chance * table["chance"], color="#D8DEE5", height=0.7, label=f"{chance:g} x chance")
    axes.axvline(limit, color=SECOND, linewidth=1, linestyle=DASHES[1], label="threshold")
    axes.plot(table["drift"], places, "o", color=MAIN, markersize=5, label="drift")
    axes.set_yticks(places, [short(folder) for folder in table["folder"]])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set(xlabel="drift (spreads of a folder)", xlim=(0, None))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@as_picture
def heat_map(data: HeatMap) -> Figure:
    """Cosine similarity of clip against clip, and a strip that shows each clip's folder."""
    folders = sorted(set(data.folders))
    figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
    strip, axes = figure.subplots(1, 2, width_ratios=[1, 28], gridspec_kw={"wspace": 0.01})
    image = axes.imshow(data.matrix, cmap="cividis", interpolation="nearest", aspect="auto")
    bar = figure.colorbar(image, ax=axes, shrink=0.85, label="cosine similarity")
    bar.outline.set_visible(False)
    colours = [matplotlib.colors.to_rgb(_colour(i)) for i in range(len(folders))]
    strip.imshow(np.array([[colours[folders.index(folder)]] for folder in data.folders]), aspect="auto")
    strip.set(xticks=[], yticks=[], ylabel=f"{len(data.folders)} clips, alike ones together; left: folder")
    axes.set(xticks=[], yticks=[])
    for part in (axes, strip):
        part.grid(False)
        part.spines[:].set_visible(False)
    if len(folders) <= len(COLOURS):
        handles = [matplotlib.patches.Patch(color=colour) for colour in colours]
        _legend(figure, handles, folders, handlelength=0.8)
    return figure


def _colour(i: int) -> str:
    return COLOURS[i] if i < len(COLOURS) else OTHERS


@as_picture
def histogram(data: Histogram, xlabel: str, ylabel: str, log: bool = False) -> Figure:
    """The histogram as one filled outline; with `log` a single count is seen beside thousands."""
    figure, axes = half_page()
    axes.stairs(data.counts, data.edges, fill=True, color=MAIN)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if log:
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%d"))
        axes.set_ylim(0, None)
    return figure


@as_picture
def pairs(named: Mapping[str, Histogram]) -> Figure:
    """Densities of cosine similarity, one outlined area for each sort of pairs."""
    figure, axes = half_page(3.3)
    lines = []
    for i, data in enumerate(named.values()):
        density = _density(data)
        axes.stairs(density, data.edges, fill=True, color=COLOURS[i], alpha=0.22)
        lines.append(axes.stairs(density, data.edges, color=COLOURS[i], linewidth=1.4, linestyle=DASHES[i]))
    axes.set(xlabel="cosine similarity", ylabel="density")
    _legend(figure, lines, list(named), handlelength=1.8)
    return figure


@as_picture
def scatter(view: View, labels: Sequence[str]) -> Figure:
    """P clips on a plane, coloured by their `labels` [P]: what is seen of them on paper."""
    figure, axes = half_page(4.4)
    column = pd.Series(labels, dtype=str)
    names = list(column.value_counts().index)
    shown = sorted(names[: len(COLOURS)])
    if len(names) > len(shown):
        column = column.where(column.isin(shown), "others")
        shown.append("others")
    colours = column.map({name: _colour(i) for i, name in enumerate(shown)}).to_numpy()
    size = float(np.clip(12000 / len(view.points), 3, 24))
    axes.scatter(view.points[:, 0], view.points[:, 1], s=size, c=colours, alpha=0.6, linewidths=0, rasterized=True)
    left, right, bottom, top = view.window
    margin_x, margin_y = 0.03 * (right - left), 0.03 * (top - bottom)
    axes.set(xlabel=view.axes[0], ylabel=view.axes[1])
    axes.set(xlim=(left - margin_x, right + margin_x), ylim=(bottom - margin_y, top + margin_y))
    handles = [
        matplotlib.lines.Line2D([], [], linestyle="", marker="o", markersize=5, color=_colour(i))
        for i in range(len(shown))
    ]
    _legend(figure, handles, shown, handletextpad=0.1)
    return figure


@as_picture
def cumulative(explained: Floats, needed: Mapping[str, int]) -> Figure:
    """The share of variance [K] that the first components explain together, and how many some shares take."""
    figure, axes = half_page(3.3)
    up_to = 100 * np.cumsum(explained)
    axes.plot(np.arange(1, len(up_to) + 1), up_to, color=MAIN, marker="o" if len(up_to) <= FEW else "", markersize=3)
    for i, (share, components) in enumerate(needed.items()):
        level = up_to[components - 1]
        axes.plot([components, components, 0.8], [0, level, level], color=SECOND, linewidth=0.9, linestyle=DASHES[1])
        axes.annotate(f"{components:,} for {share}", (components, 4 + 9 * i), (4, 0), textcoords="offset points",
                      color="#3B4651", fontsize=8, backgroundcolor="white", zorder=3)  # fmt: skip
    if len(up_to) > FEW:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%d"))
    axes.set(xlabel="components", ylabel="variance explained (%)", ylim=(0, 104), xlim=(0.8, len(up_to) * 1.1))
    return figure


@as_picture
def line(values: Floats, ylabel: str) -> Figure:
    """One value for each dimension, [D]."""
    figure, axes = half_page(2.2)
    axes.plot(values, color=MAIN, linewidth=0.6, marker="o" if len(values) == 1 else "")
    axes.set(xlabel="dimension", ylabel=ylabel)
    axes.margins(x=0.01)
    return figure
