"""The verbs beside training: `rlrun eval`, `rlrun resume` and `rlrun list`."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from rlrun.cli.arguments import PARSERS, find_runs
from rlrun.errors import UserError, near_path, printable, say
from rlrun.runs.files.directory import is_sweep
from rlrun.runs.files.standing import read_standing

# What `list` says of a run by name, beside what its directory is called.
NAMES = ("algo", "env_id", "advantage", "model")
WIDE = 140  # characters of a terminal that has room for them

# Characters of such a name that are shown: another run's row is as wide as the widest.
LONGEST_NAME = 30


def run(verb: str, words: list[str]) -> None:
    """Runs one verb.

    Args:
        verb: eval, resume or list.
        words: the rest of the command line.

    Raises:
        UserError: a mistake in the words, or a run that is not there.
    """
    arguments = PARSERS[verb]().parse_args(words)
    {"eval": evaluate, "resume": resume, "list": list_runs}[verb](arguments)


def evaluate(arguments: argparse.Namespace) -> None:
    """`rlrun eval RUN`: returns of a trained policy, and a video."""
    if arguments.video is not None and "DISPLAY" not in os.environ:
        # MuJoCo draws in a window unless this says otherwise, and reads it when it is imported.
        os.environ.setdefault("MUJOCO_GL", "egl")

    from rlrun.runs.api import evaluate_run, film_run
    from rlrun.runs.reports.film import check_video

    if arguments.video is not None:
        check_video(arguments.video)
    result = evaluate_run(
        arguments.run,
        episodes=arguments.episodes,
        seed=arguments.seed,
        checkpoint=arguments.checkpoint,
        plugins=arguments.plugin,
    )
    table = Table("", "", show_header=False, box=box.SIMPLE)
    for name, value in result.items():
        table.add_row(name, f"{value:.2f}" if isinstance(value, float) else printable(str(value)))
    console().print(table)
    if arguments.video is not None:  # last, since the returns are true without pictures, too
        film_run(
            arguments.run,
            seed=arguments.seed,
            checkpoint=arguments.checkpoint,
            video=arguments.video,
            plugins=arguments.plugin,
        )


def resume(arguments: argparse.Namespace) -> None:
    """`rlrun resume RUN`: continues a run, or the runs of a sweep, from the newest checkpoint."""
    if is_sweep(arguments.run):
        if arguments.total_steps is not None:
            raise UserError("total_steps=… is for a run, not for a sweep")
        from rlrun.sweeps.run import resume_sweep

        resume_sweep(arguments.run, arguments.plugin)
        return

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


def describe(directory: Path, names: Sequence[str]) -> list[str]:
    """Returns a run's status, names, steps, returns and time in a reader's words."""
    try:
        standing, record = read_standing(directory)
        return [
            standing.status,
            *(printable(str(record.get(name, "")))[:LONGEST_NAME] for name in names),
            f"{standing.step:,}/{standing.total_steps:,}",
            *(
                "" if value is None else f"{value:.1f}" if abs(value) < 1e9 else f"{value:.3g}"
                for value in (
                    standing.last_return,
                    standing.best_return,
                    standing.final_return,
                )
            ),
            str(timedelta(seconds=round(standing.time_s))),
        ]
    except (OSError, ValueError, OverflowError, UserError):  # not written by rlrun
        return ["unreadable"]


def console() -> Console:
    """Returns a console that keeps every word of a table when the output is a pipe or file."""
    width = None if sys.stdout.isatty() else 300
    return Console(width=width, markup=False, emoji=False)  # a path is not [bold]
