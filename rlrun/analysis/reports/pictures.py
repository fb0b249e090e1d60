"""Pictures of a comparison: what they look like, and the curves.

Methods differ in colour (Okabe and Ito 2008, for colour-blind people), in line and in marker, so
that they can be told apart in grey, too.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlrun.analysis.comparison import Comparison
from rlrun.analysis.statistics import MIN_SEEDS, bootstrap_interval, interquartile_mean
from rlrun.analysis.stored_runs import StoredRun

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Without their yellow, which nobody sees on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p")

# Of text and axes; report.py gives it the colour of the page.
INK = "#333333"

STYLE: dict[Any, Any] = {
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "grid.color": "#88888844",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "svg.hashsalt": "rlrun",  # the same picture is the same file
}

# Points of a curve, and resamples of each for its interval: a picture shows no more.
POINTS, RESAMPLES = 200, 2_000

# Points of a curve that have a marker.
MARKED = 8


def as_bytes(figure: "Figure", kind: str, *, background: str = "white") -> bytes:
    """Return a figure as a file's content.

    Args:
        figure: any.
        kind: "png" or "svg".
        background: colour behind it, or "none".
    """
    import matplotlib as mpl

    # A date in the file would make it another one each time.
    metadata = {"Date": None} if kind == "svg" else {}
    file = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format=kind, dpi=150, facecolor=background, metadata=metadata)
    return file.getvalue()


def draw_curves(comparison: Comparison, smooth: int) -> "Figure":
    """Draw return against steps and against time, a row of two panels for each task.

    Args:
        comparison: of any number of tasks.
        smooth: evaluations that a point is the mean of; 1: as they are.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    grouping = comparison.grouping
    styles = {name: style(number) for number, name in enumerate(grouping.methods)}
    rows = len(grouping.tasks)
    figure = Figure(figsize=(9, 1.0 + 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False, sharey="row")
    for task, (by_steps, by_time) in zip(grouping.tasks, panels, strict=True):
        for method in grouping.methods_of(task):
            runs = grouping.runs[task, method]
            look = {**styles[method], "label": method}
            draw_curve(by_steps, *common_curve(runs, "steps"), smooth=smooth, look=look)
            draw_curve(by_time, *common_curve(runs, "minutes"), smooth=smooth, look=look)
        by_steps.set_title(task)
        by_steps.set_ylabel("evaluation return")
        by_steps.xaxis.set_major_formatter(EngFormatter(sep=""))
        if not by_time.lines:
            nothing_to_show(by_time, "nobody wrote down the times")
    panels[-1, 0].set_xlabel("environment steps")
    panels[-1, 1].set_xlabel("minutes")
    smoothed = f", smoothed over {smooth} evaluations" if smooth > 1 else ""
    add_legend(figure, panels.ravel(), list(styles), f"IQM over seeds with 95 % interval{smoothed}")
    return figure


def style(number: int) -> dict[str, Any]:
    """Return the look of the n-th method's line; colour, line and marker repeat at other turns."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": LINES[number % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def common_curve(
    runs: Sequence[StoredRun], axis: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the curves of runs at common places, as far as all of them go.

    Between its evaluations the curve of a run is a straight line.

    Args:
        runs: of one method on one task.
        axis: "steps" or "minutes".

    Returns:
        Places [P], and returns there [P, S]; of none where a place is not known.
    """
    curves = [run.evaluations for run in runs]
    at = [curve.steps if axis == "steps" else curve.seconds / 60 for curve in curves]
    if not all(np.isfinite(places).all() for places in at):
        return np.empty(0), np.empty((0, len(runs)))
    first, last = max(places[0] for places in at), min(places[-1] for places in at)
    grid = at[0][(at[0] >= first) & (at[0] <= last)]
    if axis == "minutes" or len(grid) > POINTS:
        grid = np.linspace(first, last, min(POINTS, max(map(len, at))))
    returns = [np.interp(grid, x, curve.returns) for x, curve in zip(at, curves, strict=True)]
    return grid, np.stack(returns, axis=-1)


def draw_curve(
    axes: "Axes",
    x: NDArray[np.float64],
    returns: NDArray[np.float64],
    *,
    smooth: int,
    look: Mapping[str, Any],
) -> None:
    """Draw the interquartile mean of curves, with its interval if there are seeds enough.

    Args:
        axes: the panel.
        x: places [P].
        returns: there, [P, S].
        smooth: places that one is the mean of.
        look: of the line.
    """
    if len(x) == 0:
        return
    smoothed = moving_average(returns, smooth)
    every = max(1, len(x) // MARKED)
    axes.plot(x, interquartile_mean([smoothed]), lw=1.6, ms=4, markevery=every, **look)
    if returns.shape[-1] >= MIN_SEEDS:
        low, high = bootstrap_interval(interquartile_mean, [smoothed], resamples=RESAMPLES)
        axes.fill_between(x, low, high, color=look["color"], alpha=0.18, lw=0)


def moving_average(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the mean of each point and those around it; at the ends of those that there are.

    Args:
        values: shape [P, S].
        width: how many points.
    """
    count = len(values)
    sums = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(axis=0)])  # [P + 1, S]
    first = np.clip(np.arange(count) - (width - 1) // 2, 0, count)
    last = np.clip(np.arange(count) + width // 2 + 1, 0, count)
    return (sums[last] - sums[first]) / (last - first)[:, None]


def add_legend(
    figure: "Figure", panels: Iterable["Axes"], names: Sequence[str], title: str
) -> None:
    """Put the lines of all panels into one legend above them.

    Args:
        figure: gets the legend.
        panels: have the lines.
        names: of the lines, in their order.
        title: of the legend.
    """
    lines: dict[str, Artist] = {}
    for axes in panels:
        for line, name in zip(*axes.get_legend_handles_labels(), strict=True):
            lines[name] = line
    names = [name for name in names if name in lines]
    longest = max(map(len, names), default=0)
    figure.legend(
        [lines[name] for name in names],
        names,
        loc="outside upper center",
        ncols=max(1, min(len(names), 90 // (longest + 8))),
        title=title,
        title_fontsize=9,
        handlelength=3.5,
    )


def nothing_to_show(axes: "Axes", reason: str) -> None:
    """Say in an empty panel why it is."""
    axes.set(xticks=[])
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", fontsize=9)
