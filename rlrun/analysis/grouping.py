"""Which runs are one method on one task, found by what differs in their configs.

A **task** is an environment with its settings. A **method** is an algorithm with its advantage
estimator, collector and model; where runs of one task differ in other settings, those are part of
it, too. Between tasks settings may differ: values for one pair (``conf/tuned/``) are no other
method. So a setting that differs on one task is named there; on the others only if they agree on
it, as the tasks do on which a sweep has not come further than one value.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlrun.analysis.stored_runs import CHOICES, StoredRun
from rlrun.errors import UserError, did_you_mean

# Choices that make a method, beside the algorithm.
PARTS = ("advantage", "collector", "model")

# Settings, or groups of them, that do not decide what a run computes: with other values it is the
# same job of a sweep.
BESIDE = (
    "run_dir",
    "hardware",
    "logger",
    "tags",
    "group",
    "tuned_on",
    "checkpoint",
    "log_every_steps",
)

# Those that say how a run is done and not what it does. `cautions.py` has something to say of those
# that matter.
NO_METHOD = (*BESIDE, "seed", "total_steps", "evaluation", "plugins")

# Of the environment: how it is stepped, which changes nothing in what it does.
NO_TASK = ("env.workers", "env.worker_timeout", "env.plugins")

# What `--by` can name beside choices and settings.
FACTS: dict[str, Callable[[StoredRun], Any]] = {
    "commit": lambda run: run.commit and run.commit[:7],
    "host": lambda run: run.host,
    "rlrun": lambda run: run.versions.get("rlrun"),
}


class Absent:
    """Stands for the value of a setting that a config does not have."""


ABSENT = Absent()

Values = Mapping[str, Any]  # by path of a setting, or by name of a choice


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Runs by task and method.

    Attributes:
        tasks: names, in the order in which they appeared.
        methods: the same of methods.
        runs: of each task and method that has some.
        pooled: what differs within those, values by setting; empty unless the user grouped them.
    """

    tasks: list[str]
    methods: list[str]
    runs: dict[tuple[str, str], list[StoredRun]]
    pooled: dict[tuple[str, str], dict[str, list[Any]]]

    def methods_of(self, task: str) -> list[str]:
        """Return the methods that have runs on a task."""
        return [method for method in self.methods if (task, method) in self.runs]

    @property
    def compared_tasks(self) -> list[str]:
        """The tasks of more than one method; of a single method, all of them."""
        fewest = min(2, len(self.methods))
        return [task for task in self.tasks if len(self.methods_of(task)) >= fewest]

    @property
    def methods_over_tasks(self) -> list[str]:
        """The methods that have runs on more than one task."""
        count = Counter(method for _, method in self.runs)
        return [method for method in self.methods if count[method] > 1]

    def common_tasks(self, methods: Iterable[str]) -> list[str]:
        """Return the tasks on which all of the methods have runs."""
        names = list(methods)
        return [task for task in self.tasks if all((task, name) in self.runs for name in names)]


def group(runs: Sequence[StoredRun], by: Sequence[str] = ()) -> Grouping:
    """Sort runs into tasks and methods.

    Args:
        runs: at least one.
        by: choices ("advantage") and settings ("algo.gamma") that make a method, in place of what
            is found.

    Raises:
        UserError: the runs have no choice or setting of such a name.
    """
    tasks = names_of_tasks(runs)
    methods = names_by(runs, by) if by else names_of_methods(runs, tasks)
    cells: dict[tuple[str, str], list[StoredRun]] = {}
    for run, task, method in zip(runs, tasks, methods, strict=True):
        cells.setdefault((task, method), []).append(run)
    return Grouping(
        tasks=list(dict.fromkeys(tasks)),
        methods=list(dict.fromkeys(methods)),
        runs=cells,
        pooled={cell: differences(members) for cell, members in cells.items()} if by else {},
    )


def names_of_tasks(runs: Sequence[StoredRun]) -> list[str]:
    """Name each run's task: "Hopper-v5", with what differs among the runs of one environment."""
    names = [run.env_id for run in runs]
    for env_id in dict.fromkeys(names):
        members = [number for number, run in enumerate(runs) if run.env_id == env_id]
        settings = [runs[number].settings for number in members]
        keys = distinguishing(settings, is_of_task)
        for number, words in zip(members, descriptions(settings, keys), strict=True):
            names[number] = " ".join([env_id, *words])
    return names


def names_of_methods(runs: Sequence[StoredRun], tasks: Sequence[str]) -> list[str]:
    """Name each run's method in as few words as tell it from the others: "ppo clip=0.1"."""
    names = [run.choices["algo"] for run in runs]
    for algo in dict.fromkeys(names):
        of_algo = [number for number, run in enumerate(runs) if run.choices["algo"] == algo]
        choices = [runs[number].choices for number in of_algo]
        parts = distinguishing(choices, lambda name: name in PARTS)
        for number, words in zip(of_algo, descriptions(choices, parts), strict=True):
            names[number] = " ".join([algo, *words])
    for name in dict.fromkeys(names):
        of_tasks: dict[str, list[int]] = {}
        for number in (number for number, other in enumerate(names) if other == name):
            of_tasks.setdefault(tasks[number], []).append(number)
        settings = {t: [runs[number].settings for number in of_tasks[t]] for t in of_tasks}
        keys = {task: distinguishing(settings[task], is_of_method) for task in settings}
        every = list(dict.fromkeys(key for found in keys.values() for key in found))
        for task, numbers in of_tasks.items():
            named = [
                key
                for key in every
                if key in keys[task]
                or agree(key, [settings[t] for t in keys if key not in keys[t]])
            ]
            words_of_runs = descriptions(settings[task], named, every)
            for number, words in zip(numbers, words_of_runs, strict=True):
                names[number] = " ".join([name, *words])
    return names


def agree(key: str, tasks: Sequence[Sequence[Values]]) -> bool:
    """Tell whether the runs of all these tasks have one value of a setting, as far as it is known.

    Where they have, it is no value for one pair.
    """
    known = {frozen(value_of(values, key)) for task in tasks for values in task}
    return len(known - {ABSENT}) == 1


def names_by(runs: Sequence[StoredRun], keys: Sequence[str]) -> list[str]:
    """Name each run's method by choices and settings that the user named.

    Raises:
        UserError: there is no such choice or setting.
    """
    every = {*FACTS, *(name for run in runs for name in (*run.choices, *run.settings))}
    for key in keys:
        if key not in every:
            raise UserError(f"--by {key}: no such choice or setting{did_you_mean(key, every)}")
    known = []
    for run in runs:
        values = {key: FACTS[key](run) for key in keys if key in FACTS}
        for key in set(keys) - set(FACTS):
            values[key] = value_of(run.choices if key in CHOICES else run.settings, key)
        known.append(values)
    names = []
    for values, words in zip(known, descriptions(known, keys), strict=True):
        if "algo" in keys:  # stands for itself, as in the names that are found
            words.remove(f"algo={values['algo']}")
            words.insert(0, values["algo"])
        names.append(" ".join(words) or "other runs")
    return names


def differences(runs: Sequence[StoredRun]) -> dict[str, list[Any]]:
    """Return the choices and settings of a method in which runs differ, with their values."""
    found = {}
    for values, is_relevant in (
        ([run.choices for run in runs], lambda name: name in ("algo", *PARTS)),
        ([run.settings for run in runs], is_of_method),
    ):
        for key in distinguishing(values, is_relevant):
            present = (value_of(value, key) for value in values)
            found[key] = [v for v in {frozen(v): v for v in present}.values() if v is not ABSENT]
    return found


def is_of_task(key: str) -> bool:
    """Tell whether a setting says what the environment is."""
    return key.startswith("env.") and key not in NO_TASK and not is_of_code(key)


def is_of_method(key: str) -> bool:
    """Tell whether a setting says what a method does."""
    group = key.partition(".")[0]
    return group not in (*NO_METHOD, "env") and not is_of_code(key)


def is_of_code(key: str) -> bool:
    """Tell whether a key names code (``_target_``): the choice of its group says as much."""
    return key.rpartition(".")[2].startswith("_")


def distinguishing(values: Sequence[Values], is_relevant: Callable[[str], bool]) -> list[str]:
    """Return the keys whose values differ, in the order of the configs.

    A key that is in some of them alone was added by another version of rlrun, which says nothing of
    what the runs did. Only arguments of the environment's own are added by users.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for key in dict.fromkeys(key for mapping in values for key in mapping if is_relevant(key)):
        column = tuple(frozen(value_of(mapping, key)) for mapping in values)
        present = set(column) if key.startswith("env.options.") else set(column) - {ABSENT}
        # What is interpolated (${algo.num_envs}) differs wherever its origin does.
        if len(present) > 1 and column not in found.values():
            found[key] = column
    return list(found)


def value_of(values: Values, key: str) -> Any:
    """Return a setting's value; that of what would contain it (``algo.kl: null``) if there is none.

    Returns:
        The value; ABSENT if nothing is known of it.
    """
    while key:
        if key in values:
            return values[key]
        key = key.rpartition(".")[0]
    return ABSENT


def descriptions(
    values: Sequence[Values], keys: Sequence[str], among: Sequence[str] = ()
) -> list[list[str]]:
    """Write for each config what it has at some keys: ["clip=0.1", "gamma=0.99"].

    Args:
        values: of each config.
        keys: that are written.
        among: keys from which their names have to tell them, if those are more.
    """
    names = {key: shortest(key, among or keys) for key in keys}
    return [
        [
            f"{names[key]}={show_value(value)}"
            for key in keys
            if (value := value_of(mapping, key)) is not ABSENT
        ]
        for mapping in values
    ]


def shortest(key: str, keys: Sequence[str]) -> str:
    """Return the end of a key that no other one has: "clip" of "algo.clip"."""
    words = key.split(".")
    for count in range(1, len(words)):
        end = words[-count:]
        if all(other == key or other.split(".")[-count:] != end for other in keys):
            return ".".join(end)
    return key


def show_value(value: Any) -> str:
    """Write a setting's value as the command line does."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(show_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{show_value(v)}' for key, v in value.items())}}}"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def frozen(value: Any) -> Any:
    """Return a value that can be in a set, equal where the values are."""
    if isinstance(value, list):
        return tuple(map(frozen, value))
    if isinstance(value, dict):
        return frozenset((key, frozen(member)) for key, member in value.items())
    return value
