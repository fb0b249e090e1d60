"""`rlrun tune`: searches good values for an algorithm on an environment, and tries them out."""

import argparse
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution

from rlrun.analysis.stored_runs import flatten
from rlrun.cli.hydra_bridge import compose, unresolved
from rlrun.cli.train import check_settings
from rlrun.config.experiment import Experiment
from rlrun.config.files import conf_directory
from rlrun.errors import Interrupted, UserError, say, warn
from rlrun.loggers.interface import check_loggers
from rlrun.loggers.progress import StandardError, number
from rlrun.runs.files.directory import shared
from rlrun.runs.preflight import Preflight
from rlrun.runs.signals import StopFlag
from rlrun.sweeps import plan, room
from rlrun.sweeps.run import run_sweep
from rlrun.tuning import outcome, space
from rlrun.tuning.display import StudyDisplay
from rlrun.tuning.study import Question, best_trial, open_study
from rlrun.tuning.tuner import Tuner

# Where a study's directory is made that the command line does not name.
STUDIES = Path("outputs", "tune")

# Names of the two that are compared, as values of the setting `group`.
USUAL, BEST = "usual", "best"

# What is tune's own to decide, and how it is told.
DECIDED = {
    "seed": "--seeds has those that are searched on, --validate those of the proof",
    "run_dir": "--dir names the study's directory",
    "group": "the runs of the proof are in the groups usual and best",
}

# Whose settings are searched. Another task or budget would make trials that do not compare.
SEARCHED = ("algo", "advantage", "collector", "model", "env")

# Words that say where and how a run is done, and not what it does.
BESIDE = ("hardware", "hydra", "logger")


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What a command line asks for.

    Attributes:
        arguments: of the command line.
        words: what all runs have.
        own: the user's directories of groups.
        usual: the run without the searched values, which has been set up.
        question: what is to be found out.
        directory: of the study.
    """

    arguments: argparse.Namespace
    words: list[str]
    own: list[Path]
    usual: Experiment
    question: Question
    directory: Path

    @property
    def name(self) -> str:
        """Of the file of the group `tuned` that is made."""
        return re.sub(r"[^\w-]+", "-", self.directory.resolve().name)


def tune(arguments: argparse.Namespace) -> None:
    """`rlrun tune WORDS`: searches, tries the best values on fresh seeds, and says what is found.

    Raises:
        UserError: a mistake in the words, or a study of another question.
        Interrupted: a signal asked to stop; the same words go on.
        JobFailed: a run of the proof failed.
    """
    tuning = read(arguments)
    check_loggers(tuning.usual.loggers)
    Preflight().check(tuning.usual)
    best = search(tuning)
    if arguments.validate:
        prove(tuning, best)


def read(arguments: argparse.Namespace) -> Tuning:
    """Understand a command line.

    Raises:
        UserError: a mistake in it.
    """
    ranges, words = space.split(arguments.words)
    for key, how in DECIDED.items():
        if key in ranges or key in map(space.key_of, words):
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
    chosen_on = {*arguments.seeds, *usual.tuned_on}
    if shared_seeds := sorted(chosen_on & {*arguments.validate}):
        raise UserError(f"--validate has seeds that values are chosen on: {shared_seeds}")
    searched = space.merge(known_space(usual, words, own), ranges, words)
    if not searched:
        algo = usual.choices["algo"]
        raise UserError(f"nothing to search: no tune/{algo}.yaml, and no range in the words")
    space.require_known(searched, list(flatten(usual.config)))
    if arguments.sampler == "cmaes":
        say_what_is_random(searched)
    decisive = [word for word in words if not space.key_of(word).startswith(BESIDE)]
    question = Question(
        words=sorted(decisive),
        config=plan.config_code(usual.config),
        space=searched,
        seeds=arguments.seeds,
        sampler=arguments.sampler,
        pruner=arguments.pruner,
    )
    directory = arguments.dir or STUDIES / plan.sweep_name(arguments.words)
    return Tuning(
        arguments=arguments,
        words=words,
        own=own,
        usual=usual,
        question=question,
        directory=directory,
    )


def say_what_is_random(searched: Mapping[str, str]) -> None:
    """Warn of what CMA-ES does not move, as it knows numbers only, and two of them at least."""
    drawn = space.distributions(searched)
    choices = [key for key, kind in drawn.items() if isinstance(kind, CategoricalDistribution)]
    if len(drawn) - len(choices) < 2:
        choices = list(drawn)
    if choices:
        warn(f"--sampler cmaes draws these at random: {', '.join(choices)}")


def search(tuning: Tuning) -> int:
    """Train trials until there are enough, and write down what is best.

    Returns:
        The number of the best trial.

    Raises:
        UserError: the directory has another study, or no trial came to its end.
        Interrupted: a signal asked to stop.
    """
    arguments, usual, directory = tuning.arguments, tuning.usual, tuning.directory
    slots = room.slots([usual] * arguments.trials)
    evaluations = usual.total_steps // usual.evaluation.interval(usual.total_steps)
    study = open_study(directory, tuning.question, evaluations=evaluations)
    display = StudyDisplay(arguments.trials, StandardError())
    tuner = Tuner(
        study,
        directory,
        tuning.question,
        MakeJobs(tuning.words, tuning.own, arguments.seeds, len(slots), tuning.name),
        trials=arguments.trials,
        evaluations=evaluations,
        slots=slots,
        display=display,
    )
    with StopFlag() as stop:
        try:
            tuner.run(stop)
        finally:
            tuner.close()
            display.close()
    if stop.signal is not None:
        say(f"To go on: rlrun {shlex.join(sys.argv[1:])}", sys.stdout)
        raise Interrupted(stop.signal)
    best, value, found = best_trial(study)
    headline = f"best of {len(study.trials)} trials"
    seeds = ", ".join(map(str, tuning.question.seeds))
    with shared(directory):
        file = outcome.write_best(
            directory / "tuned" / f"{tuning.name}.yaml",
            f"{usual.choices['algo']} on {usual.env.id}: {headline} on seeds {seeds} (rlrun tune)",
            chosen_values(tuning, found),
            {space.key_of(key): tuning.question.space[key] for key in found},
            sorted({*usual.tuned_on, *tuning.question.seeds}),
        )
        outcome.draw(study, directory)
    lines = [f"The {headline}, {number(value)}:"]
    lines += [f"  {key}={value}" for key, value in found.items()]
    lines.append(f"They are in {file}. Next:")
    words = ["--config-dir", str(directory), *without_tuned(tuning.words), f"tuned={tuning.name}"]
    places = ",".join(f"file://{place.resolve()}" for place in tuning.own)
    words += [f"hydra.searchpath=[{places}]"] if places else []
    say("\n".join([*lines, f"  rlrun {shlex.join(words)}"]), sys.stdout)
    return best


def chosen_values(tuning: Tuning, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run with the best values has in its config that none has by itself.

    Beside the best values that is what another file of the group `tuned` says. A value that is
    another setting's (``${algo.horizon}``) is not written down as a number of its own.

    Args:
        tuning: what was asked for.
        found: the best values.
    """
    words = [*tuning.words, *space.as_words(found)]
    there = flatten(unresolved(words, tuning.own))
    untuned = flatten(unresolved([*without_tuned(tuning.words), "~tuned"], tuning.own))
    return {
        key: value
        for key, value in there.items()
        if untuned.get(key, ...) != value and key != "tuned_on"
    }


def without_tuned(words: Sequence[str]) -> list[str]:
    """Return the words that do not choose of the group `tuned`."""
    return [word for word in words if space.key_of(word) != "tuned"]


def prove(tuning: Tuning, best: int) -> None:
    """Train the usual values and the file of the best on fresh seeds, and compare them.

    Args:
        tuning: what was asked for.
        best: number of the best trial.

    Raises:
        Interrupted, JobFailed: see :func:`rlrun.sweeps.run.run_sweep`.
    """
    seeds = tuning.arguments.validate
    # More trials may find others, which are another proof.
    place = tuning.directory / f"validation_{best:03d}"
    slots = room.slots([tuning.usual] * 2 * len(seeds))
    at_once = len(slots)
    tuned = [*without_tuned(tuning.words), f"tuned={tuning.name}"]
    there = [tuning.directory, *tuning.own]
    usual = MakeJobs([*tuning.words, f"group={USUAL}"], tuning.own, seeds, at_once, tuning.name)
    found = MakeJobs([*tuned, f"group={BEST}"], there, seeds, at_once, tuning.name)
    with_usual = usual.make(place, usual.compose({}))
    with_best = found.make(place, found.compose({}))
    jobs = [job for pair in zip(with_usual, with_best, strict=True) for job in pair]
    plan.write_plan(place, tuning.arguments.words, ["group", "seed"], jobs)
    run_sweep(place, jobs, slots, by=["group"])
    say(outcome.verdict(outcome.finals(with_usual), outcome.finals(with_best)), sys.stdout)


@dataclass(frozen=True)
class MakeJobs:
    """Makes the runs of some values, one for each seed.

    Attributes:
        words: what all of the runs have.
        own: the user's directories of groups.
        seeds: of the runs.
        at_once: runs at the same time, which share the cores.
        study: what the study is called.
    """

    words: Sequence[str]
    own: Sequence[Path]
    seeds: Sequence[int]
    at_once: int
    study: str

    def compose(self, values: Mapping[str, Any]) -> list[Experiment]:
        """Put the runs of some values together.

        Args:
            values: by setting.

        Raises:
            UserError: the values make no run.
        """
        experiments, preflight = [], Preflight()
        for seed in self.seeds:
            words = [*self.words, *space.as_words(values), f"seed={seed}"]
            experiment = compose(words, Path(), self.own)
            preflight.check(experiment)
            experiments.append(room.with_share(experiment, self.at_once))
        return experiments

    def make(self, place: Path, experiments: Sequence[Experiment]) -> list[plan.Job]:
        """Make the directories of runs, or find those that are there.

        Args:
            place: directory that they are in.
            experiments: of the runs.

        Raises:
            UserError: a directory cannot be made.
        """
        jobs = []
        for experiment in experiments:
            own = [f"group={experiment.group}"] if experiment.group else []
            own.append(f"seed={experiment.seed}")
            jobs.append(plan.add_run(place, experiment, own, name=f"{self.study}/{place.name}"))
        return jobs


def known_space(usual: Experiment, words: Sequence[str], own: Sequence[Path]) -> dict[str, str]:
    """Return what there is to search of an algorithm, without the command line's ranges.

    Args:
        usual: whose algorithm.
        words: the command line's; settings of a part that they choose may not be there.
        own: the user's directories of groups, one of which may have a file for it.
    """
    name = Path("tune", f"{usual.choices['algo']}.yaml")
    chosen = set(map(space.key_of, words)) & {"advantage", "collector", "model"}
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
