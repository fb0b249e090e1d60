"""The picture of a plan: the value of each state, and the best action in it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlrun.envs.tabular import Grid
from rlrun.runs.files.disk import replacing

LARGEST_NUMBERED = 12  # columns of a picture in which a cell has room for its number


def draw_table(
    value: NDArray,
    action_value: NDArray,
    path: Path,
    *,
    grid: Grid | None,
    title: str,
) -> None:
    """Draw V and the greedy policy on the grid of states, and Q as states × actions, as a PNG.

    The file is replaced in one step, so a viewer never reads half of it.

    Args:
        value: V, [S].
        action_value: Q, [S, A].
        path: the PNG to write.
        grid: the picture that the states are; None: they are drawn as a nearly square one.
        title: what the run is.
    """
    # matplotlib takes long to import. Its pyplot interface is global and not for threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = near_square(len(value)) if grid is None else (grid.rows, grid.columns)
    cells = np.full(rows * columns, np.nan)
    cells[: len(value)] = value
    figure = Figure(figsize=(11, 4.5), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=12)
    of_states, of_actions = figure.subplots(1, 2, width_ratios=(3, 2))

    image = of_states.imshow(cells.reshape(rows, columns), cmap="viridis", aspect="auto")
    figure.colorbar(image, ax=of_states, label="V(s)")
    of_states.set(xticks=[], yticks=[])
    numbered = columns <= LARGEST_NUMBERED
    of_states.set_title(f"value of each state{', and the best action in it' if numbered else ''}")
    if numbered:
        middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
        matters = np.ptp(action_value, axis=1) > 0  # not where the episode is over
        for state, number in enumerate(value):
            action = action_value[state].argmax()
            move = str(action) if grid is None else grid.moves[action]
            text = f"{number:.3g}\n{move if matters[state] else ''}"
            row, column = divmod(state, columns)
            color = "white" if number < middle else "black"
            of_states.text(column, row, text, ha="center", va="center", color=color, fontsize=8)

    image = of_actions.imshow(action_value, cmap="viridis", aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=of_actions, label="Q(s, a)")
    of_actions.set(xlabel="action", ylabel="state", xticks=range(action_value.shape[1]))
    of_actions.set_title("value of each action")
    with replacing(path) as file:
        FigureCanvasAgg(figure).print_png(file)


def near_square(count: int) -> tuple[int, int]:
    """Return the rows and columns of the smallest nearly square grid of so many cells."""
    columns = int(np.ceil(np.sqrt(count)))
    return -(-count // columns), columns
