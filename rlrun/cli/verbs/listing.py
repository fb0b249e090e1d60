"""`rlrun list`: the runs under a directory, one a line, or a method a line."""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from rlrun.cli.parser import OneLineParser
from rlrun.cli.verbs.listed_run import NAMES, Listed, describe, show
from rlrun.cli.words import conditions
from rlrun.config import schema
from rlrun.config.files import read_yaml
from rlrun.errors import UserError, did_you_mean, near_path, printable, say, warn
from rlrun.loggers.progress import standard_output
from rlrun.runs.files.directory import find_runs

WIDE = 140  # characters of a terminal that has room for NAMES

# What `--sort` can name, and whether the largest is first.
SORTED_BY: dict[str, tuple[Callable[[Listed], Any], bool]] = {
    "name": (lambda run: run.name, False),
    "return": (lambda run: run.standing and run.standing.last_return, True),
    "steps": (lambda run: run.standing and run.standing.step, True),
    "time": (lambda run: run.standing and run.standing.time_s, True),
    "started": (lambda run: str(run.record.get("started") or "") or None, True),
}


def parser() -> OneLineParser:
    """Returns what reads the words behind `rlrun list`."""
    arguments = OneLineParser("rlrun list", description="Lists the runs under a directory.")
    arguments.add_argument("root", nargs="?", type=Path, default=Path("outputs"))
    arguments.add_argument(
        "--where",
        type=conditions,
        default={},
        metavar="NAME=VALUE,…",
        help="only runs with these choices and settings (algo=ppo,env=hopper,algo.gamma=0.99)",
    )
    arguments.add_argument(
        "--sort",
        choices=list(SORTED_BY),
        default="name",
        help="the largest or newest first, but for names (default name)",
    )
    arguments.add_argument(
        "--group", action="store_true", help="a line for each method and task, of its finished runs"
    )
    arguments.add_argument("--json", action="store_true", help="print JSON")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Prints a table of the runs under a directory.

    Raises:
        UserError: there is no such directory, or no run has a setting that ``--where`` names.
    """
    root = arguments.root
    if not root.is_dir():
        raise UserError(f"no directory '{root}' to list{near_path(root)}")
    every = [describe(path, root) for path in find_runs(root)]
    runs = chosen(every, arguments.where)
    if arguments.group:
        if arguments.sort != "name":
            raise UserError("--sort is for runs: leave it out beside --group")
        rows = methods(runs)
    else:
        runs = in_order(runs, arguments.sort)
        rows = [run.as_json() for run in runs]
    if arguments.json:
        print(json.dumps(rows, indent=1))
    elif every and not runs:
        say(
            f"none of {len(every)} runs under {root} {why_none(every, arguments.where)}", sys.stdout
        )
    elif not rows:
        say(f"no runs under {root}", sys.stdout)
    elif arguments.group:
        print_methods(rows)
    else:
        print_runs(runs)


def print_runs(runs: Sequence[Listed]) -> None:
    """Print runs, one a line."""
    table = Table(box=box.SIMPLE)
    table.add_column("run", overflow="fold")  # whole, to be copied
    table.add_column("status")
    # Where there is no room for them, the directory's name has to do.
    narrow = standard_output().width < WIDE
    for name in () if narrow else NAMES:
        table.add_column(name.removesuffix("_id"), no_wrap=True)
    for name in ("steps", "return", "best", "final", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        status, *cells = run.cells
        table.add_row(printable(run.name), status, *(cells[len(NAMES) :] if narrow else cells))
    standard_output().print(table)


def methods(runs: Sequence[Listed]) -> list[dict[str, Any]]:
    """Return what the finished runs of each method reached on each task.

    Args:
        runs: of any methods.
    """
    import numpy as np

    from rlrun.analysis.cautions import LOST_END
    from rlrun.analysis.grouping import group
    from rlrun.analysis.stored_runs import read_run

    stored = []
    for run in runs:
        try:
            stored.append(read_run(run.directory))
        except UserError as error:  # as in the list of runs, the good ones stand beside the bad
            warn(str(error))
    for lost in (run for run in stored if run.lost_its_end):
        warn(f"{lost.source}: {LOST_END}")
    rows: list[dict[str, Any]] = []
    for (task, method), members in group(stored).runs.items() if stored else ():
        finals = [run.final_return for run in members if run.status == "finished"]
        finals = [value for value in finals if math.isfinite(value)]
        rows.append(
            {
                "task": task,
                "method": method,
                "n": len(finals),
                "final_return": float(np.mean(finals)) if finals else None,
                "std": float(np.std(finals, ddof=1)) if len(finals) > 1 else None,
                "others": Counter(run.status for run in members if run.status != "finished"),
            }
        )
    return rows


def print_methods(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print methods, one a line for each task."""
    table = Table("task", "method", box=box.SIMPLE)
    table.add_column("n", justify="right")
    table.add_column("final, mean ± std", justify="right")
    table.add_column("not finished")
    for row in rows:
        others = ", ".join(f"{count} {status}" for status, count in row["others"].items())
        figure = show(row["final_return"], row["std"])
        table.add_row(
            printable(row["task"]), printable(row["method"]), str(row["n"]), figure, others
        )
    standard_output().print(table)


def chosen(runs: Sequence[Listed], where: Mapping[str, str]) -> list[Listed]:
    """Return the runs that have certain choices and settings.

    Args:
        runs: of a list.
        where: words by what run.json or config.yaml calls it: {"algo": "ppo", "algo.gamma": "0.9"}.

    Raises:
        UserError: no run has something of that name.
    """
    if not where:
        return list(runs)
    known = known_of(runs, where)
    names = {name for values in known for name in values}
    for key in where:
        if runs and key not in names:
            raise UserError(f"--where {key}: no run has it{did_you_mean(key, names)}")
    return [
        run
        for run, values in zip(runs, known, strict=True)
        if all(meets(values, key, word) for key, word in where.items())
    ]


def why_none(runs: Sequence[Listed], where: Mapping[str, str]) -> str:
    """Say which condition no run meets, and what comes near it.

    Args:
        runs: of a list; `chosen` returns none of them.
        where: as for it.
    """
    known = known_of(runs, where)
    for key, word in where.items():
        if not any(meets(values, key, word) for values in known):
            there = [values[key] for values in known if key in values]
            return f"has {key}={word}{nearest_value(word, there)}"
    return "has " + " and ".join(f"{key}={word}" for key, word in where.items())


def known_of(runs: Sequence[Listed], names: Iterable[str]) -> list[Mapping[str, Any]]:
    """Return what is known of each run: its record and, if a name is not in it, its settings."""
    if all(name in run.record for name in names for run in runs):
        return [run.record for run in runs]
    return [{**settings_of(run.directory), **run.record} for run in runs]


def meets(values: Mapping[str, Any], key: str, word: str) -> bool:
    """Tell whether a run, of which these values are known, has what a condition asks for."""
    return key in values and is_written(values[key], word)


def settings_of(directory: Path) -> dict[str, Any]:
    """Return a run's settings by their paths; none where they cannot be read."""
    from rlrun.analysis.stored_runs import flatten

    try:
        return flatten(schema.convert(read_yaml(directory / "config.yaml"), dict[str, Any], ""))
    except (OSError, ValueError, UserError):
        return {}


def is_written(value: Any, word: str) -> bool:
    """Tell whether a word of the command line stands for a value."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(word) == value
        except ValueError:
            return False
    return word == written(value)


def nearest_value(word: str, values: Sequence[Any]) -> str:
    """End a message about a word that stands for none of these values."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    try:
        asked = float(word)
    except ValueError:
        numbers = []
    if numbers:
        return f"; the nearest is {written(min(numbers, key=lambda value: abs(value - asked)))}"
    return did_you_mean(word, {written(value) for value in values})


def written(value: Any) -> str:
    """Write a value as the command line does."""
    return value if isinstance(value, str) else schema.show(value)


def in_order(runs: Sequence[Listed], sorted_by: str) -> list[Listed]:
    """Sort runs; those of which it is not known come last."""
    key, largest_first = SORTED_BY[sorted_by]
    known: list[Listed] = []
    others: list[Listed] = []
    for run in runs:
        (others if key(run) is None else known).append(run)
    return [*sorted(known, key=key, reverse=largest_first), *others]
