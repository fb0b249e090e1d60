"""`rlrun a=b …`: composes a config with Hydra and trains the run that it describes."""

import logging
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rlrun.cli import sweep
from rlrun.cli.help.overview import choices, users_directory
from rlrun.cli.hydra_bridge import ONE_CHOICE, JobEnded, explain, hydra_raises, load_job
from rlrun.cli.parser import OneLineParser
from rlrun.config.files import conf_directory
from rlrun.errors import JobFailed, UserError, did_you_mean, nearest

# Groups whose unknown choices Hydra passes over or cannot name: an optional one, and one with
# several choices at once.
CHECKED_HERE = ("tuned", "logger")

# The word for none of them.
WITHOUT = {"tuned": "~tuned", "logger": "logger=none"}


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")
def job(cfg: DictConfig) -> float:
    """Trains one run; Hydra calls it with each composed config.

    Returns:
        The run's final evaluation return, which Hydra's sweepers optimise.
    """
    settings = HydraConfig.get()
    if settings.mode == RunMode.MULTIRUN:
        return sweep.run_job(cfg, settings)
    try:
        experiment = load_job(cfg, settings, Path("outputs", f"{datetime.now():%Y-%m-%d}"))

        from rlrun.runs.api import train

        return train(experiment)
    except Exception as error:
        raise JobEnded(error) from error


def options_parser() -> OneLineParser:
    """Returns a parser of Hydra's options; their values cannot be told from overrides otherwise."""
    return OneLineParser("rlrun", parents=[get_args_parser()], add_help=False)


def check_words(words: Sequence[str]) -> Namespace:
    """Refuses what Hydra would accept and misunderstand, or refuse in many lines.

    Args:
        words: the command line.

    Returns:
        Hydra's options, and the ``overrides``.

    Raises:
        UserError: an unknown option or one with a wrong value, a mistake in the choice of a
            group, or a setting that Hydra would not read.
    """
    parser = options_parser()
    arguments, others = parser.parse_known_args(words)
    for word in others:
        if not word.startswith("-"):
            raise UserError(f"{word}: write the settings together, before or after the options")
        check_option(word.partition("=")[0], parser.long_options())
    check_settings(arguments.overrides, users_directory(words))
    return arguments


def check_settings(words: Sequence[str], own: Sequence[Path]) -> None:
    """Refuses choices of groups that Hydra would misunderstand, or not name.

    Args:
        words: overrides.
        own: the user's directories of groups.

    Raises:
        UserError: a mistake in one of them.
    """
    check_names(own)
    for word in words:
        check_choice(word)
        check_is_there(word, [conf_directory(), *own])


def check_names(own: Sequence[Path]) -> None:
    """Refuses files of the user's that have the names of rlrun's, which Hydra takes in their place.

    Args:
        own: the user's directories of groups.

    Raises:
        UserError: names one that says something else than rlrun's.
    """
    for path in (path for directory in own for path in sorted(directory.glob("*/*.yaml"))):
        shipped = conf_directory() / path.parent.name / path.name
        if path.parent.name == "tune":
            continue  # which Hydra does not read, and where the user's counts
        if shipped.exists() and shipped.read_bytes() != path.read_bytes():
            raise UserError(
                f"{path} has the name of a file of rlrun's own, which counts: call it otherwise"
            )


def check_option(name: str, options: Sequence[str]) -> None:
    """Refuses an option that Hydra does not have: more often, it is a setting in argparse's style.

    Args:
        name: the option ("--seed").
        options: those that there are.

    Raises:
        UserError: always.
    """
    if not name.startswith("--"):
        raise UserError(f"no option {name} (see rlrun --help)")
    option = nearest(name, options)
    hint = f"did you mean {option}?" if option else f"settings are written {name[2:]}=value"
    raise UserError(f"no option {name}; {hint}")


def check_choice(word: str) -> None:
    """Refuses several choices, or none, for a group of which a run has one.

    Args:
        word: an override ("algo=ppo").

    Raises:
        UserError: there is not one choice.
    """
    name, equals, value = word.partition("=")
    group = name.removeprefix("~")
    if group not in ONE_CHOICE:
        return
    if value.startswith("["):  # Hydra would merge the files
        several = value.strip("[]").replace(" ", "")
        raise UserError(f"{word}: a run has one {name}; for each: rlrun -m {name}={several}")
    if name != group or (equals and value in ("", "null")):
        raise UserError(f"{word}: a run has one {group} (rlrun --help lists them)")


def check_is_there(word: str, directories: Sequence[Path]) -> None:
    """Refuses a choice that is not there, in the groups where Hydra does not say so.

    Args:
        word: an override ("logger=[wandb,tensorboard]").
        directories: those of the groups.

    Raises:
        UserError: there is no such choice.
    """
    group, _, value = word.partition("=")
    if group in CHECKED_HERE and value in ("", "null") and "=" in word:
        raise UserError(f"{word}: without any it is {WITHOUT[group]}")
    if group not in CHECKED_HERE or not re.fullmatch(r"[\w\[\], -]*", value):  # a glob, say
        return
    files = {name for conf in directories for name in choices(conf / group)}
    for choice in re.findall(r"[\w-]+", value):
        if choice not in files:
            raise UserError(f"{group}={choice}: no such {group}{did_you_mean(choice, files)}")


def launch(words: list[str]) -> None:
    """Does what a command line of overrides and Hydra's options asks for.

    Args:
        words: the command line; Hydra reads it from sys.argv itself.

    Raises:
        UserError: the words cannot be composed into a config.
        JobFailed: a job of a sweep failed.
        BrokenPipeError: the reader of what Hydra shows (`--cfg job | head -1`) is gone.
        Exception: what the run raised.
    """
    arguments = check_words(words)
    logging.raiseExceptions = False  # Hydra logs what `--info` shows, and its reader may be gone
    try:
        with hydra_raises():
            if arguments.multirun:
                held_back = sweep.hold_back(arguments.overrides)
                replaced = dict(zip(arguments.overrides, held_back, strict=True))
                sys.argv[1:] = [replaced.get(word, word) for word in words]
            job()
    except sweep.SweepEnded:
        return
    except JobEnded as ended:
        raise ended.error from ended.error.__cause__
    except (JobFailed, BrokenPipeError):
        raise
    except Exception as error:
        raise UserError(explain(error)) from error
