"""Figures of methods over seeds and tasks, with their bootstrap intervals.

Scores are one array a task, each [..., S]: in its last axis are the seeds, of which there may be
more on one task than on another. With more than one task they need a common scale. The axes before
are anything that is computed side by side: resamples, points of a curve.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (arXiv 2108.13264); the numbers are those of its library, rliable.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

MIN_SEEDS = 3  # the resamples of two seeds have three different means: no interval can be read off
CONFIDENCE = 0.95
RESAMPLES = 10_000  # which give the ends of an interval to about 1 % of its width

Scores = Sequence[NDArray[np.float64]]


def interquartile_mean(scores: Scores) -> NDArray[np.float64]:
    """Mean of what is left of all scores after dropping their lowest and their highest quarter.

    As scipy.stats.trim_mean(all scores, 0.25): a quarter of the number of scores is rounded down,
    so of five scores the middle three are averaged.

    Args:
        scores: one array a task, [..., S]; all of them count alike.

    Returns:
        Shape [...].
    """
    pooled = np.concatenate(scores, axis=-1)
    count = pooled.shape[-1]
    dropped = count // 4
    return np.sort(pooled, axis=-1)[..., dropped : count - dropped].mean(axis=-1)


def mean(scores: Scores) -> NDArray[np.float64]:
    """Mean over tasks of the mean over seeds, [...]."""
    return np.mean([task.mean(axis=-1) for task in scores], axis=0)


def median(scores: Scores) -> NDArray[np.float64]:
    """Median over tasks of the mean over seeds, [...]."""
    return np.median([task.mean(axis=-1) for task in scores], axis=0)


def optimality_gap(scores: Scores, *, target: float = 1.0) -> NDArray[np.float64]:
    """How far scores stay below a target, 0 beyond it: E[max(target − score, 0)], [...]."""
    return mean([np.maximum(target - task, 0.0) for task in scores])


def performance_profile(scores: Scores, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the scores above each level, P(score > level), a mean over tasks.

    Args:
        scores: one array a task, [..., S].
        levels: shape [L].

    Returns:
        Shape [L, ...].
    """
    return mean(
        [
            (task > levels.reshape(-1, *[1] * task.ndim)).astype(np.float64)  # [L, ..., S]
            for task in scores
        ]
    )


def probability_of_improvement(scores: Scores, others: Scores) -> NDArray[np.float64]:
    """How probably a method is better than another one on a task drawn at random.

    P(X > Y) + P(X = Y) / 2 for each task, which is the Mann-Whitney U statistic over the number of
    pairs, and the mean of that over tasks.

    Args:
        scores: of the one method, one array a task, [..., S].
        others: of the other method on the same tasks, [..., S'].

    Returns:
        Shape [...].
    """
    wins = []
    for x, y in zip(scores, others, strict=True):
        difference = x[..., :, None] - y[..., None, :]  # [..., S, S']
        wins.append((0.5 + 0.5 * np.sign(difference)).mean(axis=(-1, -2)))
    return np.mean(wins, axis=0)


def bootstrap_interval(
    statistic: Callable[..., NDArray[np.float64]],
    *methods: Scores,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap interval of a statistic over seeds, stratified by task.

    Every resample draws as many seeds as there are, with replacement, for each task and method on
    its own, so that each task keeps its weight. The generator of the resamples is always the same:
    the same scores have the same interval.

    Args:
        statistic: maps the scores of the methods, [..., S] each, to [...].
        methods: scores of each method that the statistic compares. Their leading axes are drawn
            together: the points of a curve belong to one run.
        confidence: coverage, 0.95 for a 95 % interval.
        resamples: R.

    Returns:
        Lower and upper end, of the statistic's shape.

    Raises:
        ValueError: a task has fewer than three seeds.
    """
    generator = np.random.default_rng(0)
    resampled = []
    for scores in methods:
        drawn = []
        for task in scores:
            seeds = task.shape[-1]
            if seeds < MIN_SEEDS:
                raise ValueError(f"an interval needs at least {MIN_SEEDS} seeds, got {seeds}")
            drawn.append(task[..., generator.integers(seeds, size=(resamples, seeds))])
        resampled.append(drawn)  # [..., R, S]
    values = statistic(*resampled)  # [..., R]
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=-1)
    return low, high
