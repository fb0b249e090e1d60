"""The figure of a run, from its evaluations, and how it is written; free of torch."""

import math
from collections.abc import Iterable, Mapping

FINAL_SHARE = 0.1  # of a run's steps: the part whose evaluations are its figure


def evaluations(rows: Iterable[Mapping[str, float]]) -> list[tuple[int, float]]:
    """Return the evaluations among rows of metrics.jsonl: environment step and mean return."""
    return [(int(row["step"]), row["eval/return"]) for row in rows if "eval/return" in row]


def final_return(evaluations: Iterable[tuple[int, float]], total_steps: int) -> float:
    """The figure of a run: the mean of the evaluations in the last tenth of its steps.

    Args:
        evaluations: environment step and mean return of each.
        total_steps: environment steps at which the run ends.

    Returns:
        The mean; NaN as long as the last tenth has no evaluation.
    """
    start = (1 - FINAL_SHARE) * total_steps
    final = [value for step, value in evaluations if step >= start]
    return sum(final) / len(final) if final else math.nan


def with_spread(mean: float, deviation: float) -> str:
    """Write a mean beside the standard deviation of what it is of: "0.30 ± 0.95".

    Args:
        mean: of returns.
        deviation: their standard deviation; NaN: nobody wrote it down.
    """
    digits = 2 if abs(mean) < 10 else 1
    spread = f" ± {deviation:,.{digits}f}" if math.isfinite(deviation) else ""
    return f"{mean:,.{digits}f}{spread}"


def headline(mean: float, deviation: float, episodes: int) -> str:
    """Write the return of an evaluation: "0.30 ± 0.95 over 10 episodes".

    Args:
        mean: over its episodes.
        deviation: of them.
        episodes: how many.
    """
    return f"{with_spread(mean, deviation)} over {episodes} episode{'s' if episodes > 1 else ''}"
