"""What a command line of `rlrun tune` asks for: a space to search, seeds, the usual run."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.distributions import CategoricalDistribution

from rlrun.analysis.stored_runs import flatten
from rlrun.cli.hydra_bridge import compose
from rlrun.cli.train import check_settings
from rlrun.config.experiment import Experiment
from rlrun.config.files import conf_directory
from rlrun.errors import UserError, warn
from rlrun.sweeps import plan
from rlrun.tuning import space
from rlrun.tuning.study import Question

# Where a study's directory is made that the command line does not name.
STUDIES = Path("outputs", "tune")

# What is tune's own to decide, and how it is told.
DECIDED = {
    "seed": "--seeds has those that are searched on, --validate those of the proof",
    "run_dir": "--dir names the study's directory",
    "group": "the runs of the proof are in the groups usual and best",
}

# Whose settings are searched. Another task or budget would make trials that do not compare.
SEARCHED = ("algo", "advantage", "collector", "model", "env")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a command line asks for.

    Attributes:
        arguments: of the command line.
        words: what all runs have.
        own: the user's directories of groups.
        usual: the run without the searched values, which has been set up.
        question: what is to be found out.
        directory: of the study.
        chosen_on: seeds that its best values will have been chosen on.
    """

    arguments: argparse.Namespace
    words: list[str]
    own: list[Path]
    usual: Experiment
    question: Question
    directory: Path
    chosen_on: list[int]

    @property
    def name(self) -> str:
        """Of the study."""
        return re.sub(r"[^\w-]+", "-", self.directory.resolve().name)

    @property
    def file_name(self) -> str:
        """Of the file of the group `tuned` that is made: no file of rlrun's own is called so."""
        return f"best_{self.name}"


def read(arguments: argparse.Namespace) -> Request:
    """Understand a command line.

    Raises:
        UserError: a mistake in it.
    """
    ranges, words = space.split(arguments.words)
    for key, how in DECIDED.items():
        if key in ranges or key in map(plan.key_of, words):
            raise UserError(f"{key}=…: {how}")
    for key in ranges:
        group, dot, _ = key.lstrip("+").partition(".")
        if group not in SEARCHED or not dot or key.lstrip("+") == "env.id":
            raise UserError(
                f"{key}=…: one value; what is searched is a setting of {SEARCHED[0]}, "
                f"{', '.join(SEARCHED[1:])}"
            )
    own = [] if arguments.config_dir is None else [arguments.config_dir]
    check_settings(words, own)
    usual = compose(words, Path(), own)
    if twice := sorted({*arguments.seeds} & {*arguments.final_seeds}):
        raise UserError(f"--final-seeds has seeds of --seeds: {twice}")
    chosen_on = {*arguments.seeds, *arguments.final_seeds, *usual.tuned_on}
    if shared_seeds := sorted(chosen_on & {*arguments.validate}):
        raise UserError(f"--validate has seeds that values are chosen on: {shared_seeds}")
    searched = space.merge(known_space(usual, words, own), ranges, words)
    if not searched:
        algo = usual.choices["algo"]
        raise UserError(f"nothing to search: no tune/{algo}.yaml, and no range in the words")
    space.require_known(searched, list(flatten(usual.config)))
    if arguments.sampler == "cmaes":
        say_what_is_random(searched)
    question = Question(
        words=sorted(filter(plan.decides, words)),
        config=plan.config_code(usual.config),
        space=searched,
        seeds=arguments.seeds,
        sampler=arguments.sampler,
        pruner=arguments.pruner,
    )
    directory = arguments.dir or STUDIES / plan.sweep_name(arguments.words)
    return Request(
        chosen_on=sorted(chosen_on),
        arguments=arguments,
        words=words,
        own=own,
        usual=usual,
        question=question,
        directory=directory,
    )


def known_space(usual: Experiment, words: Sequence[str], own: Sequence[Path]) -> dict[str, str]:
    """Return what there is to search of an algorithm, without the command line's ranges.

    Args:
        usual: whose algorithm.
        words: the command line's; settings of a part that they choose may not be there.
        own: the user's directories of groups, one of which may have a file for it.
    """
    name = Path("tune", f"{usual.choices['algo']}.yaml")
    chosen = set(map(plan.key_of, words)) & {"advantage", "collector", "model"}
    there = flatten(usual.config)
    for directory in (*own, conf_directory()):
        if (directory / name).exists():
            known = space.read_space(directory / name)
            return {
                key: text
                for key, text in known.items()
                if key in there or key.partition(".")[0] not in chosen
            }
    return {}


def say_what_is_random(searched: Mapping[str, str]) -> None:
    """Warn of what CMA-ES does not move, as it knows numbers only, and two of them at least."""
    drawn = space.distributions(searched)
    choices = [key for key, kind in drawn.items() if isinstance(kind, CategoricalDistribution)]
    if len(drawn) - len(choices) < 2:
        choices = list(drawn)
    if choices:
        warn(f"--sampler cmaes draws these at random: {', '.join(choices)}")
