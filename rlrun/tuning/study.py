"""A study: a search space, and the trials that have been made of it, in a directory.

``study.json`` says what was asked for, ``journal.log`` (Optuna's) what came of each trial, and
``trial_007/`` has its runs, which are ordinary ones.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from rlrun.config import schema
from rlrun.config.files import read_json
from rlrun.errors import UserError
from rlrun.runs.files import directory as run_directory
from rlrun.runs.files.disk import replacing
from rlrun.tuning.space import distributions, rounded

JOURNAL, NAME = "journal.log", "tune"

Sampler = Literal["tpe", "random", "cmaes"]
Pruner = Literal["median", "halving", "none"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a study is to find out.

    Attributes:
        words: what all of its runs have ("algo=ppo", "env=hopper"), in alphabetical order.
        config: a short name for what they make of it, with this version of rlrun.
        space: the range of each setting that is searched.
        seeds: of a trial's runs, one after the other.
        sampler: how points are drawn.
        pruner: how trials are found that are not worth going on.
    """

    words: list[str]
    config: str
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
    run_directory.require_own(directory, "study")
    path = directory / run_directory.FILES["study"]
    try:
        with run_directory.shared(directory):
            if path.exists():
                _require_same(path, asdict(question))
            else:
                with replacing(path) as file:
                    content = {**asdict(question), **run_directory.provenance()}
                    file.write((json.dumps(content, indent=2) + "\n").encode())
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(directory / JOURNAL))),
            study_name=NAME,
            direction="maximize",
            pruner=make_pruner(question.pruner, evaluations),
            load_if_exists=True,
        )
        require_same_space(study, question, directory)
        return study
    except OSError as error:
        raise UserError(f"{directory} cannot be written to: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory / JOURNAL} is no journal of a study: {error}") from error


def require_same_space(study: optuna.Study, question: Question, directory: Path) -> None:
    """Refuse trials with values that this study would not have drawn: they become words and files.

    Raises:
        UserError: there is one.
    """
    space = distributions(question.space)
    for trial in study.get_trials(deepcopy=False):
        if not trial.distributions.items() <= space.items():
            raise UserError(f"trial {trial.number} of {directory} is of another space")


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


class OwnCmaEs(CmaEsSampler):
    """CMA-ES that goes on with the search of this process alone.

    Optuna's leaves its state in the journal, pickled, and runs what it finds there. A process that
    goes on with a study begins a search of its own.
    """

    def __init__(self, **arguments: Any):
        """As Optuna's."""
        super().__init__(**arguments)
        self._written: set[str] = set()

    def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
        self._written.add(optimizer_str)
        return super()._split_optimizer_str(optimizer_str)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        own = [trial for trial in completed_trials if self._state_of(trial) in self._written]
        return super()._restore_optimizer(own)

    def _state_of(self, trial: FrozenTrial) -> str:
        attributes = {
            key: value
            for key, value in trial.system_attrs.items()
            if key.startswith(self._attr_key_optimizer)
        }
        names = [f"{self._attr_key_optimizer}:{number}" for number in range(len(attributes))]
        return "".join(str(attributes.get(name)) for name in names)


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
        return OwnCmaEs(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        # A constant liar would count trials that are still running as bad ones. They are the good
        # ones, as the pruner has left them, and those that take long.
        return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True)


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


class Best(NamedTuple):
    """A trial: its number, the mean of its runs' figures, its values by setting."""

    number: int
    value: float
    values: dict[str, Any]


def best_trials(study: optuna.Study, count: int) -> list[Best]:
    """Find the best trials, the best first; of trials with the same values one.

    Args:
        study: has the trials.
        count: how many at most.

    Raises:
        UserError: no trial is complete.
    """
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not complete:
        reasons = [trial.user_attrs.get("error") for trial in trials]
        said = next((f": {reason}" for reason in reversed(reasons) if reason), "")
        raise UserError(f"no trial of the study is complete{said}; --trials makes more")
    best: list[Best] = []
    for trial in sorted(complete, key=lambda trial: -trial.values[0]):
        values = rounded(trial.params)
        if values not in [each.values for each in best]:
            best.append(Best(trial.number, trial.values[0], values))
    return best[:count]
