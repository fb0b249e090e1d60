"""`rlrun tune`: searches good values for an algorithm on an environment, and tries them out."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.analysis.stored_runs import flatten
from rlrun.cli.hydra_bridge import compose
from rlrun.cli.train import check_settings
from rlrun.config.experiment import Experiment
from rlrun.config.files import conf_directory
from rlrun.errors import Interrupted, UserError, say
from rlrun.loggers.interface import check_loggers
from rlrun.loggers.progress import StandardError
from rlrun.runs.files.directory import shared
from rlrun.runs.preflight import Preflight
from rlrun.runs.signals import StopFlag
from rlrun.sweeps import plan, room
from rlrun.sweeps.run import run_sweep
from rlrun.tuning import outcome, space
from rlrun.tuning.display import StudyDisplay
from rlrun.tuning.study import Question, best_values, open_study
from rlrun.tuning.tuner import Tuner

# Where a study's directory is made that the command line does not name.
STUDIES = Path("outputs", "tune")

# Below a study's directory: runs on fresh seeds, with the usual values and with the best.
VALIDATION = "validation"

# Names of the two, as values of the setting `group`.
USUAL, BEST = "usual", "best"

# What is tune's own to decide, and how it is told.
DECIDED = {
    "seed": "--seeds has those that are searched on, --validate those of the proof",
    "run_dir": "--dir names the study's directory",
    "group": "the runs of the proof are in the groups usual and best",
}


def tune(arguments: argparse.Namespace) -> None:
    """`rlrun tune WORDS`: searches, tries the best values on fresh seeds, and says what is found.

    Raises:
        UserError: a mistake in the words, or a study of another question.
        Interrupted: a signal asked to stop; the same words go on.
        JobFailed: a run of the proof failed.
    """
    ranges, words = space.split(arguments.words)
    for key, how in DECIDED.items():
        if key in ranges or key in map(space.key_of, words):
            raise UserError(f"{key}=…: {how}")
    if shared := sorted({*arguments.seeds} & {*arguments.validate}):
        raise UserError(f"--validate has seeds that are searched on: {shared}")
    check_settings(words, [] if arguments.config_dir is None else [arguments.config_dir])
    usual = compose(words, Path(), arguments.config_dir)
    settings = flatten(usual.config)
    searched = space.merge(known_space(usual, arguments.config_dir), ranges, words)
    if not searched:
        algo = usual.choices["algo"]
        raise UserError(f"nothing to search: no tune/{algo}.yaml, and no range in the words")
    space.require_known(searched, [*settings, *usual.choices])
    question = Question(
        words=words,
        space=searched,
        seeds=arguments.seeds,
        sampler=arguments.sampler,
        pruner=arguments.pruner,
    )
    check_loggers(usual.loggers)
    Preflight().check(usual)
    directory = arguments.dir or STUDIES / plan.sweep_name(arguments.words)
    best = search(arguments, question, usual, directory)
    if arguments.validate:
        prove(arguments, question, usual, best, directory)


def search(
    arguments: argparse.Namespace, question: Question, usual: Experiment, directory: Path
) -> dict[str, Any]:
    """Train trials until there are enough, and write down what is best.

    Args:
        arguments: the command line's.
        question: what is to be found out.
        usual: the run without the searched values, which has been set up.
        directory: of the study.

    Returns:
        The best values by setting.

    Raises:
        UserError: the directory has another study, or no trial came to its end.
        Interrupted: a signal asked to stop.
    """
    slots = room.slots([usual] * arguments.trials)
    evaluations = usual.total_steps // usual.evaluation.interval(usual.total_steps)
    study = open_study(directory, question, evaluations=evaluations)
    display = StudyDisplay(arguments.trials, StandardError())
    tuner = Tuner(
        study,
        directory,
        question,
        MakeJobs(question.words, arguments.config_dir, arguments.seeds, len(slots)),
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
    values = best_values(study)
    trials = f"best of {len(study.trials)} trials"
    headline = (
        f"{usual.choices['algo']} on {usual.env.id}: {trials} on seeds "
        f"{', '.join(map(str, question.seeds))} (rlrun tune)"
    )
    pair = of_the_pair(usual, question.words, arguments.config_dir)
    with shared(directory):
        file = outcome.write_best(directory, headline, values, question, pair=pair)
        outcome.draw(study, directory)
    lines = [f"The {trials}, {study.best_value:,.1f}:"]
    lines += [f"  {key}={value}" for key, value in values.items()]
    lines.append(f"They are in {file}. Next:")
    words = [word for word in question.words if space.key_of(word) != "tuned"]
    own = arguments.config_dir or directory
    if own != directory:
        lines.append(f"  cp {shlex.join([str(file), str(own / outcome.BEST)])}")
    lines.append(f"  rlrun {shlex.join(['--config-dir', str(own), *words, 'tuned=best'])}")
    say("\n".join(lines), sys.stdout)
    return values


def prove(
    arguments: argparse.Namespace,
    question: Question,
    usual: Experiment,
    best: Mapping[str, Any],
    directory: Path,
) -> None:
    """Train the usual and the best values on fresh seeds, and compare them.

    Args:
        arguments: the command line's.
        question: what was to be found out.
        usual: the run without the searched values, which has been set up.
        best: those values.
        directory: of the study.

    Raises:
        Interrupted, JobFailed: see :func:`rlrun.sweeps.run.run_sweep`.
    """
    place = directory / VALIDATION
    slots = room.slots([usual] * 2 * len(arguments.validate))
    make_jobs = MakeJobs(question.words, arguments.config_dir, arguments.validate, len(slots))
    with_usual = make_jobs(place, {"group": USUAL})
    with_best = make_jobs(place, {**best, "group": BEST})
    jobs = [job for pair in zip(with_usual, with_best, strict=True) for job in pair]
    plan.write_plan(place, arguments.words, ["group", "seed"], jobs)
    run_sweep(place, jobs, slots, by=["group"])
    say(outcome.verdict(outcome.finals(with_usual), outcome.finals(with_best)), sys.stdout)


@dataclass(frozen=True)
class MakeJobs:
    """Makes the runs of some values, one for each seed.

    Attributes:
        words: what all of the runs have.
        config_dir: the user's own groups.
        seeds: of the runs.
        at_once: runs at the same time, which share the cores.
    """

    words: Sequence[str]
    config_dir: Path | None
    seeds: Sequence[int]
    at_once: int

    def __call__(self, place: Path, values: Mapping[str, Any]) -> list[plan.Job]:
        """Make the runs, or find those that are there.

        Args:
            place: directory that they are in.
            values: by setting.

        Raises:
            UserError: the values make no run.
        """
        jobs, preflight = [], Preflight()
        for seed in self.seeds:
            own = [*space.as_words(values), f"seed={seed}"]
            experiment = compose([*self.words, *own], Path(), self.config_dir)
            preflight.check(experiment)
            named = [word for word in own if space.key_of(word) in ("group", "seed")]
            jobs.append(plan.add_run(place, room.with_share(experiment, self.at_once), named))
        return jobs


def known_space(experiment: Experiment, config_dir: Path | None) -> dict[str, str]:
    """Return what there is to search of an algorithm, without the command line's ranges.

    Args:
        experiment: whose algorithm.
        config_dir: the user's own groups, which may have a file for it.
    """
    name = Path("tune", f"{experiment.choices['algo']}.yaml")
    known = {}
    for directory in (config_dir, conf_directory()):
        if directory is not None and (directory / name).exists():
            known = space.read_space(directory / name)
            break
    there = flatten(experiment.config)
    return {key: text for key, text in known.items() if key in there or not is_of_part(key)}


def is_of_part(key: str) -> bool:
    """Tell whether a setting goes when the command line chooses another part."""
    return key.partition(".")[0] in ("advantage", "collector", "model")


def of_the_pair(usual: Experiment, words: Sequence[str], config_dir: Path | None) -> dict[str, Any]:
    """Return the values that a run has from a file of the group `tuned`, by setting.

    Args:
        usual: the run.
        words: the command line's.
        config_dir: the user's own groups.
    """
    others = [word for word in words if space.key_of(word) != "tuned"]
    untuned = flatten(compose([*others, "~tuned"], Path(), config_dir).config)
    values = flatten(usual.config)
    return {key: value for key, value in values.items() if untuned.get(key, ...) != value}
