"""The picture of a plan: the value of each state, and the best action in it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlrun.envs.tabular import Grid
from rlrun.runs.files.disk import replacing

LARGEST_NUMBERED = 12  # rows and columns of a picture in which a cell has room for its number
MOST_COLORS = 10  # of matplotlib's colours that are easily told apart
MOST_BLOCKS = 6  # pictures side by side, for the values of a state's third part and those behind it
MOST_TICKS = 20


def draw_table(
    value: NDArray,
    action_value: NDArray,
    path: Path,
    *,
    grid: Grid,
    title: str,
) -> None:
    """Draw V and the greedy policy on the grid of states, and Q as states × actions, as a PNG.

    The file is replaced in one step, so a viewer never reads half of it.

    Args:
        value: V, [S].
        action_value: Q, [S, A].
        path: the PNG to write.
        grid: how the states are arranged.
        title: what the run is.
    """
    # matplotlib takes long to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path) as file:
        FigureCanvasAgg(picture(value, action_value, grid, title)).print_png(file)


def picture(value: NDArray, action_value: NDArray, grid: Grid, title: str) -> Any:
    """Return the picture, a ``Figure`` of matplotlib.

    In a small grid the best action is written into its state's cell; of a large one there is a
    second picture, in the actions' colours. Where all actions are worth the same, it says nothing.

    Args:
        value: V, [S].
        action_value: Q, [S, A].
        grid: how the states are arranged.
        title: what the run is.
    """
    # Not pyplot's interface, which is global and not for threads.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    states = cells(grid.sizes)
    numbered = max(states.shape) <= LARGEST_NUMBERED
    figure = Figure(figsize=(11 if numbered else 15, 4.5), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=12)
    widths = (3, 2) if numbered else (3, 3, 2)
    of_states, *of_policy, of_actions = figure.subplots(1, len(widths), width_ratios=widths)

    pictured = np.where(states >= 0, value[states], np.nan)
    image = of_states.imshow(pictured, cmap="viridis", aspect="auto")
    figure.colorbar(image, ax=of_states, label="V(s)")
    of_states.set_title(f"value of each state{', and the best action in it' if numbered else ''}")
    label_cells(of_states, grid)
    best = action_value.argmax(1)
    matters = np.ptp(action_value, axis=1) > 0  # not where the episode is over
    names = list(grid.moves) or [str(action) for action in range(action_value.shape[1])]
    if numbered:
        middle = (value.min() + value.max()) / 2
        for (row, column), state in np.ndenumerate(states):
            if state >= 0:
                text = f"{value[state]:.3g}\n{names[best[state]] if matters[state] else ''}"
                color = "white" if value[state] < middle else "black"
                of_states.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    for axes in of_policy:
        chosen = np.where((states >= 0) & matters[states], best[states], np.nan)
        many = len(names) > MOST_COLORS
        colors = {"cmap": "viridis"} if many else {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5}
        image = axes.imshow(chosen, **colors, aspect="auto", interpolation="nearest")
        bar = figure.colorbar(image, ax=axes, label="action")
        if not many:
            bar.set_ticks(range(len(names)))
            bar.ax.set_ylim(-0.5, len(names) - 0.5)
            bar.set_ticklabels(names)
        axes.set_title("best action in each state")
        label_cells(axes, grid)

    image = of_actions.imshow(action_value, cmap="viridis", aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=of_actions, label="Q(s, a)")
    of_actions.set(xlabel="action", ylabel="state")
    of_actions.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, integer=True))
    of_actions.yaxis.set_major_locator(MaxNLocator(MOST_TICKS, integer=True))
    of_actions.set_title("value of each action")
    return figure


def label_cells(axes: Any, grid: Grid) -> None:
    """Say what rows and columns are, where they are parts of a state and no places of a map."""
    from matplotlib.ticker import MaxNLocator

    if grid.moves or not shows_parts(grid.sizes):
        axes.set(xticks=[], yticks=[])
        return
    columns, others = grid.sizes[1], math.prod(grid.sizes[2:])
    ticks = [
        block * columns + tick
        for block in range(others)
        for tick in range(0, columns, max(1, columns // 4))
    ]
    beside = ", for each value of the others" if others > 1 else ""
    axes.set(
        ylabel="first part of the state",
        xlabel=f"second part{beside}",
        xticks=ticks,
        xticklabels=[tick % columns for tick in ticks],
    )
    axes.yaxis.set_major_locator(MaxNLocator(MOST_TICKS, integer=True))
    for edge in range(columns, columns * others, columns):
        axes.axvline(edge - 0.5, color="black", linewidth=1)


def cells(sizes: tuple[int, ...]) -> NDArray:
    """Return the state that is in each cell of a picture, [rows, columns]; -1: none.

    Args:
        sizes: of the parts of a state. Rows are of the first one and columns of the second one,
            side by side for all values of others. Of one part, or of too many values of others, the
            picture is nearly square, in the order of the numbers.
    """
    count = math.prod(sizes)
    if not shows_parts(sizes):
        columns = math.ceil(math.sqrt(count))
        rows = -(-count // columns)
        states = np.full(rows * columns, -1)
        states[:count] = range(count)
        return states.reshape(rows, columns)
    parts = np.arange(count).reshape(sizes)
    return np.moveaxis(parts, 1, -1).reshape(sizes[0], -1)


def shows_parts(sizes: tuple[int, ...]) -> bool:
    """Say whether rows and columns of a picture are parts of a state."""
    return len(sizes) > 1 and math.prod(sizes[2:]) <= MOST_BLOCKS
