"""What methods reach over several tasks, with returns on a common scale (Agarwal et al. 2021)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from rlrun.analysis.comparison import Comparison, Interval
from rlrun.analysis.statistics import (
    MIN_SEEDS,
    Scores,
    bootstrap_interval,
    interquartile_mean,
    mean,
    median,
    optimality_gap,
    probability_of_improvement,
)
from rlrun.config import schema
from rlrun.config.types import Finite
from rlrun.errors import UserError

# The statistics of a method over tasks, in the order of the tables.
STATISTICS: dict[str, Callable[[Scores], NDArray[np.float64]]] = {
    "IQM": interquartile_mean,
    "median": median,
    "mean": mean,
    "optimality gap": optimality_gap,
}

# Fewer resamples than for one method's figure: there are as many intervals as pairs.
PAIR_RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What 0 and 1 stand for on a task's scale of normalised scores.

    Attributes:
        min: return that is 0, such as that of a policy that acts at random.
        max: return that is 1, such as the best that is published.
    """

    min: Finite
    max: Finite

    def __post_init__(self) -> None:
        if self.min == self.max:
            raise ValueError(f"max must be another number than min, got {self.max}")

    def normalize(self, returns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (return − min) / (max − min), of any shape."""
        return (returns - self.min) / (self.max - self.min)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A statistic and its 95 % interval; None: a task has too few seeds for one."""

    value: float
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Improvement:
    """How probably a method is better than another one on the tasks that both have.

    Attributes:
        method: the one.
        other: the other one.
        tasks: on which they are compared.
        probability: P(X > Y) + P(X = Y) / 2, a mean over tasks.
    """

    method: str
    other: str
    tasks: list[str]
    probability: Estimate


@dataclass(frozen=True, kw_only=True)
class Aggregates:
    """What methods reach over tasks.

    Attributes:
        tasks: that all methods of more than one task have, and a scale; empty: fewer than two, and
            so no figures.
        scales: by task.
        scores: of those methods, normalised: one array a task, [S].
        figures: by method and name of the statistic.
        improvements: of each pair of methods with a task in common.
    """

    tasks: list[str]
    scales: dict[str, Scale]
    scores: dict[str, list[NDArray[np.float64]]]
    figures: dict[str, dict[str, Estimate]]
    improvements: list[Improvement]


def published_file() -> Path:
    """Return the file of published levels: in the wheel, else beside the checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "analysis" / "published.yaml"
    return shipped if shipped.exists() else package.parent / "benchmarks" / "published.yaml"


def read_scales(path: Path) -> dict[str, Scale]:
    """Read the block ``scores`` of a YAML file: {"Hopper-v5": {"min": 18, "max": 3457}, …}.

    Args:
        path: benchmarks/published.yaml, or a file of the user's.

    Raises:
        UserError: there is no such file, or no such block in it.
    """
    try:
        # The user's own, or rlrun's: unlike a run's files, nobody else's.
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read: {reason}") from error
    if not isinstance(content, dict) or "scores" not in content:
        raise UserError(f"{path}: no 'scores', which has min and max by environment")
    return schema.convert(content["scores"], dict[str, Scale], f"{path.name}: scores")


def aggregate(comparison: Comparison, scales: Mapping[str, Scale]) -> Aggregates:
    """Put returns on a common scale and take statistics over tasks.

    Args:
        comparison: of any number of tasks.
        scales: by id or choice of the environment.
    """
    grouping = comparison.grouping
    of_tasks = {}
    for (task, _), runs in grouping.runs.items():
        for name in (runs[0].env_id, runs[0].choices["env"]):
            if name in scales:
                of_tasks[task] = scales[name]
                break
    methods = grouping.methods_over_tasks  # the others say nothing of what these reach
    tasks = [task for task in grouping.common_tasks(methods) if task in of_tasks]
    scores = {}
    if len(tasks) > 1:
        for method in methods:
            finals = (comparison.figures[task, method].finals for task in tasks)
            scores[method] = [
                of_tasks[task].normalize(values) for task, values in zip(tasks, finals, strict=True)
            ]
    return Aggregates(
        tasks=tasks if scores else [],
        scales=of_tasks,
        scores=scores,
        figures={
            method: {name: estimate(statistic, values) for name, statistic in STATISTICS.items()}
            for method, values in scores.items()
        },
        improvements=improvements(comparison),
    )


def improvements(comparison: Comparison) -> list[Improvement]:
    """Compare each method with each that comes after it, on the tasks that both have."""
    found = []
    for method, other in combinations(comparison.grouping.methods, 2):
        tasks = comparison.grouping.common_tasks([method, other])
        if tasks:
            x, y = (
                [comparison.figures[task, name].finals for task in tasks]
                for name in (method, other)
            )
            probability = estimate(probability_of_improvement, x, y, resamples=PAIR_RESAMPLES)
            found.append(
                Improvement(method=method, other=other, tasks=tasks, probability=probability)
            )
    return found


def estimate(
    statistic: Callable[..., NDArray[np.float64]], *methods: Scores, **bootstrap: int
) -> Estimate:
    """Return a statistic of methods' scores, one array [S] a task, with its interval.

    Args:
        statistic: of `statistics.py`.
        methods: scores of each method that it compares.
        bootstrap: as for `bootstrap_interval`.
    """
    interval = None
    if all(len(task) >= MIN_SEEDS for scores in methods for task in scores):
        low, high = bootstrap_interval(statistic, *methods, **bootstrap)
        interval = (float(low), float(high))
    return Estimate(value=float(statistic(*methods)), interval=interval)
