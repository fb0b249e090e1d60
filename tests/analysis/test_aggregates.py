"""Normalised scores, and statistics over tasks."""

import numpy as np
import pytest
from made_runs import seeds

from rlrun.analysis.aggregates import Scale, aggregate, published_file, read_scales
from rlrun.analysis.comparison import compare
from rlrun.errors import UserError

SCALES = {"Hopper-v5": Scale(min=0.0, max=100.0), "walker2d": Scale(min=-100.0, max=100.0)}


def aggregated(*runs, scales=SCALES):
    return aggregate(compare([run for some in runs for run in some]), scales)


def test_scores_are_normalised_by_task():
    found = aggregated(seeds("ppo", [0, 50, 100]), seeds("ppo", [0, 50, 100], "walker2d"))
    assert found.tasks == ["Hopper-v5", "Walker2d-v5"]
    hopper, walker = found.scores["ppo"]
    assert hopper.tolist() == [0.0, 0.5, 1.0]
    assert walker.tolist() == [0.5, 0.75, 1.0]
    figures = {name: estimate.value for name, estimate in found.figures["ppo"].items()}
    assert figures == pytest.approx(
        # Of six scores one is dropped at each end.
        {
            "IQM": np.mean([0.5, 0.5, 0.75, 1.0]),
            "median": 0.625,
            "mean": 0.625,
            "optimality gap": 0.375,
        }
    )
    for name, estimate in found.figures["ppo"].items():
        low, high = estimate.interval
        assert low < estimate.value < high, name


def test_a_minimum_can_be_the_better_end():
    assert Scale(min=10.0, max=0.0).normalize(np.array([5.0])).tolist() == [0.5]


def test_only_tasks_that_all_methods_have_count():
    found = aggregated(
        *(seeds("ppo", [0, 50, 100]), seeds("ppo", [0, 50, 100], "walker2d")),
        *(seeds("sac", [0, 50, 100]), seeds("sac", [0, 50, 100], "cartpole")),
    )
    assert (found.tasks, found.scores, found.figures) == ([], {}, {})
    # One task in common is enough for a pair.
    (pair,) = found.improvements
    assert pair.tasks == ["Hopper-v5"]


def test_a_variant_on_a_single_task_takes_no_statistics_from_the_others():
    whole = [seeds("ppo", [0, 50, 100]), seeds("ppo", [0, 50, 100], "walker2d")]
    found = aggregated(*whole, seeds("sac", [0, 50, 100]))
    assert found.figures == aggregated(*whole).figures != {}
    assert [(pair.method, pair.other) for pair in found.improvements] == [("ppo", "sac")]


def test_a_task_without_a_scale_does_not_count():
    runs = [seeds("ppo", [0, 50, 100], env) for env in ("hopper", "walker2d", "cartpole")]
    assert aggregated(*runs).tasks == ["Hopper-v5", "Walker2d-v5"]
    assert aggregated(*runs[::2]).tasks == []


def test_improvement_of_each_pair():
    found = aggregated(
        *(seeds("ppo", [1, 2, 3]), seeds("sac", [2, 2, 9]), seeds("td3", [10, 11, 12])),
    )
    pairs = {(row.method, row.other): row.probability for row in found.improvements}
    assert list(pairs) == [("ppo", "sac"), ("ppo", "td3"), ("sac", "td3")]
    assert pairs["ppo", "sac"].value == pytest.approx((0 + 0 + 0 + 0.5 + 0.5 + 0 + 1 + 1 + 0) / 9)
    assert (pairs["ppo", "td3"].value, pairs["ppo", "td3"].interval) == (0.0, (0.0, 0.0))


def test_too_few_seeds_have_a_value_without_an_interval():
    found = aggregated(seeds("ppo", [1, 2]), seeds("sac", [2, 2, 9]))
    assert found.improvements[0].probability.interval is None


def test_the_published_scales_are_found():
    scales = read_scales(published_file())
    assert scales["Hopper-v5"].max > 3000
    assert scales["Hopper-v5"].min < 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scores: {a: {min: 1, max: 1}}", "scores.a.max must be another number than min, got 1.0"),
        ("scores: {a: {min: 1}}", "scores.a.max is missing"),
        ("scores: {a: {min: 1, max: x}}", "scores.a.max: expected a number, got 'x'"),
        ("scores: {a: {min: 1, max: .inf}}", "scores.a.max must be finite"),
        ("scores: {a: {mini: 1, max: 2}}", "scores.a.mini: no such setting; did you mean"),
        ("scores: [1]", "scores: expected a mapping"),
        ("score: {}", "no 'scores', which has min and max by environment"),
        ("[", "cannot be read: while parsing"),
        ("3", "no 'scores'"),
    ],
)
def test_a_file_of_scales_that_is_none_is_one_line(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_scales(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_scales_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"mine.yaml cannot be read: .* No such file"):
        read_scales(tmp_path / "mine.yaml")
