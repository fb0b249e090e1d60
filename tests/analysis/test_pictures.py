"""Pictures: what is in them, and that they can be told apart without colours."""

import colorsys
import itertools
import struct
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from made_runs import made_run, seeds

from rlrun.analysis.aggregates import Scale, aggregate
from rlrun.analysis.comparison import compare
from rlrun.analysis.reports.pictures import (
    POINTS,
    as_bytes,
    common_curve,
    moving_average,
    style,
)
from rlrun.analysis.reports.score_pictures import pictures
from rlrun.analysis.stored_runs import Evaluations

SCALES = {"hopper": Scale(min=0.0, max=100.0), "walker2d": Scale(min=0.0, max=100.0)}


def drawn(*runs, smooth=1):
    comparison = compare([run for some in runs for run in some])
    return pictures(comparison, aggregate(comparison, SCALES), smooth=smooth)


@pytest.fixture(scope="module")
def figures():
    """Pictures of two methods on two tasks, one of them with two seeds on one."""
    return drawn(
        *(seeds("ppo", [10, 20, 30]), seeds("sac", [90, 91, 92])),
        *(seeds("ppo", [10, 20, 30], "walker2d"), seeds("sac", [1, 2], "walker2d")),
    )


def words(figure):
    return as_bytes(figure, "svg").decode()


def test_all_pictures_are_drawn(figures):
    assert list(figures) == ["finals", "curves", "profile", "improvement"]
    for name, figure in figures.items():
        png = as_bytes(figure, "png")
        assert png.startswith(b"\x89PNG"), name
        width, height = struct.unpack(">II", png[16:24])
        assert width > 600
        assert height > 200
        assert ElementTree.fromstring(as_bytes(figure, "svg")).tag.endswith("svg")


def test_the_same_picture_is_the_same_file(figures):
    again = drawn(seeds("ppo", [10, 20, 30]))["curves"]
    once_more = drawn(seeds("ppo", [10, 20, 30]))["curves"]
    for kind in ("png", "svg"):
        assert as_bytes(again, kind) == as_bytes(once_more, kind)


def test_curves_have_a_band_where_there_are_seeds_enough(figures):
    hopper_steps, hopper_time, walker_steps, _walker_time = figures["curves"].axes
    assert [len(axes.collections) for axes in figures["curves"].axes] == [2, 2, 1, 1]
    for axes in figures["curves"].axes:
        assert [line.get_label() for line in axes.lines] == ["ppo", "sac"]
    np.testing.assert_allclose(hopper_steps.lines[0].get_xdata(), [0, 500, 1000])
    np.testing.assert_allclose(hopper_steps.lines[0].get_ydata(), [0, 10, 20])
    np.testing.assert_allclose(walker_steps.lines[1].get_ydata(), [0, 0.75, 1.5])
    assert hopper_time.lines[0].get_xdata()[-1] == pytest.approx(20 / 60)
    band = hopper_steps.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 0.0
    assert 20 < band[:, 1].max() <= 30


def test_no_profile_without_tasks_in_common():
    assert list(drawn(seeds("ppo", [10, 20, 30]))) == ["finals", "curves"]


def test_where_no_times_are_known_the_picture_says_so():
    steps = np.array([0.0, 1000.0])
    unknown = Evaluations(steps, np.full(2, np.nan), steps, steps)
    figure = drawn([made_run(evaluations=unknown)])["curves"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["nobody wrote down the times"]


def test_smoothing_is_said(figures):
    def title(figure):
        return figure.legends[0].get_title().get_text()

    assert "smooth" not in title(figures["curves"])
    smoothed = drawn(seeds("ppo", [10, 20, 30]), smooth=3)["curves"]
    assert title(smoothed).endswith("smoothed over 3 evaluations")
    assert smoothed.axes[0].lines[0].get_ydata()[0] == pytest.approx(5.0)  # of 0 and 10


def test_moving_average_by_hand():
    values = np.array([[0.0], [3.0], [6.0], [30.0]])
    assert moving_average(values, 1).tolist() == values.tolist()
    assert moving_average(values, 3)[:, 0].tolist() == [1.5, 3.0, 13.0, 18.0]
    assert moving_average(values, 2)[:, 0].tolist() == [1.5, 4.5, 18.0, 30.0]
    np.testing.assert_allclose(moving_average(values, 99)[:, 0], 39 / 4)


def test_curves_meet_where_all_runs_were():
    def run(steps, returns):
        seconds = np.array(steps) / 10
        return made_run(evaluations=Evaluations(*map(np.array, (steps, seconds, returns, returns))))

    runs = [run([0.0, 100.0, 200.0], [0.0, 10.0, 20.0]), run([50.0, 150.0], [0.0, 100.0])]
    x, returns = common_curve(runs, "steps")
    assert x.tolist() == [100.0]
    assert returns.tolist() == [[10.0, 50.0]]
    x, returns = common_curve(runs, "minutes")
    assert (x[0], x[-1]) == (pytest.approx(5 / 60), pytest.approx(15 / 60))


def test_long_curves_are_thinned():
    steps = np.arange(5_000.0)
    run = made_run(evaluations=Evaluations(steps, steps, steps, steps))
    x, returns = common_curve([run], "steps")
    assert (len(x), returns.shape) == (POINTS, (POINTS, 1))
    np.testing.assert_allclose(returns[:, 0], x)


def test_styles_differ_without_colours():
    looks = [style(number) for number in range(11)]
    in_grey = {(look["linestyle"], look["marker"]) for look in looks}
    assert len(in_grey) == 11
    for one, other in itertools.pairwise(looks):
        assert one["linestyle"] != other["linestyle"]
        assert one["marker"] != other["marker"]


def test_colours_are_dark_enough_for_white():
    for number in range(7):
        channels = [int(style(number)["color"][i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert colorsys.rgb_to_hls(*channels)[1] < 0.7
