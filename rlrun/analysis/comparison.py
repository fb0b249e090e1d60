"""What methods reach: the figures of each on each task, over its seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rlrun.analysis.grouping import Grouping, group
from rlrun.analysis.selection import cut, why_left_out
from rlrun.analysis.statistics import MIN_SEEDS, bootstrap_interval, interquartile_mean
from rlrun.analysis.stored_runs import StoredRun
from rlrun.errors import UserError, did_you_mean

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Reached:
    """When a method reached a return: medians over its seeds, of which the others count as never.

    Attributes:
        threshold: the return.
        seeds: how many reached it.
        steps: environment steps of the first evaluation there; infinite: half or more never did.
        minutes: the same; NaN where nobody wrote down the time.
    """

    threshold: float
    seeds: int
    steps: float
    minutes: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a method reaches on a task.

    Attributes:
        task: its name.
        method: its name.
        seeds: of the runs, in the order of `finals`.
        steps: environment steps at which the runs end, the fewest and the most.
        finals: figure of each run, the mean of the evaluations in the last tenth of its steps, [S].
        mean: over seeds.
        deviation: sample standard deviation over seeds; NaN of a single one.
        iqm: interquartile mean over seeds.
        interval: of the interquartile mean, 95 %; None: there are too few seeds.
        best: mean over seeds of the best evaluation of each, which is too good for a figure.
        area: mean return over the steps of a run, by trapezoids, and over seeds.
        minutes: that a run takes, over seeds.
        reached: when it reached the task's threshold; None: the task has none.
        stands_out: whether the whole interval is above those of all other methods.
    """

    task: str
    method: str
    seeds: list[int]
    steps: tuple[int, int]
    finals: NDArray[np.float64]
    mean: float
    deviation: float
    iqm: float
    interval: Interval | None
    best: float
    area: float
    minutes: float
    reached: Reached | None
    stands_out: bool = False

    def numbers(self) -> dict[str, str | float | bool | None]:
        """Return its numbers by name, None for those that there are not: what CSV and JSON have."""
        low, high = self.interval or (math.nan, math.nan)
        reached = self.reached
        values = {
            "n": len(self.finals),
            "steps_min": self.steps[0],
            "steps_max": self.steps[1],
            "mean": self.mean,
            "std": self.deviation,
            "iqm": self.iqm,
            "iqm_low": low,
            "iqm_high": high,
            "best": self.best,
            "area": self.area,
            "minutes": self.minutes,
            "threshold": math.nan if reached is None else reached.threshold,
            "threshold_seeds": math.nan if reached is None else reached.seeds,
            "threshold_steps": math.nan if reached is None else reached.steps,
            "threshold_minutes": math.nan if reached is None else reached.minutes,
        }
        finite = {name: v if math.isfinite(v) else None for name, v in values.items()}
        return {
            "task": self.task,
            "method": self.method,
            **finite,
            "stands_out": self.stands_out,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Methods beside each other.

    Attributes:
        runs: that were compared, cut where they were compared at a common budget.
        left_out: the others, each with the reason.
        grouping: the runs by task and method.
        figures: by task and method.
        steps: the common budget; None: every run counts to its own end.
    """

    runs: list[StoredRun]
    left_out: list[tuple[StoredRun, str]]
    grouping: Grouping
    figures: dict[tuple[str, str], Figures]
    steps: int | None


def compare(
    runs: Sequence[StoredRun],
    *,
    by: Sequence[str] = (),
    steps: int | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> Comparison:
    """Compare the methods that runs are of.

    Args:
        runs: of any methods on any tasks.
        by: choices and settings that make a method; empty: they are found.
        steps: environment steps to compare at, as if longer runs had been stopped there; None: each
            run counts to its own end.
        thresholds: returns to reach, by id or choice of the environment, or ``""`` for all;
            None: those that Gymnasium has for its environments.

    Raises:
        UserError: no run can be compared, no two methods have a task in common, or a threshold's
            environment is not among the runs.
    """
    kept, left_out = [], []
    for run in runs:
        reason = why_left_out(run, steps)
        counted = run if steps is None or reason is not None else cut(run, steps)
        if reason is None and math.isnan(counted.final_return):
            reason = (
                f"has no evaluation in the last tenth of its {counted.last_step:,} steps, which "
                "would be its figure"
            )
        if reason is None:
            kept.append(counted)
        else:
            left_out.append((run, reason))
    if not kept:
        run, reason = left_out[0]
        raise UserError(f"none of {len(runs)} runs can be compared: {run.source} {reason}, say")
    grouping = group(kept, by)
    if len(grouping.methods) > 1 and all(len(grouping.methods_of(t)) < 2 for t in grouping.tasks):
        raise UserError(
            "nothing to compare: no two methods have a task in common "
            f"({', '.join(f'{method} on {task}' for task, method in grouping.runs)})"
        )
    to_reach = thresholds_of(kept, thresholds)
    figures = {}
    for task in grouping.tasks:
        for method in grouping.methods_of(task):
            members = grouping.runs[task, method]
            threshold = to_reach.get(members[0].env_id)
            figures[task, method] = summarize(task, method, members, threshold)
    for task in grouping.tasks:
        mark_what_stands_out(figures, task)
    return Comparison(runs=kept, left_out=left_out, grouping=grouping, figures=figures, steps=steps)


def thresholds_of(runs: Sequence[StoredRun], given: Mapping[str, float] | None) -> dict[str, float]:
    """Return the return to reach by the environment's id.

    Raises:
        UserError: a given one is of an environment that no run has.
    """
    if given is None:
        import gymnasium  # takes 0.2 s

        known = {run.env_id: gymnasium.registry.get(run.env_id) for run in runs}
        return {
            env_id: float(spec.reward_threshold)
            for env_id, spec in known.items()
            if spec is not None and spec.reward_threshold is not None
        }
    names = {name for run in runs for name in (run.env_id, run.choices["env"])}
    for name in given:
        if name and name not in names:
            raise UserError(f"--threshold {name}: no run is of it{did_you_mean(name, names)}")
    found = {}
    for run in runs:
        for name in (run.env_id, run.choices["env"], ""):  # the nearest description first
            if name in given:
                found[run.env_id] = given[name]
                break
    return found


def summarize(
    task: str, method: str, runs: Sequence[StoredRun], threshold: float | None
) -> Figures:
    """Return the figures of the runs of one method on one task, in the order of their seeds."""
    runs = sorted(runs, key=lambda run: run.seed)
    finals = np.array([run.final_return for run in runs])
    ends = [run.last_step for run in runs]
    return Figures(
        task=task,
        method=method,
        seeds=[run.seed for run in runs],
        steps=(min(ends), max(ends)),
        finals=finals,
        mean=float(finals.mean()),
        deviation=float(finals.std(ddof=1)) if len(finals) > 1 else math.nan,
        iqm=float(interquartile_mean([finals])),
        interval=interval_of(finals),
        best=float(np.mean([run.evaluations.returns.max() for run in runs])),
        area=float(np.mean([area(run) for run in runs])),
        minutes=float(np.mean([run.time_s for run in runs])) / 60,
        reached=None if threshold is None else when_reached(runs, threshold),
    )


def interval_of(finals: NDArray[np.float64]) -> Interval | None:
    """Return the 95 % interval of the interquartile mean of figures [S]; None: S is too small."""
    if len(finals) < MIN_SEEDS:
        return None
    low, high = bootstrap_interval(interquartile_mean, [finals])
    return float(low), float(high)


def area(run: StoredRun) -> float:
    """Return the area under a run's curve over its width: the mean return over its steps."""
    curve = run.evaluations
    width = float(curve.steps[-1] - curve.steps[0])
    if width == 0:
        return float(curve.returns[-1])
    return float(np.trapezoid(curve.returns, curve.steps)) / width


def when_reached(runs: Sequence[StoredRun], threshold: float) -> Reached:
    """Return when runs were first evaluated at a return or above it."""
    steps, minutes = [], []
    for run in runs:
        curve = run.evaluations
        there = np.flatnonzero(curve.returns >= threshold)
        steps.append(curve.steps[there[0]] if there.size else math.inf)
        minutes.append(curve.seconds[there[0]] / 60 if there.size else math.inf)
    return Reached(
        threshold=threshold,
        seeds=sum(map(math.isfinite, steps)),
        steps=median(steps),
        minutes=median(minutes),
    )


def median(values: Sequence[float]) -> float:
    """Return the median; of an even number the higher of the two in the middle.

    Half of the seeds that never reach a return make it infinite: no mean of it with a number.
    """
    if any(math.isnan(value) for value in values):
        return math.nan
    return float(sorted(values)[len(values) // 2])


def mark_what_stands_out(figures: dict[tuple[str, str], Figures], task: str) -> None:
    """Mark the method of a task whose whole interval is above those of all others, if there is."""
    intervals = {row.method: row.interval for row in figures.values() if row.task == task}
    for method, interval in intervals.items():
        others = [other for name, other in intervals.items() if name != method]
        # A method without an interval could be anywhere.
        if interval and others and all(other and other[1] < interval[0] for other in others):
            figures[task, method] = replace(figures[task, method], stands_out=True)
