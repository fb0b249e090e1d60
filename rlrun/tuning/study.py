"""A study: a search space, and the trials that have been made of it, in a directory.

``study.json`` says what was asked for, ``journal.log`` (Optuna's) what came of each trial, and
``trial_007/`` has its runs, which are ordinary ones.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from rlrun.config import schema
from rlrun.config.files import read_json
from rlrun.errors import UserError
from rlrun.runs.files import directory as run_directory
from rlrun.runs.files.disk import replacing
from rlrun.tuning.space import distributions, rounded

STUDY, JOURNAL, NAME = "study.json", "journal.log", "tune"

Sampler = Literal["tpe", "random", "cmaes"]
Pruner = Literal["median", "halving", "none"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a study is to find out.

    Attributes:
        words: what all of its runs have ("algo=ppo", "env=hopper").
        space: the range of each setting that is searched.
        seeds: of a trial's runs, one after the other.
        sampler: how points are drawn.
        pruner: how trials are found that are not worth going on.
    """

    words: list[str]
    space: dict[str, str]
    seeds: list[int]
    sampler: Sampler
    pruner: Pruner


def open_study(directory: Path, question: Question, *, evaluations: int) -> optuna.Study:
    """Open a study, or go on with it.

    Args:
        directory: the study's, perhaps of an earlier process.
        question: what it is to find out.
        evaluations: of a whole run.

    Raises:
        UserError: what is there is the study of another question, or none.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions(question.space)  # before anything is written
    path = directory / STUDY
    try:
        with run_directory.shared(directory):
            if path.exists():
                _require_same(path, asdict(question))
            else:
                with replacing(path) as file:
                    content = {**asdict(question), **run_directory.provenance()}
                    file.write((json.dumps(content, indent=2) + "\n").encode())
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(directory / JOURNAL))),
            study_name=NAME,
            direction="maximize",
            pruner=make_pruner(question.pruner, evaluations),
            load_if_exists=True,
        )
    except OSError as error:
        raise UserError(f"{directory} cannot be written to: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory / JOURNAL} is no journal of a study: {error}") from error


def _require_same(path: Path, question: Mapping[str, Any]) -> None:
    """Refuse a directory that has the study of another question."""
    try:
        there = schema.convert(read_json(path), dict[str, Any], path.name)
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{path} is no study that can be read: {error}") from error
    for key, value in question.items():
        if there.get(key) != value:
            raise UserError(
                f"{path.parent} is a study with other {key}: {there.get(key)}; choose another "
                "directory with --dir"
            )


def make_sampler(kind: Sampler, seed: int, startup: int) -> BaseSampler:
    """Return what draws points.

    Args:
        kind: which.
        seed: of its random numbers.
        startup: points drawn at random before others teach it anything.
    """
    if kind == "random":
        return RandomSampler(seed=seed)
    if kind == "cmaes":
        return CmaEsSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        # Trials that run beside each other count as bad ones, so that they are not the same.
        return TPESampler(
            seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True
        )


def make_pruner(kind: Pruner, evaluations: int) -> BasePruner:
    """Return what finds trials that are not worth going on.

    Args:
        kind: which.
        evaluations: of a whole run; a third of them are left to every trial.
    """
    if kind == "none":
        return NopPruner()
    first = max(1, evaluations // 3)
    if kind == "halving":
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=3)
    return MedianPruner(n_startup_trials=4, n_warmup_steps=first)


def best_values(study: optuna.Study) -> dict[str, Any]:
    """Return the best trial's values by setting.

    Raises:
        UserError: no trial is complete.
    """
    try:
        return rounded(study.best_params)
    except ValueError as error:
        raise UserError("no trial of the study is complete") from error
