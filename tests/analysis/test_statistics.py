import functools

import numpy as np
import pytest

from rlrun.analysis.statistics import (
    bootstrap_interval,
    interquartile_mean,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)


def interval(*scores, statistic=mean, confidence=0.95, resamples=20_000):
    arrays = [np.asarray(task, dtype=float) for task in scores]
    low, high = bootstrap_interval(statistic, arrays, confidence=confidence, resamples=resamples)
    return float(low), float(high)


# ---------------------------------------------------------------------- by hand


def test_interquartile_mean_by_hand():
    # A quarter of 5 is 1 when rounded down: 2, 3 and 7 are left.
    assert interquartile_mean([np.array([100.0, 3.0, 2.0, -50.0, 7.0])]) == 4.0
    # A quarter of 8 is 2.
    assert interquartile_mean([np.arange(8.0) ** 2]) == (4 + 9 + 16 + 25) / 4
    assert interquartile_mean([np.array([1.0, 2.0, 6.0])]) == 3.0


def test_interquartile_mean_is_of_all_scores_together():
    tasks = [np.array([100.0, 3.0]), np.array([2.0, -50.0, 7.0])]
    assert interquartile_mean(tasks) == 4.0


def test_interquartile_mean_is_taken_along_the_last_axis():
    scores = np.random.default_rng(0).normal(size=(4, 3, 9))
    expected = [[interquartile_mean([row]) for row in block] for block in scores]
    np.testing.assert_array_equal(interquartile_mean([scores]), expected)


def test_tasks_of_unequal_seeds_weigh_alike_in_means():
    tasks = [np.array([1.0, 2.0, 3.0, 6.0]), np.array([0.0, 1.0]), np.array([9.0])]
    assert mean(tasks) == pytest.approx((3 + 0.5 + 9) / 3)
    assert median(tasks) == 3.0
    assert optimality_gap(tasks) == pytest.approx((0 + 0.5 + 0) / 3)
    assert optimality_gap(tasks, target=2.0) == pytest.approx((0.25 + 1.5 + 0) / 3)


def test_profile_is_the_share_above_each_level():
    tasks = [np.array([0.0, 0.5, 1.0, 1.0]), np.array([0.5, 2.0])]
    levels = np.array([-1.0, 0.5, 1.0, 2.0])
    assert performance_profile(tasks, levels).tolist() == [1.0, 0.5, 0.25, 0.0]


def test_improvement_counts_a_tie_as_half():
    x, y = [np.array([1.0, 2.0])], [np.array([1.0, 0.0, 5.0])]
    # 1 = 1, 1 > 0, 1 < 5, 2 > 1, 2 > 0, 2 < 5
    assert probability_of_improvement(x, y) == pytest.approx((0.5 + 1 + 0 + 1 + 1 + 0) / 6)
    both = probability_of_improvement([*x, x[0]], [*y, np.array([9.0, 9.0])])
    assert both == pytest.approx((3.5 / 6 + 0) / 2)


def test_interval_of_three_seeds_by_enumeration():
    # The 27 resamples of (0, 0, 1) have mean k/3 with the binomial weights of p = 1/3:
    # 8, 12, 6, 1 of 27. The quantiles 1/10 and 9/10 fall into k = 0 and k = 2.
    assert interval([0, 0, 1], confidence=0.8) == (0.0, 2 / 3)
    # 1/27 is more than 2.5 %.
    assert interval([0, 0, 1], confidence=0.95) == (0.0, 1.0)


def test_interval_of_the_mean_is_near_the_normal_one_for_many_seeds():
    scores = np.random.default_rng(1).normal(size=400)
    error = scores.std() / np.sqrt(400)
    low, high = interval(scores)
    assert low == pytest.approx(scores.mean() - 1.96 * error, abs=0.05 * error)
    assert high == pytest.approx(scores.mean() + 1.96 * error, abs=0.05 * error)


def test_resamples_stay_within_their_task():
    # Without strata the shares of the two tasks would vary and with them the mean.
    assert interval([0, 0, 0], [100, 100, 100, 100]) == (50.0, 50.0)


def test_methods_are_resampled_apart():
    # Drawn together, a method would never beat itself or be beaten: P = 1/2 in all resamples.
    scores = [np.arange(5.0)]
    low, high = bootstrap_interval(probability_of_improvement, scores, scores)
    assert low < 0.3
    assert high > 0.7


def test_points_of_a_curve_are_drawn_together():
    curve = np.array([[1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0]])  # [P, S]
    low, high = bootstrap_interval(mean, [curve])
    assert low.shape == (2,)
    assert low[1] == 2 * low[0]
    assert high[1] == 2 * high[0]


def test_the_same_scores_have_the_same_interval():
    scores = np.random.default_rng(2).normal(size=(2, 5))
    assert interval(*scores) == interval(*scores)


@pytest.mark.parametrize("seeds", [1, 2])
def test_no_interval_under_three_seeds(seeds):
    with pytest.raises(ValueError, match=f"at least 3 seeds, got {seeds}"):
        interval(np.zeros(5), np.zeros(seeds))


# ---------------------------------------------------------------------- as the field's library


@pytest.fixture(scope="module")
def rliable():
    """Agarwal et al.'s own library."""
    import rliable.library
    import rliable.metrics

    return rliable


SHAPES = [(5, 1), (5, 4), (10, 3), (3, 8)]  # seeds and tasks, as rliable has them


def scores_of(shape, shift=0.0):
    """Scores as rliable has them, [S, tasks], and as rlrun has them."""
    generator = np.random.default_rng([int(100 * shift), *shape])
    matrix = generator.normal(0.6 + shift, 0.5, size=shape).round(2)  # with ties
    return matrix, list(matrix.T)


POINT_ESTIMATES = {
    "aggregate_iqm": interquartile_mean,
    "aggregate_mean": mean,
    "aggregate_median": median,
    "aggregate_optimality_gap": optimality_gap,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", POINT_ESTIMATES)
def test_point_estimates_are_those_of_rliable(rliable, name, shape):
    matrix, tasks = scores_of(shape)
    expected = getattr(rliable.metrics, name)(matrix)
    assert POINT_ESTIMATES[name](tasks) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_improvement_is_that_of_rliable(rliable, shape):
    (x, own_x), (y, own_y) = scores_of(shape), scores_of((shape[0] + 2, shape[1]), shift=0.2)
    expected = rliable.metrics.probability_of_improvement(x, y)
    assert probability_of_improvement(own_x, own_y) == pytest.approx(expected, rel=1e-12)
    itself = rliable.metrics.probability_of_improvement(x, x)
    assert probability_of_improvement(own_x, own_x) == pytest.approx(itself, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_profile_is_that_of_rliable(rliable, shape):
    matrix, tasks = scores_of(shape)
    levels = np.linspace(-1, 2, 31).round(2)
    expected = [rliable.library.run_score_deviation(matrix, level) for level in levels]
    np.testing.assert_allclose(performance_profile(tasks, levels), expected, rtol=1e-12)


def assert_same_interval(found, expected, quantum=0.0):
    """Both are resampled: they agree to a few percent of the width, or to the next value."""
    low, high = expected
    assert found == pytest.approx((low, high), abs=max(0.06 * (high - low), 1.01 * quantum))


@pytest.mark.parametrize("name", POINT_ESTIMATES)
def test_intervals_are_those_of_rliable(rliable, name):
    matrix, tasks = scores_of((10, 3))
    _, intervals = rliable.library.get_interval_estimates(
        {"method": matrix}, lambda x: np.array([getattr(rliable.metrics, name)(x)]), reps=3_000
    )
    found = interval(*tasks, statistic=POINT_ESTIMATES[name])
    assert_same_interval(found, intervals["method"][:, 0])


def test_interval_of_an_improvement_is_that_of_rliable(rliable):
    (x, own_x), (y, own_y) = scores_of((6, 2)), scores_of((8, 2), shift=0.2)
    _, intervals = rliable.library.get_interval_estimates(
        {"x,y": (x, y)}, rliable.metrics.probability_of_improvement, reps=1_000
    )
    found = bootstrap_interval(probability_of_improvement, own_x, own_y)
    assert_same_interval(tuple(map(float, found)), intervals["x,y"][:, 0])


def test_intervals_of_a_profile_are_those_of_rliable(rliable):
    matrix, tasks = scores_of((10, 3))
    levels = np.array([0.0, 0.5, 1.0])
    _, intervals = rliable.library.create_performance_profile(
        {"method": matrix}, levels, reps=2_000
    )
    low, high = bootstrap_interval(functools.partial(profile_at, levels=levels), tasks)
    for point, expected in enumerate(intervals["method"].T):
        assert_same_interval((low[point], high[point]), expected, quantum=1 / matrix.size)


def profile_at(scores, levels):
    return performance_profile(scores, levels)
