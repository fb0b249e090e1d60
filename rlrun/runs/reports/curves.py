"""The picture of a run: return against environment steps and against time."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlrun.runs.files.disk import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 400  # of the training curve: more cannot be told apart in 400 pixels
TRAIN_COLOR = "#9ecae1"
EVAL_COLOR = "#08519c"


def draw_curves(
    metrics: list[dict[str, float]], path: Path, title: str, *, steps: str = "environment steps"
) -> None:
    """Draw the training return and the evaluation return of a run as a PNG of 1000 x 400 pixels.

    The band around the evaluations is one standard deviation over the episodes of an evaluation,
    not an uncertainty of the mean. The file is replaced in one step, so a viewer never reads half
    of it.

    Args:
        metrics: rows of ``metrics.jsonl`` with ``step``, ``time_s`` in seconds, and some of
            ``train/return``, ``eval/return``, ``eval/return_std``.
        path: the PNG to write.
        title: what the run is.
        steps: what its steps are.
    """
    # matplotlib takes long to import. Its pyplot interface is global and not for threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=12)
    by_step, by_time = figure.subplots(1, 2, sharey=True)

    train_return, train_steps, train_seconds = thinned(
        columns(metrics, ["train/return", "step", "time_s"])
    )
    eval_mean, eval_steps, eval_seconds, eval_std = columns(
        metrics, ["eval/return", "step", "time_s", "eval/return_std"]
    )
    draw_panel(by_step, train_steps, train_return, eval_steps, eval_mean, eval_std)
    draw_panel(by_time, train_seconds / 60, train_return, eval_seconds / 60, eval_mean, eval_std)

    by_step.set_xlabel(steps)
    by_step.xaxis.set_major_formatter(EngFormatter(sep=""))
    by_step.set_ylabel("undiscounted return")
    by_time.set_xlabel("time (minutes)")
    if train_return.size or eval_mean.size:
        by_step.legend(frameon=False, loc="best")
    else:
        for axes in (by_step, by_time):
            axes.set(xticks=[], yticks=[])
            text = "no episode has ended yet"
            axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color="gray")

    with replacing(path) as file:
        FigureCanvasAgg(figure).print_png(file)


def columns(metrics: list[dict[str, float]], names: list[str]) -> np.ndarray:
    """The named values of the rows that have the first of them as a number.

    Returns:
        Array of shape [len(names), rows]; NaN for any other that a row does not have.
    """
    rows = [
        [row.get(name, math.nan) for name in names]
        for row in metrics
        if math.isfinite(row.get(names[0], math.nan))
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(names)).T


def thinned(curve: np.ndarray) -> np.ndarray:
    """Average neighbouring points until at most `MAX_POINTS` are left.

    Args:
        curve: shape [C, P].

    Returns:
        Shape [C, min(P, MAX_POINTS)].
    """
    points = curve.shape[1]
    if points <= MAX_POINTS:
        return curve
    starts = np.arange(MAX_POINTS) * points // MAX_POINTS
    sizes = np.diff(starts, append=points)
    return np.add.reduceat(curve, starts, axis=1) / sizes


def draw_panel(
    axes: "Axes",
    train_x: np.ndarray,
    train_return: np.ndarray,
    eval_x: np.ndarray,
    eval_mean: np.ndarray,
    eval_std: np.ndarray,
) -> None:
    """Draw both curves against one horizontal axis; all arrays are [P] of one curve each."""
    if train_return.size:
        axes.plot(train_x, train_return, color=TRAIN_COLOR, linewidth=1.2, label="training")
    axes.fill_between(
        eval_x,
        eval_mean - eval_std,
        eval_mean + eval_std,
        color=EVAL_COLOR,
        alpha=0.15,
        linewidth=0,
    )
    axes.plot(
        eval_x,
        eval_mean,
        color=EVAL_COLOR,
        linewidth=1.8,
        marker="o",
        markersize=3.5,
        label="evaluation (mean ± 1 std of its episodes)",
    )
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(left=0)
