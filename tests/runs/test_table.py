"""How states are arranged in the picture of a table."""

import matplotlib.image
import numpy as np
import pytest

from rlrun.envs.tabular import Grid
from rlrun.runs.reports.table import cells, draw_table


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((5,), [[0, 1, 2], [3, 4, -1]]),
        ((2, 3), [[0, 1, 2], [3, 4, 5]]),
        # Rows are of the first part; the second part runs along them, once for each third part.
        ((2, 3, 2), [[0, 2, 4, 1, 3, 5], [6, 8, 10, 7, 9, 11]]),
    ],
)
def test_each_state_has_one_cell(sizes, expected):
    assert cells(sizes).tolist() == expected


@pytest.mark.parametrize(
    ("grid", "actions"),
    [
        (Grid((2, 3), "←↓→↑"), 4),
        (Grid((32, 11, 2)), 2),
        (Grid((3, 40), "←↓→↑"), 4),
        (Grid((500,)), 12),
    ],
)
def test_tables_of_all_kinds_are_drawn(tmp_path, grid, actions):
    states = np.prod(grid.sizes)
    action_value = np.random.default_rng(0).normal(size=(states, actions))
    draw_table(action_value.max(1), action_value, tmp_path / "t.png", grid=grid, title="T")
    picture = matplotlib.image.imread(tmp_path / "t.png")
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 50
