"""`rlrun tune` at work: the search, the choice, the file of the best values, and their proof."""

import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from rlrun.analysis.stored_runs import flatten
from rlrun.cli.hydra_bridge import compose, unresolved
from rlrun.cli.verbs.tune_request import Request
from rlrun.errors import Interrupted, JobFailed, say
from rlrun.loggers.interface import check_loggers
from rlrun.loggers.progress import StandardError, number
from rlrun.runs.files.directory import shared
from rlrun.runs.setup.preflight import Preflight
from rlrun.runs.signals import StopFlag
from rlrun.sweeps import plan, room
from rlrun.tuning import outcome, space
from rlrun.tuning.display import StudyDisplay
from rlrun.tuning.jobs import RunMaker, train_in_turn
from rlrun.tuning.study import Best, best_trials, open_study
from rlrun.tuning.tuner import Tuner

# Names of the two that are compared, as values of the setting `group`.
USUAL, BEST = "usual", "best"

# Trials that are trained on more seeds before one is chosen.
FINALISTS = 3


def search(request: Request) -> optuna.Study:
    """Train trials until there are enough.

    Raises:
        UserError: the directory has another study.
        Interrupted: a signal asked to stop.
    """
    arguments, usual, directory = request.arguments, request.usual, request.directory
    check_loggers(usual.loggers)
    Preflight().check(usual)
    slots = room.slots([usual] * arguments.trials)
    evaluations = usual.total_steps // usual.evaluation.interval(usual.total_steps)
    study = open_study(directory, request.question, evaluations=evaluations)
    display = StudyDisplay(arguments.trials, StandardError())
    tuner = Tuner(
        study,
        directory,
        request.question,
        runs_of(request, chosen_on(request), request.own, arguments.seeds, len(slots)),
        usual=flatten(usual.config),
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
    return study


def choose(request: Request, study: optuna.Study) -> Best:
    """Choose the best of the trials that did best, after some more seeds.

    The best of many figures of a few seeds each owes much of them to luck; on other seeds it is
    another trial's turn. The figure is the mean over all seeds.

    Raises:
        UserError: no trial came to its end.
        Interrupted: a signal asked to stop.
        JobFailed: no finalist finished all of its runs.
    """
    finalists, seeds = best_trials(study, FINALISTS), request.arguments.final_seeds
    if len(finalists) == 1 or not seeds:
        return finalists[0]
    place = request.directory / "finals"
    slots = room.slots([request.usual] * len(finalists) * len(seeds))
    jobs = []
    for trial in finalists:
        words = [*chosen_on(request), f"group=trial_{trial.number:03d}"]
        maker = runs_of(request, words, request.own, seeds, len(slots))
        jobs.append(maker.make(place, maker.compose(trial.values)))
    with contextlib.suppress(JobFailed):  # which is said; it is a finalist less
        train_in_turn(place, request.arguments.words, jobs, slots)
    searched = len(request.question.seeds)
    whole = []
    for trial, runs in zip(finalists, jobs, strict=True):
        figures = outcome.finals(runs)
        if len(figures) == len(seeds):
            total = searched * trial.value + figures.sum()
            whole.append(trial._replace(value=float(total) / (searched + len(seeds))))
    if not whole:
        raise JobFailed(f"no finalist in {place} finished all of its runs")
    return max(whole, key=lambda trial: trial.value)


def write(request: Request, study: optuna.Study, best: Best) -> bool:
    """Write down what is best, and say it.

    Returns:
        Whether it is something else than the usual values.
    """
    usual, directory = request.usual, request.directory
    headline = f"best of {len(study.trials)} trials"
    ranges = space.distributions(request.question.space)
    values = space.with_zeros(ranges, best.values, flatten(usual.config))
    with_best = compose([*request.words, *space.as_words(values)], Path(), request.own)
    if plan.config_code(with_best.config) == request.question.config:
        say(f"The usual values are the {headline}, {number(best.value)}.", sys.stdout)
        return False
    seeds = ", ".join(map(str, request.chosen_on))
    with shared(directory):
        file = outcome.write_best(
            directory / "tuned" / f"{request.file_name}.yaml",
            f"{usual.choices['algo']} on {usual.env.id}: {headline} on seeds {seeds} (rlrun tune)",
            chosen_values(request, best.values),
            {plan.key_of(key): request.question.space[key] for key in best.values},
            request.chosen_on,
        )
        outcome.draw(study, directory)
    lines = [f"The {headline}, {number(best.value)}:"]
    lines += [f"  {key}={value}" for key, value in best.values.items()]
    lines.append(f"They are in {file}. Next:")
    words = [
        "--config-dir",
        str(directory),
        *without_tuned(request.words),
        f"tuned={request.file_name}",
    ]
    places = ",".join(f"file://{place.resolve()}" for place in request.own)
    words += [f"hydra.searchpath=[{places}]"] if places else []
    say("\n".join([*lines, f"  rlrun {shlex.join(words)}"]), sys.stdout)
    return True


def chosen_values(request: Request, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run with the best values has in its config that none has by itself.

    Beside the best values that is what another file of the group `tuned` says. A value that is
    another setting's (``${algo.horizon}``) is not written down as a number of its own.

    Args:
        request: what was asked for.
        found: the best values.
    """
    words = [*request.words, *space.as_words(found)]
    there = flatten(unresolved(words, request.own))
    untuned = flatten(unresolved([*without_tuned(request.words), "~tuned"], request.own))
    return {
        key: value
        for key, value in there.items()
        if untuned.get(key, ...) != value and key != "tuned_on"
    }


def without_tuned(words: Sequence[str]) -> list[str]:
    """Return the words that do not choose of the group `tuned`."""
    return [word for word in words if plan.key_of(word) != "tuned"]


def prove(request: Request, best: Best) -> None:
    """Train the usual values and the file of the best on fresh seeds, and compare them.

    Args:
        request: what was asked for.
        best: the best trial.

    Raises:
        Interrupted, JobFailed: see :func:`rlrun.sweeps.run.run_sweep`.
    """
    seeds = request.arguments.validate
    # More trials may find others, which are another proof.
    place = request.directory / f"validation_{best.number:03d}"
    slots = room.slots([request.usual] * 2 * len(seeds))
    tuned = [*without_tuned(request.words), f"tuned={request.file_name}"]
    with_usual, with_best = (
        maker.make(place, maker.compose({}))
        for maker in (
            runs_of(request, [*request.words, f"group={USUAL}"], request.own, seeds, len(slots)),
            runs_of(
                request,
                [*tuned, f"group={BEST}"],
                [request.directory, *request.own],
                seeds,
                len(slots),
            ),
        )
    )
    train_in_turn(place, request.arguments.words, [with_usual, with_best], slots)
    say(outcome.verdict(outcome.finals(with_usual), outcome.finals(with_best)), sys.stdout)


def chosen_on(request: Request) -> list[str]:
    """Return the words of a run that values are chosen on, which says so of its seed."""
    seeds = ",".join(map(str, request.chosen_on))
    return [*request.words, f"tuned_on=[{seeds}]"]


def runs_of(
    request: Request, words: Sequence[str], own: Sequence[Path], seeds: Sequence[int], at_once: int
) -> RunMaker:
    """Return what makes the runs of some words with the user's directories of groups."""
    return RunMaker(
        put_together=lambda every: compose(every, Path(), own),
        words=words,
        seeds=seeds,
        at_once=at_once,
        study=request.name,
    )
