"""What keeps a comparison honest: a line for everything that is not equal beside the methods."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rlrun.analysis.comparison import Comparison
from rlrun.analysis.grouping import show_value
from rlrun.analysis.statistics import MIN_SEEDS
from rlrun.analysis.stored_runs import StoredRun
from rlrun.config.experiment import Evaluation

# Names that a line lists before it counts the rest.
MOST_LISTED = 6

# Runs, whose names are long, that it lists of those that were left out for one reason.
MOST_ALIKE = 2

LOST_END = "finished, but the evaluation at the end is missing in metrics.jsonl"

# Where something stands, such as a task, and what there is to say of it.
Remark = tuple[str, str]


def cautions(comparison: Comparison) -> list[str]:
    """Say in lines what a reader of a comparison has to know; one line for all tasks that share it.

    Args:
        comparison: any.
    """
    places: dict[str, list[str]] = {}
    for find in FINDERS:
        for place, text in find(comparison):
            places.setdefault(text, []).append(place)
    return [f"{listed(found)}: {text}" if any(found) else text for text, found in places.items()]


def left_out(comparison: Comparison) -> Iterator[Remark]:
    """Name the runs that could not be compared, those with one reason together."""
    reasons: dict[str, list[str]] = {}
    for run, reason in comparison.left_out:
        reasons.setdefault(reason, []).append(run.source)
    if reasons:
        words = (
            f"{names[0]} {reason}"
            if len(names) == 1
            else f"{len(names)} runs, each of which {reason}: {listed(names, most=MOST_ALIKE)}"
            for reason, names in reasons.items()
        )
        yield "", f"left out: {listed(words, '; ')}"


def lost_ends(comparison: Comparison) -> Iterator[Remark]:
    """Name the runs whose metrics lost their last evaluation, without which their figure is."""
    if comparison.steps is None:  # else the end of a run does not count
        for (task, method), runs in comparison.grouping.runs.items():
            names = [run.source for run in runs if run.lost_its_end]
            if names:
                yield f"{method} on {task}", f"{LOST_END}: {listed(names)}"


def other_versions(comparison: Comparison) -> Iterator[Remark]:
    """Name versions of one environment: Hopper-v4 beside v5."""
    versions: dict[str, dict[str, None]] = {}
    for run in comparison.runs:
        versions.setdefault(re.sub(r"-v\d+$", "", run.env_id), {})[run.env_id] = None
    for ids in versions.values():
        if len(ids) > 1:
            yield "", f"{' and '.join(ids)} are different tasks, whose returns do not compare"


def unequal(comparison: Comparison) -> Iterator[Remark]:
    """Name what differs among the runs of a task that should be equal."""
    for task in comparison.grouping.tasks:
        for what, value_of in EQUAL.items():
            methods: dict[str, dict[str, None]] = {}
            for method in comparison.grouping.methods_of(task):
                for run in comparison.grouping.runs[task, method]:
                    value = value_of(run)
                    if value is not None:  # else nobody wrote it down
                        methods.setdefault(value, {})[method] = None
            if len(methods) > 1:
                values = (f"{value} ({', '.join(names)})" for value, names in methods.items())
                yield task, f"{what}: {listed(values)}"


def tuned_on_reported_seeds(comparison: Comparison) -> Iterator[Remark]:
    """Name seeds on which values were chosen, and which are reported."""
    for (task, method), runs in comparison.grouping.runs.items():
        seeds = sorted({run.seed for run in runs if run.seed in run.tuned_on})
        if seeds:
            names = listed(map(str, seeds))
            yield f"{method} on {task}", f"values were chosen on seeds of this table: {names}"


def repeated_seeds(comparison: Comparison) -> Iterator[Remark]:
    """Name seeds that a method has more than once on a task."""
    for (task, method), row in comparison.figures.items():
        repeated = [str(seed) for seed, count in Counter(row.seeds).items() if count > 1]
        if repeated:
            yield f"{method} on {task}", f"more than one run of seed {listed(repeated)}"


def unequal_seeds(comparison: Comparison) -> Iterator[Remark]:
    """Name tasks whose methods have other seeds, or more of them."""
    for task in comparison.grouping.tasks:
        methods: dict[str, list[str]] = {}
        for method in comparison.grouping.methods_of(task):
            seeds = ", ".join(map(str, comparison.figures[task, method].seeds))
            methods.setdefault(seeds, []).append(method)
        if len(methods) > 1:
            values = (f"{seeds} ({', '.join(names)})" for seeds, names in methods.items())
            yield task, f"unequal seeds: {listed(values, '; ')}"


def too_few_seeds(comparison: Comparison) -> Iterator[Remark]:
    """Name methods with too few seeds for an interval."""
    few = [row for row in comparison.figures.values() if len(row.seeds) < MIN_SEEDS]
    if few:
        names = listed(f"{row.method} on {row.task} ({len(row.seeds)})" for row in few)
        yield "", f"no interval under {MIN_SEEDS} seeds: {names}"


def on_a_single_task(comparison: Comparison) -> Iterator[Remark]:
    """Name the methods that statistics over tasks are without."""
    grouping = comparison.grouping
    broad = grouping.methods_over_tasks
    if len(grouping.common_tasks(broad)) > 1:
        for task, method in grouping.runs:
            if method not in broad:
                yield f"{method} on {task}", "no other task, and so not in what is over tasks"


def pooled(comparison: Comparison) -> Iterator[Remark]:
    """Name what differs within a method that the user put together."""
    for (task, method), found in comparison.grouping.pooled.items():
        if found:
            keys = (f"{key} ({', '.join(map(show_value, v))})" for key, v in found.items())
            yield f"{method} on {task}", f"pools runs that differ in {listed(keys)}"


def budget(run: StoredRun) -> str:
    """Write how long a run was to be."""
    return f"{run.total_steps:,}"


def interval(run: StoredRun) -> str | None:
    """Write how far apart a run's evaluations are."""
    if "evaluation.every_steps" not in run.settings:
        return None
    every = run.settings["evaluation.every_steps"]
    usual = Evaluation(every_steps=every, episodes=1, max_length=1)
    return show_value(usual.interval(run.total_steps))


def commit(run: StoredRun) -> str | None:
    """Write the code that a run was made with; that which was edited since is no one's."""
    edited = "+changes" if run.commit and run.commit.endswith("+changes") else ""
    return f"{run.commit[:7]}{edited}" if run.commit else None


def machine(run: StoredRun) -> str | None:
    """Write where a run was made."""
    parts = (run.settings.get(key) for key in ("hardware.device", "hardware.threads"))
    named = run.cpu or run.host
    return named and "; ".join([named, *(show_value(part) for part in parts)])


def setting(key: str) -> Callable[[StoredRun], str | None]:
    """Return what writes a run's value of a setting."""
    return lambda run: show_value(run.settings[key]) if key in run.settings else None


def version(package: str) -> Callable[[StoredRun], str | None]:
    """Return what writes a run's version of a package."""
    return lambda run: run.versions.get(package)


# What should be equal among the runs of a task.
EQUAL: dict[str, Callable[[StoredRun], str | None]] = {
    "unequal budgets in steps (--steps N compares at a common one)": budget,
    "unequal episodes of an evaluation": setting("evaluation.episodes"),
    "unequal steps between evaluations": interval,
    "unequal lengths of an episode of an evaluation": setting("evaluation.max_length"),
    "unequal code": commit,
    **{f"unequal versions of {name}": version(name) for name in ("torch", "mujoco", "gymnasium")},
    "times are of unequal machines (processor; device; threads)": machine,
}

FINDERS: tuple[Callable[[Comparison], Iterator[Remark]], ...] = (
    left_out,
    lost_ends,
    other_versions,
    tuned_on_reported_seeds,
    repeated_seeds,
    too_few_seeds,
    unequal_seeds,
    unequal,
    on_a_single_task,
    pooled,
)


def listed(names: Iterable[Any], separator: str = ", ", most: int = MOST_LISTED) -> str:
    """Write names behind each other, and how many there are more than a line has room for."""
    words = list(names)
    more = len(words) - most
    return separator.join(words[:most]) + (f" and {more} more" if more > 0 else "")
