"""What can stand behind the verbs beside training: parsers of `rlrun eval`, `resume`, `list`."""

import argparse
import os
from decimal import Decimal, InvalidOperation
from pathlib import Path

from rlrun.cli.parser import OneLineParser
from rlrun.config import schema
from rlrun.errors import UserError, did_you_mean, near_path
from rlrun.runs.files.directory import find_runs

# What `rlrun export` can write.
EXPORTS = ("onnx", "torch", "safetensors", "minari")


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
    add_plugins(parser)
    return parser


def resume_parser() -> OneLineParser:
    """Returns the parser of `rlrun resume`."""
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
    return parser


def list_parser() -> OneLineParser:
    """Returns the parser of `rlrun list`."""
    parser = OneLineParser("rlrun list", description="Lists the runs under a directory.")
    parser.add_argument("root", nargs="?", type=Path, default=Path("outputs"))
    return parser


def export_parser() -> OneLineParser:
    """Returns the parser of `rlrun export`."""
    parser = OneLineParser(
        "rlrun export",
        description="Writes a trained policy as a file that runs without rlrun, from an "
        "environment's observations to its actions; or its episodes as a Minari dataset.",
    )
    parser.add_argument("run", type=run_directory, help="the run's directory")
    parser.add_argument(
        "--to",
        type=export_format,
        choices=EXPORTS,
        required=True,
        help="onnx; torch: a program of torch.export (.pt2); safetensors: weights, and a JSON file "
        "that describes them; minari: a dataset of episodes",
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
        help="the file (default: policy.onnx and so on, in the run's directory); the dataset's id, "
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


PARSERS = {
    "eval": evaluate_parser,
    "export": export_parser,
    "resume": resume_parser,
    "list": list_parser,
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


def total_steps(word: str) -> int:
    """Reads the setting ``total_steps=N``.

    Raises:
        UserError: it is another setting, or N is not a positive whole number.
    """
    key, _, value = word.partition("=")
    if key != "total_steps":
        raise UserError(f"'{word}': only total_steps=N can be given")
    return positive(value)


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
