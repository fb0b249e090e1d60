import functools

import numpy as np
import pytest

from rlrun.analysis.statistics import bootstrap_interval, interquartile_mean

mean = functools.partial(np.mean, axis=-1)


def interval(scores, statistic=mean, confidence=0.95, resamples=20_000):
    return bootstrap_interval(
        np.asarray(scores, dtype=float),
        statistic,
        confidence=confidence,
        resamples=resamples,
        generator=np.random.default_rng(0),
    )


def test_interquartile_mean_by_hand():
    # A quarter of 5 is 1 when rounded down: 2, 3 and 7 are left.
    assert interquartile_mean(np.array([100.0, 3.0, 2.0, -50.0, 7.0])) == 4.0
    # A quarter of 8 is 2.
    assert interquartile_mean(np.arange(8.0) ** 2) == (4 + 9 + 16 + 25) / 4
    assert interquartile_mean(np.array([1.0, 2.0, 6.0])) == 3.0


def test_interquartile_mean_is_taken_along_the_last_axis():
    scores = np.random.default_rng(0).normal(size=(4, 3, 9))
    expected = [[interquartile_mean(row) for row in block] for block in scores]
    np.testing.assert_array_equal(interquartile_mean(scores), expected)


def test_interquartile_mean_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    for count in range(1, 30):
        scores = np.random.default_rng(count).normal(size=count)
        assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25))


def test_interval_of_three_seeds_by_enumeration():
    # The 27 resamples of (0, 0, 1) have mean k/3 with the binomial weights of p = 1/3:
    # 8, 12, 6, 1 of 27. The quantiles 1/10 and 9/10 fall into k = 0 and k = 2.
    assert interval([[0, 0, 1]], confidence=0.8) == (0.0, 2 / 3)
    # 1/27 is more than 2.5 %.
    assert interval([[0, 0, 1]], confidence=0.95) == (0.0, 1.0)


def test_interval_of_the_mean_is_near_the_normal_one_for_many_seeds():
    scores = np.random.default_rng(1).normal(size=(1, 400))
    error = scores.std() / np.sqrt(400)
    low, high = interval(scores)
    assert low == pytest.approx(scores.mean() - 1.96 * error, abs=0.05 * error)
    assert high == pytest.approx(scores.mean() + 1.96 * error, abs=0.05 * error)


def test_resamples_stay_within_their_environment():
    # Without strata the shares of the two environments would vary and with them the mean.
    assert interval([[0, 0, 0], [100, 100, 100]]) == (50.0, 50.0)


def test_interval_is_the_same_for_the_same_generator():
    scores = np.random.default_rng(2).normal(size=(2, 5))
    assert interval(scores, interquartile_mean) == interval(scores, interquartile_mean)


@pytest.mark.parametrize("seeds", [1, 2])
def test_no_interval_under_three_seeds(seeds):
    with pytest.raises(ValueError, match=f"at least 3 seeds, got {seeds}"):
        interval(np.zeros((4, seeds)))
