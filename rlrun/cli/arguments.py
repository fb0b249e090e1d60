"""What can stand behind the verbs beside training: the parsers of their command lines."""

import argparse
import math
import os
from decimal import Decimal, InvalidOperation
from pathlib import Path

from rlrun.cli.parser import OneLineParser
from rlrun.config import schema
from rlrun.errors import UserError, did_you_mean, near_path
from rlrun.runs.files.directory import find_runs, is_sweep

# What `rlrun export` can write.
EXPORTS = ("onnx", "torch", "safetensors", "huggingface", "minari")


def evaluate_parser() -> OneLineParser:
    """Returns the parser of `rlrun eval`."""
    parser = OneLineParser("rlrun eval", description="Runs episodes of a trained policy.")
    parser.add_argument("run", type=run_directory, help="the run's directory")
    parser.add_argument("--episodes", type=positive, default=100, help="how many (default 100)")
    parser.add_argument(
        "--seed", type=not_negative, default=0, help="of the environments (default 0)"
    )
    parser.add_argument(
        "--checkpoint",
        choices=["last", "best"],
        default="last",
        help="the newest, or the one with the best evaluation return (default last)",
    )
    parser.add_argument(
        "--video", type=Path, metavar="FILE.mp4", help="film the first one of the episodes"
    )
    parser.add_argument(
        "--wandb", action="store_true", help="make a W&B run of it, of job type eval, too"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as a JSON object")
    parser.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="of a task of language: only answer this, and print the response; may be repeated",
    )
    add_plugins(parser)
    return parser


def resume_parser() -> OneLineParser:
    """Returns the parser of `rlrun resume`."""
    parser = OneLineParser("rlrun resume", description="Continues a run or sweep where it stopped.")
    parser.add_argument("run", type=run_or_sweep, help="directory of the run or sweep")
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
    return parser


def tune_parser() -> OneLineParser:
    """Returns the parser of `rlrun tune`."""
    parser = OneLineParser(
        "rlrun tune",
        description="Searches good values for an algorithm on an environment, writes the best as a "
        "file of the group `tuned`, and compares it with the usual values on fresh seeds. What is "
        "searched is conf/tune/<algo>.yaml, as far as the words give a setting no value.",
        epilog="The same words go on with a study that was stopped, also beside another process.",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="name=value",
        help="settings of every run (algo=ppo env=hopper), and ranges to search besides or instead "
        "(algo.gamma=choice(0.9,0.99), 'algo.clip=interval(0.1,0.3)', "
        "'algo.optimizer.learning_rate=tag(log,interval(1e-5,1e-2))', 'algo.epochs=range(1,20)')",
    )
    parser.add_argument(
        "--trials", type=positive, default=20, help="points that are tried (default 20)"
    )
    parser.add_argument(
        "--seeds",
        type=some_seeds,
        default=[100, 101],
        metavar="N,N",
        help="of a trial's runs, one after the other (default 100,101)",
    )
    parser.add_argument(
        "--validate",
        type=seeds,
        default=[200, 201, 202, 203, 204],
        metavar="N,N|none",
        help="fresh seeds for the best values and the usual ones (default 200 to 204)",
    )
    parser.add_argument(
        "--sampler",
        choices=["tpe", "random", "cmaes"],
        default="tpe",
        help="how points are drawn (default tpe)",
    )
    parser.add_argument(
        "--pruner",
        choices=["median", "halving", "none"],
        default="median",
        help="which trials end before their time: those below the median of the others, or all but "
        "the best third at each of some stages (default median)",
    )
    parser.add_argument(
        "--dir", type=Path, help="the study's directory (default outputs/tune/<of the words>)"
    )
    parser.add_argument("--config-dir", type=existing_directory, help="your own groups")
    return parser


def list_parser() -> OneLineParser:
    """Returns the parser of `rlrun list`."""
    parser = OneLineParser("rlrun list", description="Lists the runs under a directory.")
    parser.add_argument("root", nargs="?", type=Path, default=Path("outputs"))
    parser.add_argument(
        "--where",
        type=conditions,
        default={},
        metavar="NAME=VALUE,…",
        help="only runs with these choices and settings (algo=ppo,env=hopper,algo.gamma=0.99)",
    )
    parser.add_argument(
        "--sort",
        choices=["name", "return", "steps", "time", "started"],
        default="name",
        help="the largest or newest first, but for names (default name)",
    )
    parser.add_argument(
        "--group", action="store_true", help="a line for each method and task, of its finished runs"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def export_parser() -> OneLineParser:
    """Returns the parser of `rlrun export`."""
    parser = OneLineParser(
        "rlrun export",
        description="Writes a trained policy as a file that runs without rlrun, from an "
        "environment's observations to its actions; a model of language as a directory of "
        "transformers; or episodes as a Minari dataset.",
    )
    parser.add_argument("run", type=run_directory, help="the run's directory")
    parser.add_argument(
        "--to",
        type=export_format,
        choices=EXPORTS,
        required=True,
        help="onnx; torch: a program of torch.export (.pt2); safetensors: weights, and a JSON file "
        "that describes them; huggingface: a directory that transformers loads; minari: a dataset "
        "of episodes",
    )
    parser.add_argument(
        "--checkpoint",
        choices=["last", "best"],
        default="last",
        help="the newest, or the one with the best evaluation return (default last)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE|ID",
        help="the file (default: policy.onnx and so on, in the run's directory); the directory of "
        "a model (default: model, in the run's directory); the dataset's id, "
        "hopper/ppo-v0, or the directory for such datasets (default: Minari's own)",
    )
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument(
        "--episodes", type=positive, help="of a dataset (default 100)", metavar="EPISODES"
    )
    parser.add_argument(
        "--seed", type=not_negative, help="of a dataset's first episode (default 0)"
    )
    add_plugins(parser)
    return parser


def compare_parser() -> OneLineParser:
    """Returns the parser of `rlrun compare`."""
    parser = OneLineParser(
        "rlrun compare",
        description="Compares methods over seeds and tasks, from the files of their runs.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN|SWEEP|GLOB|ARCHIVE.json|wandb:ENTITY/PROJECT?group=…",
        help="directories of runs or of many runs, patterns, archives that --json wrote, runs at "
        "W&B",
    )
    parser.add_argument(
        "--by",
        type=names,
        default=[],
        metavar="NAME,…",
        help="choices and settings that make a method (algo,advantage,algo.gamma), also commit and "
        "host; default: what differs on a task is found",
    )
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="compare at so many environment steps; longer runs count as if stopped there",
    )
    parser.add_argument(
        "--threshold",
        type=thresholds,
        metavar="RETURN|ENV=RETURN,…",
        help="the return to reach (default: Gymnasium's reward_threshold of the environment)",
    )
    parser.add_argument(
        "--normalize",
        type=Path,
        metavar="FILE.yaml",
        help="has a block `scores` with min and max by environment (default: a random policy's "
        "return and the best published one)",
    )
    formats = parser.add_mutually_exclusive_group()
    for name, meaning in FORMATS.items():
        formats.add_argument(
            f"--{name}", dest="format", action="store_const", const=name, help=meaning
        )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write report.html, tables, pictures (PNG, SVG) and the archive there, too",
    )
    parser.add_argument(
        "--to",
        type=wandb_project,
        metavar="wandb:[ENTITY/]PROJECT",
        help="with --output: log the table and the report at W&B, as a run of job type compare",
    )
    parser.add_argument(
        "--smooth",
        type=positive,
        default=1,
        metavar="N",
        help="evaluations that a point of a curve is the mean of (default 1: as they are)",
    )
    return parser


# What `rlrun compare` prints in place of a table for the terminal.
FORMATS = {
    "markdown": "print Markdown",
    "latex": "print LaTeX (booktabs)",
    "csv": "print the figures as CSV",
    "json": "print the figures and the runs whole, an archive that can be compared again",
}

PARSERS = {
    "tune": tune_parser,
    "eval": evaluate_parser,
    "export": export_parser,
    "resume": resume_parser,
    "list": list_parser,
    "compare": compare_parser,
}


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Adds the option that allows a run's config to name code outside rlrun."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="your package that the run uses; a run's directory is not trusted to name it",
    )


def run_directory(word: str) -> Path:
    """Reads the argument RUN.

    Raises:
        UserError: it is not the directory of a run.
    """
    directory = Path(word)
    if not directory.is_dir():
        if "=" in word:
            raise UserError(f"expected the directory of a run, got '{word}'")
        hint = near_path(directory) or "; rlrun list shows the runs"
        raise UserError(f"no run at '{word}'{hint}")
    if not os.path.lexists(directory / "run.json"):
        inside = list(find_runs(directory))
        hint = f"; did you mean '{inside[-1]}'?" if inside else ""
        raise UserError(f"'{word}' is not a run: it has no run.json{hint}")
    return directory


def run_or_sweep(word: str) -> Path:
    """Reads the argument RUN, where it may be a sweep's directory, too.

    Raises:
        UserError: it is neither.
    """
    return Path(word) if is_sweep(Path(word)) else run_directory(word)


def total_steps(word: str) -> int:
    """Reads the setting ``total_steps=N``.

    Raises:
        UserError: it is another setting, or N is not a positive whole number.
    """
    key, _, value = word.partition("=")
    if key != "total_steps":
        raise UserError(f"'{word}': only total_steps=N can be given")
    return positive(value)


def seeds(word: str) -> list[int]:
    """Reads seeds: "100,101"; "none": none.

    Raises:
        argparse.ArgumentTypeError: it is something else, or one is there twice.
    """
    numbers = [] if word == "none" else [not_negative(part) for part in word.split(",")]
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"a seed is there twice: '{word}'")
    return numbers


def some_seeds(word: str) -> list[int]:
    """Reads one seed or more.

    Raises:
        argparse.ArgumentTypeError: there is none.
    """
    if not (numbers := seeds(word)):
        raise argparse.ArgumentTypeError("expected at least one seed")
    return numbers


def existing_directory(word: str) -> Path:
    """Reads a directory.

    Raises:
        argparse.ArgumentTypeError: there is none.
    """
    path = Path(word)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"no directory '{word}'{near_path(path)}")
    return path


def export_format(word: str) -> str:
    """Reads what a policy is exported to.

    Raises:
        argparse.ArgumentTypeError: there is no such format.
    """
    if word not in EXPORTS:
        raise argparse.ArgumentTypeError(f"no format '{word}'{did_you_mean(word, EXPORTS)}")
    return word


def positive(word: str) -> int:
    """Reads a positive whole number; 1e6 and 1_000_000 are fine.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    number = whole(word)
    if number is None or number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got '{word}'")
    return number


def not_negative(word: str) -> int:
    """Reads a whole number, zero or more.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    number = whole(word)
    if number is None or number < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got '{word}'")
    return number


def whole(word: str) -> int | None:
    """Reads a whole number; None if it is none, or beyond what a machine counts with."""
    try:
        number = Decimal(word)  # exact, where a float would round
    except InvalidOperation:
        return None
    if not number.is_finite() or number.copy_abs() > schema.LARGEST or number % 1:
        return None
    return int(number)


def names(word: str) -> list[str]:
    """Reads names with commas between them.

    Raises:
        argparse.ArgumentTypeError: one of them is empty.
    """
    found = word.split(",")
    if not all(found):
        raise argparse.ArgumentTypeError(f"expected names with commas between them, got '{word}'")
    return found


def thresholds(word: str) -> dict[str, float]:
    """Reads returns to reach, by environment: "hopper=3000,walker2d=4000".

    Returns:
        Returns by name; by the empty name one for all: "3000".

    Raises:
        argparse.ArgumentTypeError: one of them is no number.
    """
    found = {}
    for part in names(word):
        name, _, number = part.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise argparse.ArgumentTypeError(f"expected a number, got '{number}' in '{word}'")
    return found


def conditions(word: str) -> dict[str, str]:
    """Reads what runs are to have: "algo=ppo,algo.gamma=0.99".

    Raises:
        argparse.ArgumentTypeError: a part is no NAME=VALUE.
    """
    found = {}
    for part in names(word):
        name, equals, value = part.partition("=")
        if not (name and equals):
            raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got '{part}'")
        found[name] = value
    return found


def wandb_project(word: str) -> tuple[str | None, str]:
    """Reads where something goes at W&B: "wandb:team/project", or without the team.

    Raises:
        argparse.ArgumentTypeError: it is no such address.
    """
    place, colon, path = word.partition(":")
    entity, slash, project = path.rpartition("/")
    if place != "wandb" or not (colon and project) or "/" in entity or (slash and not entity):
        raise argparse.ArgumentTypeError(f"expected wandb:ENTITY/PROJECT, got '{word}'")
    return entity or None, project
