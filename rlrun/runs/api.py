"""What the command line calls, and a notebook can: train, resume and evaluate runs."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlrun.config import schema
from rlrun.config.experiment import Experiment
from rlrun.config.files import read_json
from rlrun.config.load import load_run
from rlrun.errors import Interrupted, RunFinished, UserError, say, warn
from rlrun.loggers.interface import check_loggers
from rlrun.loggers.jsonl import require_rows
from rlrun.loggers.progress import duration
from rlrun.loggers.wandb import WandbLogger
from rlrun.runs import session
from rlrun.runs.evaluate import Episodes, unwatched
from rlrun.runs.figures import headline, with_spread
from rlrun.runs.files import directory as run_directory
from rlrun.runs.files.checkpoint import CheckpointStore
from rlrun.runs.files.disk import CHECKPOINTS, best_of, remove, require_own_files
from rlrun.runs.files.evaluations import note_evaluation
from rlrun.runs.files.record import run_info, step_unit, summary
from rlrun.runs.language.responses import Answers, LanguageEvaluator
from rlrun.runs.reopen import saved_run
from rlrun.runs.reports.film import Film, filmed
from rlrun.runs.setup.assembly import Assembly
from rlrun.runs.setup.opening import require_engine
from rlrun.runs.setup.preflight import require_room, too_large_steps, without_effect


class Trained(NamedTuple):
    """A run that has ended.

    Attributes:
        directory: its directory.
        last_return: mean return of its last evaluation.
    """

    directory: Path
    last_return: float


def train(experiment: Experiment) -> float:
    """Train a new run (see :func:`train_run`); return the mean return of its last evaluation."""
    return train_run(experiment).last_return


def train_run(experiment: Experiment) -> Trained:
    """Train a new run.

    Args:
        experiment: checked configuration with its parts.

    Raises:
        UserError: the parts do not fit together, a logger cannot work, or the disk is full; no
            directory is left.
        KeyboardInterrupt: Ctrl-C before the run had begun; no directory is left.
        Interrupted, EnvironmentFailure, NonFiniteError: see :func:`rlrun.runs.session.execute`.
    """
    check_loggers(experiment.loggers)
    require_engine(experiment)
    with session.assemble(experiment, checkpoint=None) as assembly:
        remarks = without_effect(experiment, assembly.problem) + too_large_steps(experiment)
        for line in remarks:
            warn(line)
        facts = run_directory.provenance()
        with run_directory.new_directory(
            experiment.parent,
            experiment.run_dir,
            experiment.name,
            config=experiment.config,
            overrides=experiment.overrides,
            record=summary(experiment, assembly.counters, facts, "running"),
        ) as directory:
            try:
                return Trained(directory, execute(assembly, directory, facts))
            except (UserError, KeyboardInterrupt):
                # A logger, say, cannot work as it was asked to; or Ctrl-C, before it is a wish.
                if assembly.counters.step == 0:
                    remove(directory)
                raise


def resume(directory: Path, *, total_steps: int | None, plugins: Sequence[str] = ()) -> float:
    """Continue a run from its newest whole checkpoint, or from the start if it has none.

    Args:
        directory: the run's directory.
        total_steps: environment steps at which it ends now; None for what it was started with.
        plugins: the user's packages that the run may use.

    Returns:
        The mean return of the last evaluation.

    Raises:
        RunFinished: there is nothing to continue.
        RunInUse: a process is still running there.
        UserError: a logger cannot work, or the checkpoint does not belong to the config.
    """
    require_own_files(directory)
    experiment = load_run(directory, plugins)
    if total_steps is not None:
        config = {**experiment.config, "total_steps": total_steps}
        overrides = [*experiment.overrides, f"total_steps={total_steps}"]
        experiment = replace(
            experiment, total_steps=total_steps, config=config, overrides=overrides
        )
    check_loggers(experiment.loggers)
    require_engine(experiment)
    with run_directory.lock(directory):
        store = CheckpointStore(directory / CHECKPOINTS, keep=experiment.checkpoint.keep)
        store.repair()
        rows = experiment.checkpoint.replay
        checkpoint = store.load_last(rows=rows) if store.steps() else None
        earlier = read_json(directory / "run.json")
        with session.assemble(experiment, checkpoint) as assembly:
            done, unit = assembly.counters.step, step_unit(experiment)
            if assembly.counters.converged:
                raise RunFinished(f"{directory} has converged after {done:,} {unit}")
            said_so = earlier.get("status") == "finished"
            if assembly.finished and (said_so or total_steps is not None):
                raise RunFinished(
                    f"{directory} has done its {done:,} {unit}; go on with "
                    f"`rlrun resume {directory} total_steps={2 * done}{plugin_words(experiment)}`"
                )
            if checkpoint is not None and assembly.at_its_best:
                # In case that the run was killed before it did that.
                store.mark_best(checkpoint.path)
            del checkpoint  # as large as the run itself, which has taken what it needs
            if assembly.logger_states:
                require_rows(directory / "metrics.jsonl", assembly.logger_states)
            run_directory.write_config(directory, experiment.config, experiment.overrides)
            record = run_directory.provenance()
            if earlier.get("status") == "planned":
                # Who asked for the run, and not the worker of a sweep that trains it.
                asked = schema.convert(earlier.get("command"), list[str], "run.json: command")
                record["command"] = asked
            else:
                # Which machine, code and command made which part of the run.
                stint = {key: earlier.get(key) for key in record}
                before = schema.convert(earlier.get("earlier", []), list[Any], "run.json: earlier")
                record["earlier"] = [*before, {**stint, "to_step": done}]
            return execute(assembly, directory, record)


def execute(assembly: Assembly, directory: Path, record: dict[str, Any]) -> float:
    """Run to the end, or to a signal, and say what there is now and what to do with it.

    Args:
        assembly: the parts of a new run, or of one that goes on.
        directory: its directory.
        record: what ``run.json`` says besides the run's state.

    Returns:
        The mean return of the last evaluation.
    """
    counters, plugins = assembly.counters, plugin_words(assembly.experiment)
    unit = step_unit(assembly.experiment)
    language = assembly.problem.language
    if language is not None:  # of which tokens a policy is that others may begin as
        record = {**record, "tokens": language.digest}
    try:
        final_return = session.execute(assembly, directory, record)
    except Interrupted:
        if counters.step:
            steps = f"{counters.step:,} {unit}"
            say(f"Stopped after {steps}, which are saved in {directory}.", sys.stdout)
        else:  # while compiling, say: there is no checkpoint, and a resumed run starts anew
            say(f"Stopped before the first step of {directory}.", sys.stdout)
        if not assembly.finished:
            say(f"To go on: rlrun resume {directory}{plugins}", sys.stdout)
        raise
    if counters.update == 0:
        warn(f"{directory} has taken no update: its policy is as it was at first")
    best = "best" if best_of(directory / CHECKPOINTS) else "last"  # somebody may have deleted it
    apart = f", compiling ({duration(record['compile_s'])}) apart" if "compile_s" in record else ""
    converged = ", where it converged," if counters.converged else ""
    episodes = assembly.experiment.evaluation.episodes
    reached = headline(final_return, counters.last_std, episodes)
    look = "--video run.mp4" if language is None else "--samples"
    left = [*sorted(path.name for path in directory.glob("*.png")), "metrics.jsonl", "checkpoints"]
    further = f"  rlrun resume {directory} total_steps={2 * counters.step}{plugins}\n"
    say(
        f"Reached a return of {reached} (best {with_spread(counters.best_return, math.nan)}) after "
        f"{counters.step:,} {unit}{converged} in {duration(counters.time_s)}{apart}: "
        f"{counters.step / counters.time_s:,.0f} {unit}/s with evaluation and logging\n"
        f"The run is in {directory}: {', '.join(left)}. Next:\n"
        f"  rlrun eval {directory} --checkpoint {best} {look}{plugins}\n"
        f"{'' if counters.converged else further}"
        "  rlrun list",
        sys.stdout,
    )
    return final_return


def plugin_words(experiment: Experiment) -> str:
    """Return what allows a run's plugins on a command line that names the run."""
    return "".join(f" --plugin {name}" for name in experiment.plugins)


def evaluate_run(
    directory: Path,
    *,
    episodes: int,
    seed: int,
    checkpoint: str,
    plugins: Sequence[str] = (),
    film: Film | None = None,
    watch: Callable[[int], None] = unwatched,
    wandb: bool = False,
) -> dict[str, Any]:
    """Play episodes of a run's policy, and note their figures in its ``evaluations.jsonl``.

    Args:
        directory: the run's directory.
        episodes: how many; each has an environment of its own.
        seed: of the first environment; the others count up from it.
        checkpoint: "last" or "best".
        plugins: the user's packages that the run may use.
        film: where to film the first episode; None: nowhere. It has the error of a film that could
            not be made.
        watch: is told at each step how many episodes have ended.
        wandb: whether to make a W&B run of it, too.

    Returns:
        Facts about the policy and about its returns.

    Raises:
        UserError: there is no such checkpoint, no memory for so many episodes at once, nothing to
            film, or W&B cannot work.
    """
    require_room(episodes, "episodes")
    with saved_run(directory, checkpoint, plugins) as (assembly, path):
        experiment, states = assembly.experiment, assembly.logger_states
        logger = wandb_of(experiment) if wandb else None
        result: Episodes | Answers
        evaluator = assembly.evaluator
        if film is None:
            result = evaluator.play(episodes, seed=seed, watch=watch)
        elif isinstance(evaluator, LanguageEvaluator):
            raise UserError("no video: a response is text, which --samples shows")
        else:
            with filmed(experiment, evaluator, episodes, film) as env:
                result = evaluator.play_in(env, seed=seed, watch=watch)
    returns = np.array(result.returns)
    figures = {
        "checkpoint": str(path),
        "step": assembly.counters.step,
        "seed": seed,
        "episodes": episodes,
        "return": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "length": float(np.mean(result.lengths)),
    }
    said = {name.removeprefix("eval/"): value for name, value in result.metrics().items()}
    figures |= {name: value for name, value in said.items() if name not in figures}
    noted = {**figures, "checkpoint": path.name}
    note_evaluation(directory, noted)
    if logger is not None:
        info = run_info(experiment, directory, run_directory.provenance())
        video = film.path if film is not None and film.error is None else None
        logger.log_evaluation(info, noted, video, states.get("wandb", {}).get("id"))
    return figures


def wandb_of(experiment: Experiment) -> WandbLogger:
    """Return the W&B logger that a run was trained with, which works here.

    Raises:
        UserError: it had none, or W&B cannot work.
    """
    for logger in experiment.loggers.values():
        if isinstance(logger, WandbLogger):
            logger.check()
            return logger
    raise UserError("--wandb: the run was not logged to W&B (logger=wandb)")
