"""What a word of a command line can mean: a run's directory, a whole number, seeds, conditions."""

import argparse
import math
from decimal import Decimal, InvalidOperation
from pathlib import Path

from rlrun.config import schema
from rlrun.errors import UserError, near_path
from rlrun.runs.files.directory import find_runs, is_sweep, kind_of


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
    kind = kind_of(directory)
    if kind == "study":
        raise UserError(f"'{word}' is a study: the words of its `rlrun tune` go on with it")
    if kind != "run":
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


def wandb_project(word: str) -> tuple[str | None, str | None]:
    """Reads where something goes at W&B: "wandb:team/project", without the team, or "wandb".

    Raises:
        argparse.ArgumentTypeError: it is no such address.
    """
    if word == "wandb":
        return None, None
    place, colon, path = word.partition(":")
    entity, slash, project = path.rpartition("/")
    if place != "wandb" or not (colon and project) or "/" in entity or (slash and not entity):
        raise argparse.ArgumentTypeError(f"expected wandb or wandb:ENTITY/PROJECT, got '{word}'")
    return entity or None, project
