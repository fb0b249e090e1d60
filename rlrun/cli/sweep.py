"""`rlrun -m …`: one run after another, each in its own directory inside the sweep's.

``sweep.jsonl`` in the sweep's directory lists the jobs that have ended, one JSON object a line:
{"job": 3, "overrides": ["seed=3"], "run": "003_ppo_hopper_s3", "status": "finished", "return": …}.
"""

import dataclasses
import io
import itertools
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from rlrun.cli.hydra_bridge import JobEnded, explain, load_job
from rlrun.config.experiment import Experiment
from rlrun.errors import Interrupted, JobFailed, UserError, report, say
from rlrun.loggers.interface import check_loggers

# Hydra's own way to run a sweep's jobs, one after another in this process. Others may run them on
# machines that have what this one lacks.
IN_THIS_PROCESS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"

# What stands before the value of a setting that is held back (`hold_back`).
HELD_BACK = "held_back,"


class CheckJobs(Callback):
    """Checks every job before the first one starts, so that most mistakes do not wait for hours.

    Each job's config is composed, its parts are built, and its directory is its own. Where the
    jobs run in this process, the parts are tried on each other and the loggers checked, too. What
    shows only when a job starts: a logger's server that is out of reach, a compiler that fails.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Compose each job's config, build its parts and try them on each other.

        Raises:
            JobEnded: a job's config has a mistake, its parts do not fit each other or this machine,
                or two jobs would have one directory.
        """
        from rlrun.runs.preflight import Preflight

        words = [give_back(word) for word in config.hydra.overrides.task]
        config.hydra.overrides.task = words  # what the jobs are made from
        config.hydra.job.override_dirname = give_back(config.hydra.job.override_dirname)
        sys.argv = [give_back(word) for word in sys.argv]  # what a run's record has
        directories, preflight = set(), Preflight()
        for number, overrides in enumerate(jobs(words)):
            try:
                experiment = compose(config.hydra.job.config_name, overrides)
                if experiment.run_dir is not None and experiment.run_dir in directories:
                    raise UserError(
                        f"run_dir={experiment.run_dir}: several runs cannot share a directory; "
                        "hydra.sweep.dir=… names the sweep's, and each run has its own in it"
                    )
                directories.add(experiment.run_dir)
                if config.hydra.launcher._target_ == IN_THIS_PROCESS:
                    check_loggers(experiment.loggers)
                    with without_warnings():  # the job says them again when it starts
                        preflight.check(experiment)
            except UserError as error:
                own = [word for word in overrides if word not in words] or overrides
                message = f"job {number} ({' '.join(own)}): {error}"
                raise JobEnded(UserError(message)) from error
            except Exception as error:  # of the user's own code, say
                raise JobEnded(error) from error


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
    keys = [str(key) for key in composed if key != "hydra"]
    cfg = OmegaConf.masked_copy(composed, keys)
    return load_job(cfg, cast(HydraConf, composed.hydra), parent=Path())


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
    """Trains one job's run and lists it in the sweep's directory.

    Args:
        cfg: the job's config.
        settings: Hydra's own node for this job.

    Returns:
        The run's final evaluation return.

    Raises:
        JobFailed: the run failed, which is reported by now.
        JobEnded: a signal stopped the run; the sweep ends.
    """
    number = settings.job.num
    overrides = [str(word) for word in settings.overrides.task]
    directory = Path(settings.sweep.dir)
    say(f"job {number}: {' '.join(overrides)}", sys.stdout)
    entry: dict[str, Any] = {"job": number, "overrides": overrides, "run": None}
    try:
        experiment = load_job(cfg, settings, directory)
        if experiment.run_dir is None:
            entry["run"] = f"{number:03d}_{experiment.name}"
            run_dir = str(directory / entry["run"])
            experiment = dataclasses.replace(experiment, run_dir=run_dir)
        else:
            entry["run"] = experiment.run_dir

        from rlrun.runs.api import train

        final_return = train(experiment)
    except Interrupted as error:
        record(directory, {**entry, "status": "interrupted", "return": None})
        raise JobEnded(error) from error
    except Exception as error:
        record(directory, {**entry, "status": "failed", "return": None, "error": str(error)})
        report(error, prefix=f"rlrun: job {number} failed")
        raise JobFailed(f"not every job finished: see {directory / 'sweep.jsonl'}") from error
    finite = final_return if math.isfinite(final_return) else None  # JSON has no NaN
    record(directory, {**entry, "status": "finished", "return": finite})
    return final_return


def record(directory: Path, entry: dict[str, Any]) -> None:
    """Appends one job to the sweep's list, in one write, since launchers may run jobs together."""
    line = json.dumps(entry) + "\n"
    file = os.open(directory / "sweep.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
