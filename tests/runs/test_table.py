"""How states are arranged in the picture of a table."""

import numpy as np
import pytest

from rlrun.envs.tabular import Grid
from rlrun.runs.reports.table import cells, draw_table, picture


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((5,), [[0, 1, 2], [3, 4, -1]]),
        ((2, 3), [[0, 1, 2], [3, 4, 5]]),
        # Rows are of the first part; the second part runs along them, once for each third part.
        ((2, 3, 2), [[0, 2, 4, 1, 3, 5], [6, 8, 10, 7, 9, 11]]),
        # There are eight values of the third part: too many to stand side by side.
        ((1, 1, 8), [[0, 1, 2], [3, 4, 5], [6, 7, -1]]),
    ],
)
def test_each_state_has_one_cell(sizes, expected):
    assert cells(sizes).tolist() == expected


@pytest.mark.parametrize(
    ("grid", "actions", "pictures", "texts"),
    [
        (Grid((2, 3), "←↓→↑"), 4, 2, 6),
        (Grid((1,)), 1, 2, 1),
        (Grid((32, 11, 2)), 2, 3, 0),
        (Grid((500, 3)), 2, 3, 0),
        (Grid((3, 40), "←↓→↑"), 4, 3, 0),
        (Grid((4,) * 5), 300, 3, 0),
    ],
)
def test_large_tables_have_a_picture_of_the_policy_and_no_more_texts_than_fit(
    grid, actions, pictures, texts
):
    states = int(np.prod(grid.sizes))
    action_value = np.random.default_rng(0).normal(size=(states, actions))
    figure = picture(action_value.max(1), action_value, grid, "T")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == pictures
    assert ("best action in each state" in titles) is (pictures == 3)
    assert sum(len(axes.texts) for axes in figure.axes) == texts
    figure.canvas.draw()
    for axes in figure.axes:
        assert len(axes.get_xticks()) <= 24
        assert len(axes.get_yticks()) <= 24


def test_the_best_action_is_shown_where_it_matters(tmp_path):
    # Two states: right is best in the first; the second is an end.
    action_value = np.array([[0.0, 0.5], [0.0, 0.0]])
    figure = picture(action_value.max(1), action_value, Grid((1, 2), "←→"), "T")
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.5\n→", "0\n"]
    # In colours, with a third part of which there are 20 values of the second.
    wide = np.zeros((40, 2))
    wide[3, 1] = 1.0
    figure = picture(wide.max(1), wide, Grid((2, 20)), "T")
    (shown,) = next(
        axes for axes in figure.axes if axes.get_title().startswith("best action")
    ).get_images()
    drawn = np.ma.filled(shown.get_array(), np.nan)
    assert drawn[0, 3] == 1.0
    assert np.isnan(drawn).sum() == 39
    draw_table(wide.max(1), wide, tmp_path / "t.png", grid=Grid((2, 20)), title="T")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
