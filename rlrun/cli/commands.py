"""The verbs beside training: `rlrun eval`, `rlrun export`, `rlrun resume` and `rlrun list`."""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from rlrun.cli.arguments import PARSERS
from rlrun.cli.export import export
from rlrun.config import schema
from rlrun.config.files import open_regular, parse_json, read_json
from rlrun.config.types import Count, Finite, NonNegative, NonNegativeInt
from rlrun.errors import UserError, near_path, printable, say
from rlrun.runs.files.directory import find_runs, is_locked

# What `list` says of a run by name, beside what its directory is called.
NAMES = ("algo", "env_id", "advantage", "model")
WIDE = 140  # characters of a terminal that has room for them

# Characters of such a name that are shown: another run's row is as wide as the widest.
LONGEST_NAME = 30

# Bytes at the end of metrics.jsonl that hold its last lines, of some hundred bytes each.
TAIL = 16_384


def run(verb: str, words: list[str]) -> None:
    """Runs one verb.

    Args:
        verb: eval, export, resume or list.
        words: the rest of the command line.

    Raises:
        UserError: a mistake in the words, or a run that is not there.
    """
    arguments = PARSERS[verb]().parse_args(words)
    {"eval": evaluate, "export": export, "resume": resume, "list": list_runs}[verb](arguments)


def evaluate(arguments: argparse.Namespace) -> None:
    """`rlrun eval RUN`: returns of a trained policy, and a video."""
    if arguments.video is not None and "DISPLAY" not in os.environ:
        # MuJoCo draws in a window unless this says otherwise, and reads it when it is imported.
        os.environ.setdefault("MUJOCO_GL", "egl")

    from rlrun.cli.evaluation_display import EvaluationDisplay
    from rlrun.runs.api import evaluate_run
    from rlrun.runs.reports.film import Film

    film = None
    with EvaluationDisplay(arguments.episodes) as display:
        if arguments.video is not None:
            film = Film(arguments.video, display.filmed)
        result = evaluate_run(
            arguments.run,
            episodes=arguments.episodes,
            seed=arguments.seed,
            checkpoint=arguments.checkpoint,
            plugins=arguments.plugin,
            film=film,
            watch=display.played,
            wandb=arguments.wandb,
        )
    if arguments.json:
        say(json.dumps(result), sys.stdout)
    else:
        table = Table("", "", show_header=False, box=box.SIMPLE)
        for name, value in result.items():
            shown = f"{value:.2f}" if isinstance(value, float) else printable(str(value))
            table.add_row(name, shown)
        console().print(table)
    if film is not None:  # last, since the returns are true without pictures, too
        if film.error is not None:
            raise film.error
        say(f"{film.path} shows the first episode, {film.frames:,} frames", sys.stderr)


def resume(arguments: argparse.Namespace) -> None:
    """`rlrun resume RUN`: continues a run from its newest checkpoint."""
    from rlrun.runs.api import resume as resume_run

    resume_run(arguments.run, total_steps=arguments.total_steps, plugins=arguments.plugin)


def list_runs(arguments: argparse.Namespace) -> None:
    """`rlrun list [ROOT]`: a table of the runs under a directory."""
    root = arguments.root
    if not root.is_dir():
        raise UserError(f"no directory '{root}' to list{near_path(root)}")
    table = Table(box=box.SIMPLE)
    table.add_column("run", overflow="fold")  # whole, to be copied
    table.add_column("status")
    # Where there is no room for them, the directory's name has to do.
    names = NAMES if console().width >= WIDE else ()
    for name in names:
        table.add_column(name.removesuffix("_id"), no_wrap=True)
    for name in ("steps", "return", "best", "final", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for directory in find_runs(root):
        path = printable(str(directory.relative_to(root)))
        table.add_row(path, *describe(directory, names))
    if table.row_count == 0:
        say(f"no runs under {root}", sys.stdout)
    else:
        console().print(table)


@dataclass(kw_only=True)
class Summary:
    """What run.json says of how a run goes.

    Attributes:
        status: how it ended, or that it has not.
        step: environment steps done.
        total_steps: environment steps at which it ends.
        last_return: of the last evaluation.
        best_return: of the best one.
        final_return: mean of those in the last tenth of the steps.
        time_s: seconds that it took.
    """

    status: Literal["running", "finished", "interrupted", "failed"]
    step: NonNegativeInt
    total_steps: Count
    last_return: Finite | None
    best_return: Finite | None
    final_return: Finite | None
    time_s: NonNegative


def describe(directory: Path, names: Sequence[str]) -> list[str]:
    """Returns a run's status, names, steps, returns and time in a reader's words."""
    locked = is_locked(directory)  # before run.json is read, which says last how the run ended
    try:
        record = read_json(directory / "run.json")
        keys = {"last_return": "return"}
        values = {name: record.get(keys.get(name, name)) for name in Summary.__annotations__}
        summary = schema.convert(values, Summary, "run.json")
        catch_up(summary, directory / "metrics.jsonl")
        return [
            "killed" if summary.status == "running" and not locked else summary.status,
            *(printable(str(record.get(name, "")))[:LONGEST_NAME] for name in names),
            f"{summary.step:,}/{summary.total_steps:,}",
            *(
                "" if value is None else f"{value:.1f}" if abs(value) < 1e9 else f"{value:.3g}"
                for value in (
                    summary.last_return,
                    summary.best_return,
                    summary.final_return,
                )
            ),
            str(timedelta(seconds=round(summary.time_s))),
        ]
    except (OSError, ValueError, OverflowError, UserError):  # not written by rlrun
        return ["unreadable"]


@dataclass(kw_only=True)
class Row:
    """What a row of metrics.jsonl says of how a run goes: a part of what is in `Summary`."""

    step: NonNegativeInt
    time_s: NonNegative
    last_return: Finite | None


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
            given = {"step": values["step"], "time_s": values["time_s"]}
            row = schema.convert({**given, "last_return": values.get("eval/return")}, Row, "row")
        except (ValueError, KeyError, TypeError, UserError):
            continue  # the line is not whole: the file is being written, or the process was killed
        if row.step < summary.step:
            continue
        summary.step, summary.time_s = row.step, max(summary.time_s, row.time_s)
        if row.last_return is not None:
            summary.last_return = row.last_return
            best = -math.inf if summary.best_return is None else summary.best_return
            summary.best_return = max(best, row.last_return)


def console() -> Console:
    """Returns a console that keeps every word of a table when the output is a pipe or file."""
    width = None if sys.stdout.isatty() else 300
    return Console(width=width, markup=False, emoji=False)  # a path is not [bold]
