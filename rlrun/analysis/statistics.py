"""Figures for a method over seeds: interquartile mean and stratified bootstrap intervals.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (arXiv 2108.13264); the numbers are those of its library, rliable.
"""

from collections.abc import Callable

import numpy as np

MIN_SEEDS = 3  # the resamples of two seeds have three different means: no interval can be read off


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of what is left after dropping the lowest and the highest quarter.

    As scipy.stats.trim_mean(scores, 0.25, axis=-1): a quarter of the number of scores is rounded
    down, so of five scores the middle three are averaged.

    Args:
        scores: shape [..., S].

    Returns:
        Shape [...].
    """
    count = scores.shape[-1]
    dropped = count // 4
    return np.sort(scores, axis=-1)[..., dropped : count - dropped].mean(axis=-1)


def bootstrap_interval(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    confidence: float,
    resamples: int,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over seeds, stratified by environment.

    Every resample draws as many seeds as there are, with replacement, for each environment on its
    own, so that each one keeps its weight; the statistic is taken over all of its scores.

    Args:
        scores: final returns, shape [environments, seeds]. With more than one environment they
            need a common scale.
        statistic: maps shape [R, environments * seeds] to [R], such as `interquartile_mean`.
        confidence: coverage, 0.95 for a 95 % interval.
        resamples: R, the number of resamples; 2,000 give the ends to about 3 % of the width.
        generator: source of the resamples.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: fewer than three seeds.
    """
    environments, seeds = scores.shape
    if seeds < MIN_SEEDS:
        raise ValueError(f"an interval needs at least {MIN_SEEDS} seeds, got {seeds}")
    drawn = generator.integers(seeds, size=(resamples, environments, seeds))
    samples = np.take_along_axis(scores[None], drawn, axis=-1)  # [R, environments, seeds]
    values = statistic(samples.reshape(resamples, -1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
