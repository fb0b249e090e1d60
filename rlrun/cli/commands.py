"""The verbs beside training: `rlrun eval`, `rlrun resume` and `rlrun list`."""

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from rlrun.cli.parser import OneLineParser
from rlrun.errors import UserError, near_path

# What `list` says of a run by name, beside what its directory is called.
NAMES = ("algo", "env_id", "advantage", "model")
WIDE = 140  # characters of a terminal that has room for them

# Bytes at the end of metrics.jsonl that hold its last lines, of some hundred bytes each.
TAIL = 16_384


def run(verb: str, words: list[str]) -> None:
    """Runs one verb.

    Args:
        verb: eval, resume or list.
        words: the rest of the command line.

    Raises:
        UserError: a mistake in the words, or a run that is not there.
    """
    {"eval": evaluate, "resume": resume, "list": list_runs}[verb](words)


def evaluate(words: list[str]) -> None:
    """`rlrun eval RUN`: returns of a trained policy, and a video."""
    parser = OneLineParser("rlrun eval", description="Runs episodes of a trained policy.")
    parser.add_argument("run", type=run_directory, help="the run's directory")
    parser.add_argument("--episodes", type=positive, default=100, help="how many (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the environments (default 0)")
    parser.add_argument(
        "--checkpoint",
        choices=["last", "best"],
        default="last",
        help="the newest, or the one with the best evaluation return (default last)",
    )
    parser.add_argument("--video", type=Path, metavar="FILE.mp4", help="film one episode")
    add_plugins(parser)
    arguments = parser.parse_args(words)

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
        table.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value))
    console().print(table)
    if arguments.video is not None:  # last, since the returns are true without pictures, too
        film_run(
            arguments.run,
            seed=arguments.seed,
            checkpoint=arguments.checkpoint,
            video=arguments.video,
            plugins=arguments.plugin,
        )


def resume(words: list[str]) -> None:
    """`rlrun resume RUN`: continues a run from its newest checkpoint."""
    parser = OneLineParser("rlrun resume", description="Continues a run where it stopped.")
    parser.add_argument("run", type=run_directory, help="the run's directory")
    parser.add_argument(
        "total_steps",
        nargs="?",
        type=total_steps,
        metavar="total_steps=N",
        help="train to this many environment steps (default: the run's own total); a larger total "
        "stretches the learning-rate schedule, which is a function of step/total, so that the "
        "rate goes up again",
    )
    add_plugins(parser)
    arguments = parser.parse_args(words)

    from rlrun.runs.api import resume as resume_run

    resume_run(arguments.run, total_steps=arguments.total_steps, plugins=arguments.plugin)


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Adds the option that allows a run's config to name code outside rlrun."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="your package that the run uses; a run's directory is not trusted to name it",
    )


def list_runs(words: list[str]) -> None:
    """`rlrun list [ROOT]`: a table of the runs under a directory."""
    parser = OneLineParser("rlrun list", description="Lists the runs under a directory.")
    parser.add_argument("root", nargs="?", type=Path, default=Path("outputs"))
    root = parser.parse_args(words).root
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
        table.add_row(str(directory.relative_to(root)), *describe(directory, names))
    if table.row_count == 0:
        print(f"no runs under {root}")
    else:
        console().print(table)


def describe(directory: Path, names: Sequence[str]) -> list[str]:
    """Returns a run's status, names, steps, returns and time in a reader's words."""
    locked = is_locked(directory)  # before run.json is read, which says last how the run ended
    try:
        record = json.loads((directory / "run.json").read_text())
        step = max(record["step"], last_step(directory / "metrics.jsonl"))
        return [
            "killed" if record["status"] == "running" and not locked else record["status"],
            *(str(record.get(name, "")) for name in names),
            f"{step:,}/{record['total_steps']:,}",
            *(
                "" if record[key] is None else f"{record[key]:.1f}"
                for key in ("return", "best_return", "final_return")
            ),
            str(timedelta(seconds=round(record["time_s"]))),
        ]
    except (OSError, ValueError, KeyError, TypeError, OverflowError):  # not written by rlrun
        return ["unreadable"]


def is_locked(directory: Path) -> bool:
    """Tells whether a process runs in a run's directory: it holds the lock as long as it lives."""
    try:
        with (directory / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:  # no locks on this file system, or no permission: nobody can tell
        return True
    return False


def last_step(path: Path) -> int:
    """Returns the environment step of the last whole line of metrics.jsonl, 0 if there is none.

    It is newer than that in run.json, which is written only now and then.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        try:
            return json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue  # the line is not whole: the file is being written, or the process was killed
    return 0


def find_runs(root: Path) -> Iterator[Path]:
    """Yields the directories under the root that hold a run, in the order of their names."""
    for directory, subdirectories, files in os.walk(root):
        subdirectories.sort()
        if "run.json" in files:
            subdirectories.clear()  # nothing inside a run is a run
            yield Path(directory)


def run_directory(word: str) -> Path:
    """Reads the argument RUN.

    Raises:
        UserError: it is not the directory of a run.
    """
    directory = Path(word)
    if not directory.is_dir():
        hint = near_path(directory) or "; rlrun list shows the runs"
        raise UserError(f"no run at '{word}'{hint}")
    if not (directory / "run.json").is_file():
        inside = list(find_runs(directory))
        hint = f"; did you mean '{inside[-1]}'?" if inside else ""
        raise UserError(f"'{word}' is not a run: it has no run.json{hint}")
    return directory


def total_steps(word: str) -> int:
    """Reads the setting ``total_steps=N``.

    Raises:
        UserError: it is another setting, or N is not a positive whole number.
    """
    key, _, value = word.partition("=")
    if key != "total_steps":
        raise UserError(f"'{word}': only total_steps=N can be given")
    return positive(value)


def positive(word: str) -> int:
    """Reads a positive whole number; 1e6 and 1_000_000 are fine.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(word)
    except ValueError:
        number = 0.0
    if number < 1 or not number.is_integer():
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got '{word}'")
    return int(number)


def console() -> Console:
    """Returns a console that keeps every word of a table when the output is a pipe or file."""
    width = None if sys.stdout.isatty() else 300
    return Console(width=width, markup=False, emoji=False)  # a path is not [bold]
