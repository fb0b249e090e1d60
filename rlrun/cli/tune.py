"""`rlrun tune`: searches good values for an algorithm on an environment, and tries them out."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlrun.cli.hydra_bridge import compose
from rlrun.config.experiment import Experiment
from rlrun.config.files import conf_directory
from rlrun.errors import Interrupted, UserError, say

# Where a study's directory is made that the command line does not name.
STUDIES = Path("outputs", "tune")

# Below a study's directory: runs on fresh seeds, with the usual values and with the best.
VALIDATION = "validation"


def tune(arguments: argparse.Namespace) -> None:
    """`rlrun tune WORDS`: searches, tries the best values on fresh seeds, and says what is found.

    Raises:
        UserError: a mistake in the words, or a study of another question.
        Interrupted: a signal asked to stop; the same words go on.
        JobFailed: a run of the validation failed.
    """
    from rlrun.loggers.progress import StandardError
    from rlrun.runs.preflight import Preflight
    from rlrun.runs.signals import StopFlag
    from rlrun.sweeps import outcome, room, space
    from rlrun.sweeps.plan import sweep_name
    from rlrun.sweeps.study import Question, best_values, open_study
    from rlrun.sweeps.tune_display import StudyDisplay
    from rlrun.sweeps.tuner import Tuner

    ranges, fixed = space.split(arguments.words)
    usual = compose(fixed, Path(), arguments.config_dir)
    if shared := {*arguments.seeds} & {*arguments.validate}:
        raise UserError(f"--validate has seeds that are searched on: {sorted(shared)}")
    searched = space.merge(known_space(usual), ranges, fixed)
    space.require_known(searched, [*settings(usual.config), *usual.choices])
    question = Question(
        words=fixed,
        space=searched,
        seeds=arguments.seeds,
        sampler=arguments.sampler,
        pruner=arguments.pruner,
    )
    directory = arguments.dir or STUDIES / sweep_name(arguments.words)
    Preflight().check(usual)
    slots = room.slots([usual] * arguments.trials)
    study = open_study(directory, question, evaluations=evaluations(usual))
    display = StudyDisplay(arguments.trials, StandardError())
    tuner = Tuner(
        study,
        directory,
        question,
        partial(make_jobs, arguments, fixed, len(slots)),
        trials=arguments.trials,
        evaluations=evaluations(usual),
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
    headline = (
        f"{usual.choices['algo']} on {usual.env.id}: best of {len(study.trials)} trials on seeds "
        f"{', '.join(map(str, arguments.seeds))} (rlrun tune)"
    )
    file = outcome.write_best(directory, headline, values, searched, arguments.seeds)
    outcome.draw(study, directory)
    lines = [f"Best of {len(study.trials)} trials, {study.best_value:,.1f}:"]
    lines += [f"  {key}={value}" for key, value in values.items()]
    lines += [f"They are in {file}. Next:"]
    use = shlex.join(["--config-dir", str(directory), *fixed, "tuned=best"])
    say("\n".join([*lines, f"  rlrun {use}"]), sys.stdout)
    if arguments.validate:
        validate(arguments, directory, fixed, values)


def make_jobs(
    arguments: argparse.Namespace,
    fixed: Sequence[str],
    at_once: int,
    place: Path,
    values: Mapping[str, Any],
    seeds: Sequence[int] | None = None,
) -> list[Any]:
    """Make the runs of some values, one for each seed.

    Args:
        arguments: the command line's.
        fixed: words that all runs have.
        at_once: runs at the same time, which share the cores.
        place: directory that the runs are in.
        values: by setting.
        seeds: None: those that are searched on.

    Raises:
        UserError: the values make no run.
    """
    from rlrun.runs.preflight import Preflight
    from rlrun.sweeps import room, space
    from rlrun.sweeps.plan import add_run

    jobs, preflight = [], Preflight()
    for seed in arguments.seeds if seeds is None else seeds:
        words = [*fixed, *space.as_words(values), f"seed={seed}"]
        experiment = compose(words, Path(), arguments.config_dir)
        preflight.check(experiment)
        jobs.append(add_run(place, room.with_share(experiment, at_once), [f"seed={seed}"]))
    return jobs


def validate(
    arguments: argparse.Namespace, directory: Path, fixed: Sequence[str], values: Mapping[str, Any]
) -> None:
    """Train the usual and the best values on fresh seeds, and compare them.

    Raises:
        Interrupted, JobFailed: see :func:`rlrun.sweeps.run.run_sweep`.
    """
    from rlrun.sweeps import room
    from rlrun.sweeps.run import run_sweep

    usual = compose(fixed, Path(), arguments.config_dir)
    place = directory / VALIDATION
    count = 2 * len(arguments.validate)
    slots = room.slots([usual] * count)
    jobs = []
    for name, chosen in (("usual", {}), ("best", values)):
        jobs += make_jobs(
            arguments, fixed, len(slots), place / name, chosen, seeds=arguments.validate
        )
    run_sweep(place, jobs, slots)


def evaluations(experiment: Experiment) -> int:
    """Return how many evaluations a run has after its first step."""
    every = experiment.evaluation.interval(experiment.total_steps)
    return max(1, experiment.total_steps // every)


def known_space(experiment: Experiment) -> dict[str, str]:
    """Return what there is to search of an algorithm, without the command line's ranges."""
    from rlrun.sweeps.space import read_space

    path = conf_directory() / "tune" / f"{experiment.choices['algo']}.yaml"
    return read_space(path) if path.exists() else {}


def settings(config: Mapping[Any, Any], path: str = "") -> list[str]:
    """Return the dotted names of all settings of a config."""
    names = []
    for key, value in config.items():
        place = f"{path}{key}"
        names += settings(value, f"{place}.") if isinstance(value, Mapping) else [place]
    return names
