"""`rlrun -m …`: from a command line's words to a sweep's directory (``rlrun/sweeps/plan.py``).

Hydra composes the jobs. They are trained by worker processes of rlrun's own, side by side, unless
the command line names another of Hydra's launchers or sweepers, which then call `run_job`.
"""

import io
import itertools
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from rlrun.cli.hydra_bridge import JobEnded, explain, load_composed, load_job
from rlrun.config.experiment import Experiment
from rlrun.errors import Interrupted, JobFailed, RunFinished, RunInUse, UserError, report, say
from rlrun.loggers.interface import check_loggers

# What Hydra uses where the command line names nothing else: then rlrun's own workers take over.
HYDRAS_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
HYDRAS_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"

# Where a sweep's directory is made that the command line does not name.
SWEEPS = Path("outputs", "sweeps")

# What stands before the value of a setting that is held back (`hold_back`).
HELD_BACK = "held_back,"


class SweepEnded(BaseException):
    """Leaves Hydra, which has composed the jobs: they have been trained."""


class PrepareJobs(Callback):
    """Checks every job before the first one starts, and makes its run's directory.

    Each job's config is composed and its parts are built, so that most mistakes do not wait for
    hours. Where the jobs run on this machine, the parts are tried on each other and the loggers
    checked, too. What shows only when a job starts: a logger's server that is out of reach, a
    compiler that fails.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Compose each job's config, build its parts, and make the sweep's directory.

        Raises:
            JobEnded: a job's config has a mistake, its parts do not fit each other or this machine,
                or two jobs would have one directory; or a run has failed.
            SweepEnded: all jobs have been trained.
        """
        from rlrun.runs.files.directory import require_own
        from rlrun.sweeps import plan, room
        from rlrun.sweeps.run import run_sweep

        words = [give_back(word) for word in config.hydra.overrides.task]
        config.hydra.overrides.task = words  # what the jobs are made from
        config.hydra.job.override_dirname = give_back(config.hydra.job.override_dirname)
        sys.argv = [give_back(word) for word in sys.argv]  # what a run's record has
        sweep = Path(config.hydra.sweep.dir or SWEEPS / plan.sweep_name(words))
        if not config.hydra.sweep.dir:
            config.hydra.sweep.dir = str(sweep)
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={sweep}")  # for each job's config
        here = config.hydra.launcher._target_ == HYDRAS_LAUNCHER
        try:
            require_own(sweep, "sweep")
            composed = check(config.hydra.job.config_name, words, here)
            own_sweeper = config.hydra.sweeper._target_ == HYDRAS_SWEEPER
            if own_sweeper:
                refuse_ranges(words)
            if not (here and own_sweeper):
                plan.write_plan(sweep, words, swept(words), [])
                return
            slots = room.slots([experiment for experiment, _ in composed])
            made = [
                plan.add_run(sweep, room.with_share(experiment, len(slots)), own)
                for experiment, own in seeds_first(composed)
            ]
            jobs = list({job.directory: job for job in made}.values())  # seed=0,0 is one run
            plan.write_plan(sweep, words, swept(words), jobs)
            run_sweep(sweep, jobs, slots)
        except Exception as error:
            raise JobEnded(error) from error
        raise SweepEnded


def refuse_ranges(words: Sequence[str]) -> None:
    """Refuse ranges of numbers, of which only a search tries some.

    Raises:
        UserError: names the range.
    """
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    for word, override in zip(words, parser.parse_overrides(list(words)), strict=True):
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UserError(
                f"{word}: a sweep has values, {override.key_or_group}=1,2,3; ranges are searched "
                "by `rlrun tune`"
            )


def check(config_name: str, words: Sequence[str], here: bool) -> list[tuple[Experiment, list[str]]]:
    """Compose the jobs of a sweep, and try their parts on each other.

    Args:
        config_name: of the file at the top.
        words: the command line's overrides.
        here: whether the jobs run on this machine, in this environment.

    Returns:
        Each job's parts, which are spent, and its own words among the sweep's.

    Raises:
        UserError: names the job and its mistake.
    """
    from rlrun.runs.setup.preflight import Preflight

    directories, preflight, composed, keys = set(), Preflight(), [], swept(words)
    for number, overrides in enumerate(jobs(list(words))):
        own = [word for word in overrides if word.partition("=")[0] in keys]
        try:
            experiment = compose(config_name, overrides)
            if experiment.run_dir is not None and experiment.run_dir in directories:
                raise UserError(
                    f"run_dir={experiment.run_dir}: several runs cannot share a directory; "
                    "hydra.sweep.dir=… names the sweep's, and each run has its own in it"
                )
            directories.add(experiment.run_dir)
            if here:
                check_loggers(experiment.loggers)
                with without_warnings():  # the job says them again when it starts
                    preflight.check(experiment)
        except UserError as error:
            message = f"job {number} ({' '.join(own or overrides)}): {error}"
            raise UserError(message) from error
        composed.append((experiment, own))
    return composed


def swept(words: Sequence[str]) -> list[str]:
    """Return the settings and groups that a sweep's words have several values of.

    Raises:
        OverrideParseException: a word is no override.
    """
    overrides = OverridesParser.create().parse_overrides(list(words))
    return [each.get_key_element() for each in overrides if each.is_sweep_override()]


def seeds_first(
    composed: Sequence[tuple[Experiment, list[str]]],
) -> list[tuple[Experiment, list[str]]]:
    """Order jobs so that all points of a sweep have their first seed before any has its second."""
    seeds = list(dict.fromkeys(experiment.seed for experiment, _ in composed))
    return sorted(composed, key=lambda job: seeds.index(job[0].seed))


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps quiet what is said on stderr beside an error: rlrun's warnings, and Python's."""
    with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
        yield


def hold_back(words: Sequence[str]) -> list[str]:
    """Keeps Hydra from applying the settings of swept groups before there are jobs.

    A sweep begins with a config of its own, which Hydra composes without the swept choices: with
    ppo, for algo=rloo,grpo. A setting that ppo does not have would be refused there. Hydra leaves
    out a sweep's values, too, and so such a setting is made to look like one.

    Args:
        words: the command line's overrides ("algo=rloo,grpo", "algo.kl.coefficient=0.1").

    Returns:
        The words ("algo=rloo,grpo", "algo.kl.coefficient=held_back,0.1"), until `give_back`.

    Raises:
        OverrideParseException: a word is no override.
    """
    overrides = OverridesParser.create().parse_overrides(list(words))
    swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
    if "algo" in swept:
        swept |= {"advantage", "collector", "model"}  # an algorithm brings its own
    held_back = []
    for word, override in zip(words, overrides, strict=True):
        group, dot, _ = override.key_or_group.partition(".")
        if dot and group in swept and not (override.is_sweep_override() or override.is_delete()):
            key, _, value = word.partition("=")
            word = f"{key}={HELD_BACK}" + (value or "''")  # a list has no empty member
        held_back.append(word)
    return held_back


def give_back(text: str) -> str:
    """Returns a word, or a text made of words, as it was before `hold_back`."""
    return text.replace(HELD_BACK, "")


def compose(config_name: str, overrides: list[str]) -> Experiment:
    """Builds the parts of a job's run.

    Args:
        config_name: of the file at the top.
        overrides: the job's words.

    Raises:
        UserError: any mistake in the config.
    """
    try:
        composed = hydra.compose(config_name, overrides, return_hydra_config=True)
    except Exception as error:
        raise UserError(explain(error)) from error
    return load_composed(composed, parent=Path())


def jobs(words: list[str]) -> Iterator[list[str]]:
    """Yields the overrides of each job of a sweep.

    Hydra's basic sweeper makes the same product; continuous ranges, which only other sweepers
    know, keep their values from the files.

    Args:
        words: the command line's overrides ("seed=1,2").
    """
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    axes = []
    for override in parser.parse_overrides(words):
        if override.is_discrete_sweep():
            key = override.get_key_element()
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        elif not override.is_sweep_override():
            axes.append([override.input_line or ""])
    for job in itertools.product(*axes):
        yield list(job)


def run_job(cfg: DictConfig, settings: HydraConf) -> float:
    """Trains a job's run for one of Hydra's launchers, or what is left of it to do.

    Args:
        cfg: the job's config.
        settings: Hydra's own node for this job.

    Returns:
        The run's final evaluation return; NaN if another process is at it, or has just been.

    Raises:
        JobFailed: the run failed, which is reported by now.
        JobEnded: a signal stopped the run; the sweep ends.
    """
    from rlrun.runs.api import resume
    from rlrun.sweeps import plan
    from rlrun.sweeps.pool import stand

    words = [str(word) for word in settings.overrides.task]
    sweep = Path(settings.sweep.dir)
    say(f"job {settings.job.num}: {' '.join(words)}", sys.stdout)
    try:
        experiment = load_job(cfg, settings, sweep)
        job = plan.add_run(sweep, experiment, plan.own_words(sweep, words))
        standing = stand(job)
        if standing is not None and standing.status == "finished":
            say(f"{job.directory} is finished", sys.stdout)
            return standing.last_return if standing.last_return is not None else math.nan
        return resume(job.directory, total_steps=None, plugins=experiment.plugins)
    except Interrupted as error:
        raise JobEnded(error) from error
    except (RunInUse, RunFinished) as error:
        say(str(error), sys.stdout)
        return math.nan
    except Exception as error:
        report(error, prefix=f"rlrun: job {settings.job.num} failed")
        raise JobFailed(f"not every job finished: see rlrun list {sweep}") from error
