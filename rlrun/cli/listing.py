"""`rlrun list`: the runs under a directory, one a line, or a method a line."""

import argparse
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, Literal

from annotated_types import Interval
from rich import box
from rich.table import Table

from rlrun.cli.commands import console
from rlrun.config import schema
from rlrun.config.files import open_regular, parse_json, read_json, read_yaml
from rlrun.config.types import Count, Finite, NonNegativeInt
from rlrun.errors import UserError, did_you_mean, near_path, printable, say, warn
from rlrun.runs.figures import with_spread
from rlrun.runs.files.directory import find_runs, is_locked

# What stands of a run by name, beside what its directory is called.
NAMES = ("algo", "env_id", "advantage", "model")
WIDE = 140  # characters of a terminal that has room for them

# Characters of such a name that are shown: another run's row is as wide as the widest.
LONGEST_NAME = 30

# Bytes at the end of metrics.jsonl that hold its last lines, of some hundred bytes each.
TAIL = 16_384

# Of a run: less than a century.
Seconds = Annotated[float, Interval(ge=0, le=3e9)]


@dataclass(kw_only=True)
class Summary:
    """What run.json says of how a run goes.

    Attributes:
        status: how it ended, or that it has not.
        step: environment steps done.
        total_steps: environment steps at which it ends.
        last_return: of the last evaluation.
        return_std: standard deviation over its episodes.
        best_return: of the best one.
        final_return: mean of those in the last tenth of the steps.
        time_s: seconds that it took.
    """

    status: Literal["running", "killed", "finished", "interrupted", "failed"]
    step: NonNegativeInt
    total_steps: Count
    last_return: Finite | None
    return_std: Finite | None
    best_return: Finite | None
    final_return: Finite | None
    time_s: Seconds


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run of the list.

    Attributes:
        directory: the run's.
        name: the directory's, from where the list begins.
        record: run.json; empty where it cannot be read.
        summary: how it goes; None: rlrun did not write this.
    """

    directory: Path
    name: str
    record: dict[str, Any]
    summary: Summary | None

    @property
    def cells(self) -> list[str]:
        """Status, steps, returns and time in a reader's words."""
        summary = self.summary
        if summary is None:
            return ["unreadable"]
        return [
            summary.status,
            *(printable(str(self.record.get(name, "")))[:LONGEST_NAME] for name in NAMES),
            f"{summary.step:,}/{summary.total_steps:,}",
            show(summary.last_return, summary.return_std),
            show(summary.best_return),
            show(summary.final_return),
            str(timedelta(seconds=round(summary.time_s))),
        ]

    def as_json(self) -> dict[str, Any]:
        """All that is known of it, by name."""
        if self.summary is None:
            return {"run": self.name, "status": "unreadable"}
        figures = asdict(self.summary)
        names = ("algo", "env", "env_id", "advantage", "collector", "model", "seed", "started")
        return {
            "run": self.name,
            "status": figures.pop("status"),
            **{name: self.record.get(name) for name in names},
            "return": figures.pop("last_return"),
            **figures,
        }


# What `--sort` can name, and whether the largest is first.
SORTED_BY: dict[str, tuple[Callable[[Listed], Any], bool]] = {
    "name": (lambda run: run.name, False),
    "return": (lambda run: run.summary and run.summary.last_return, True),
    "steps": (lambda run: run.summary and run.summary.step, True),
    "time": (lambda run: run.summary and run.summary.time_s, True),
    "started": (lambda run: str(run.record.get("started") or "") or None, True),
}


def list_runs(arguments: argparse.Namespace) -> None:
    """`rlrun list [ROOT]`: a table of the runs under a directory.

    Raises:
        UserError: there is no such directory, or no run has a setting that ``--where`` names.
    """
    root = arguments.root
    if not root.is_dir():
        raise UserError(f"no directory '{root}' to list{near_path(root)}")
    runs = chosen([describe(path, root) for path in find_runs(root)], arguments.where)
    if arguments.group:
        if arguments.sort != "name":
            raise UserError("--sort is for runs: leave it out beside --group")
        list_methods(runs, as_json=arguments.json)
        return
    runs = in_order(runs, arguments.sort)
    if arguments.json:
        print(json.dumps([run.as_json() for run in runs], indent=1))
    elif not runs:
        say(f"no runs under {root}", sys.stdout)
    else:
        print_table(runs)


def print_table(runs: Sequence[Listed]) -> None:
    """Print runs, one a line."""
    table = Table(box=box.SIMPLE)
    table.add_column("run", overflow="fold")  # whole, to be copied
    table.add_column("status")
    # Where there is no room for them, the directory's name has to do.
    narrow = console().width < WIDE
    for name in () if narrow else NAMES:
        table.add_column(name.removesuffix("_id"), no_wrap=True)
    for name in ("steps", "return", "best", "final", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        status, *cells = run.cells
        table.add_row(printable(run.name), status, *(cells[len(NAMES) :] if narrow else cells))
    console().print(table)


def list_methods(runs: Sequence[Listed], *, as_json: bool) -> None:
    """Print the methods that runs are of, one a line for each task: what those finished reached.

    Args:
        runs: of any methods.
        as_json: print JSON in place of a table.
    """
    from rlrun.analysis.grouping import group
    from rlrun.analysis.stored_runs import read_run

    stored = []
    for run in runs:
        try:
            stored.append(read_run(run.directory))
        except UserError as error:  # as in the list of runs, the good ones stand beside the bad
            warn(str(error))
    rows: list[dict[str, Any]] = []
    for (task, method), members in group(stored).runs.items() if stored else ():
        finals = [run.final_return for run in members if run.status == "finished"]
        finals = [value for value in finals if math.isfinite(value)]
        rows.append(
            {
                "task": task,
                "method": method,
                "n": len(finals),
                "final_return": mean(finals) if finals else None,
                "std": stdev(finals) if len(finals) > 1 else None,
                "others": Counter(run.status for run in members if run.status != "finished"),
            }
        )
    if as_json:
        print(json.dumps(rows, indent=1))
        return
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
    console().print(table)


def describe(directory: Path, root: Path) -> Listed:
    """Read how a run goes from the files in its directory."""
    name = str(directory.relative_to(root))
    locked = is_locked(directory)  # before run.json is read, which says last how the run ended
    try:
        record = read_json(directory / "run.json")
        keys = {"last_return": "return"}
        values = {name: record.get(keys.get(name, name)) for name in Summary.__annotations__}
        summary = schema.convert(values, Summary, "run.json")
        catch_up(summary, directory / "metrics.jsonl")
    except (OSError, ValueError, UserError):  # not written by rlrun
        return Listed(directory=directory, name=name, record={}, summary=None)
    if summary.status == "running" and not locked:
        summary.status = "killed"
    return Listed(directory=directory, name=name, record=record, summary=summary)


@dataclass(kw_only=True)
class Row:
    """What a row of metrics.jsonl says of how a run goes: a part of what is in `Summary`."""

    step: NonNegativeInt
    time_s: Seconds
    last_return: Finite | None
    return_std: Finite | None


def catch_up(summary: Summary, path: Path) -> None:
    """Brings a summary up to the last rows of metrics.jsonl.

    They are newer than run.json, which is written only now and then.

    Raises:
        ValueError: it is no file.
    """
    try:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            values = parse_json(line)
            evaluated = {"last_return": "eval/return", "return_std": "eval/return_std"}
            given = {"step": values["step"], "time_s": values["time_s"]}
            given |= {name: values.get(key) for name, key in evaluated.items()}
            row = schema.convert(given, Row, "row")
        except (ValueError, KeyError, TypeError, UserError):
            continue  # the line is not whole: the file is being written, or the process was killed
        if row.step < summary.step:
            continue
        summary.step, summary.time_s = row.step, max(summary.time_s, row.time_s)
        if row.last_return is not None:
            summary.last_return, summary.return_std = row.last_return, row.return_std
            best = -math.inf if summary.best_return is None else summary.best_return
            summary.best_return = max(best, row.last_return)


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
    known = {id(run): run.record for run in runs}
    if any(key not in run.record for key in where for run in runs):
        known = {id(run): {**settings_of(run.directory), **run.record} for run in runs}
    names = {name for values in known.values() for name in values}
    for key in where:
        if runs and key not in names:
            raise UserError(f"--where {key}: no run has it{did_you_mean(key, names)}")
    return [
        run
        for run in runs
        if all(
            key in known[id(run)] and is_written(known[id(run)][key], word)
            for key, word in where.items()
        )
    ]


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
    return word == (value if isinstance(value, str) else schema.show(value))


def in_order(runs: Sequence[Listed], sorted_by: str) -> list[Listed]:
    """Sort runs; those of which it is not known come last."""
    key, largest_first = SORTED_BY[sorted_by]
    known: list[Listed] = []
    others: list[Listed] = []
    for run in runs:
        (others if key(run) is None else known).append(run)
    return [*sorted(known, key=key, reverse=largest_first), *others]


def show(value: float | None, deviation: float | None = None) -> str:
    """Write a return, and how far its episodes lie apart; nothing for one that there is not."""
    if value is None:
        return ""
    if abs(value) >= 1e9:
        return f"{value:.3g}"
    return f"{value:,.1f}" if deviation is None else with_spread(value, deviation)
