"""Pictures of figures: final returns, performance profile, probability of improvement."""

import math
from typing import TYPE_CHECKING

import numpy as np

from rlrun.analysis.aggregates import Aggregates
from rlrun.analysis.comparison import Comparison
from rlrun.analysis.reports.pictures import (
    COLORS,
    INK,
    MARKED,
    POINTS,
    RESAMPLES,
    STYLE,
    add_legend,
    draw_curves,
    style,
)
from rlrun.analysis.statistics import MIN_SEEDS, bootstrap_interval, performance_profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_COLUMNS = 3  # of panels beside each other


def pictures(comparison: Comparison, aggregates: Aggregates, *, smooth: int) -> dict[str, "Figure"]:
    """Draw a comparison.

    Args:
        comparison: of any number of tasks.
        aggregates: over its tasks.
        smooth: evaluations that a point of a curve is the mean of; 1: as they are.

    Returns:
        Figures by name, as far as there is something to show.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figures = {"finals": draw_finals(comparison), "curves": draw_curves(comparison, smooth)}
        if aggregates.scores:
            figures["profile"] = draw_profile(aggregates)
        if aggregates.improvements:
            figures["improvement"] = draw_improvements(aggregates)
    return figures


def draw_finals(comparison: Comparison) -> "Figure":
    """Draw the figure of every run, and the interquartile mean of each method with its interval."""
    from matplotlib.figure import Figure

    tasks, methods = comparison.grouping.compared_tasks, comparison.grouping.methods
    columns = min(MOST_COLUMNS, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    size = (1.5 + 2.9 * columns, 0.8 + lines * (0.7 + 0.24 * len(methods)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(tasks) :]:
        axes.remove()
    for axes, task in zip(panels, tasks, strict=False):
        for height, method in enumerate(methods):
            row = comparison.figures.get((task, method))
            if row is None:
                continue
            axes.plot(row.finals, [height] * len(row.finals), "o", color=COLORS[-1], ms=3.5)
            if row.interval is not None:
                axes.plot(row.interval, [height] * 2, color=COLORS[0], lw=1.8)
            axes.plot(row.iqm, height, "|", color=COLORS[0], ms=11, mew=2.2)
        axes.set_title(task)
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.5, -0.5)
    figure.supxlabel("final return: ● a run, | interquartile mean, — its 95 % interval", fontsize=9)
    return figure


def draw_profile(aggregates: Aggregates) -> "Figure":
    """Draw the share of runs above each normalised score."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    pooled = np.concatenate([task for scores in aggregates.scores.values() for task in scores])
    levels = np.linspace(min(0.0, pooled.min()), max(1.0, pooled.max()), POINTS)
    for number, (method, scores) in enumerate(aggregates.scores.items()):
        look = style(number)
        axes.plot(
            levels,
            performance_profile(scores, levels),
            label=method,
            lw=1.6,
            ms=4,
            markevery=(5 * number, POINTS // MARKED),
            **look,
        )
        if all(len(task) >= MIN_SEEDS for task in scores):
            low, high = bootstrap_interval(
                lambda drawn: performance_profile(drawn, levels), scores, resamples=RESAMPLES
            )
            axes.fill_between(levels, low, high, color=look["color"], alpha=0.15, lw=0)
    axes.set_xlabel("normalised score τ")
    axes.set_ylabel("share of runs with score > τ")
    axes.set_ylim(-0.02, 1.02)
    title = f"performance profile, {len(aggregates.tasks)} tasks, 95 % interval"
    add_legend(figure, [axes], list(aggregates.scores), title)
    return figure


def draw_improvements(aggregates: Aggregates) -> "Figure":
    """Draw the probability of improvement of each pair of methods, with its interval."""
    from matplotlib.figure import Figure

    rows = aggregates.improvements
    figure = Figure(figsize=(6, 1.1 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for height, row in enumerate(rows):
        axes.plot(row.probability.value, height, "o", color=COLORS[0], ms=5)
        if row.probability.interval is not None:
            axes.plot(row.probability.interval, [height] * 2, color=COLORS[0], lw=1.8)
    axes.axvline(0.5, color=INK, lw=1, ls="--")
    axes.set_yticks(range(len(rows)), [f"{row.method} > {row.other}" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("probability of improvement, 95 % interval")
    return figure
