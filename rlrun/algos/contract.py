"""What rlrun asks of an algorithm: the contract of every class in ``rlrun/algos/``."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from rlrun.advantages.columns import Estimator
from rlrun.collectors.contract import Collector
from rlrun.config.types import at_least, between, positive_or_infinite
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.hardware.spec import Hardware
from rlrun.learning.protocols import Stateful, Trainable
from rlrun.models.agent import Agent


class OnPolicyAlgorithm(Protocol):
    """An algorithm of the loop ``loops.on_policy``; ``policy_gradient/ppo.py`` is the example.

    It is a keyword-only dataclass whose fields are its hyperparameters, without defaults: their
    values are in its YAML. It need not inherit from this class.

    Attributes:
        loop: the function of ``loops.py`` that trains it.
        num_envs: N, environments stepped side by side.
        horizon: T, steps of each of them an iteration; None: as many as an episode can have.
        gamma: discount of the return.
        normalize_observation: whether observations are scaled.
        normalize_reward: whether rewards are scaled.
        normalizer_clip: bound of scaled observations and rewards.
        agent: the networks; from `setup` on, as are the following.
        learners: what fits the networks, by name.
        parts: what else decides the future, by name.
    """

    loop: Callable[[Any], None]
    num_envs: int
    horizon: int | None
    gamma: float
    normalize_observation: bool
    normalize_reward: bool
    normalizer_clip: float
    agent: Agent
    learners: Mapping[str, Trainable]
    parts: Mapping[str, Stateful]

    def setup(
        self,
        problem: Problem,
        *,
        hardware: Hardware,
        streams: Streams,
        estimator: Estimator | None,
        compiled: bool,
        from_checkpoint: bool,
    ) -> None:
        """Build networks and learners, before anything of the run is written.

        Args:
            problem: what is to be learned.
            hardware: where the learners live.
            streams: initial weights, exploration and shuffles.
            estimator: called as ``estimator(rollout, gamma=gamma)``.
            compiled: whether to compile the update, when the run calls the learners' `warm_up`.
            from_checkpoint: whether the states of the agent, `learners` and `parts` are loaded
                from a checkpoint after this. What a new run reads outside its directory is among
                them, and must not be read again: it may have changed or gone.

        Raises:
            UserError: the algorithm cannot work with the problem or the estimator.
        """

    def updates(self, total_steps: int) -> int:
        """Return how many optimiser steps a run takes, from which compiling is decided."""

    def collect(self, collector: Collector) -> Rollout:
        """Return what the current policy does, from one call of the collector or more."""

    def update(self, rollout: Rollout, *, progress: float) -> dict[str, Tensor]:
        """Learn from a rollout; return what to log, each [], and ``updates``, their number."""


class RolloutSettings(Protocol):
    """The hyperparameters that all these algorithms have (see :class:`OnPolicyAlgorithm`).

    Attributes:
        hidden_sizes: widths of the hidden layers of each network.
    """

    num_envs: int
    horizon: int | None
    gamma: float
    normalizer_clip: float
    hidden_sizes: list[int]


def check_rollout_settings(settings: RolloutSettings) -> None:
    """Refuse values out of range in the hyperparameters that all these algorithms have.

    Raises:
        ValueError: names the first of them.
    """
    at_least(1, num_envs=settings.num_envs)
    if settings.horizon is not None:
        at_least(1, horizon=settings.horizon)
    between(0, 1, gamma=settings.gamma)
    positive_or_infinite(normalizer_clip=settings.normalizer_clip)
    for width in settings.hidden_sizes:
        at_least(1, hidden_sizes=width)


def check_minibatch_size(settings: RolloutSettings, size: int) -> None:
    """Refuse minibatches that segments cannot be cut into without a remainder.

    Args:
        settings: N and T of a rollout; with T = None, that of whole episodes is not known before.
        size: rows a minibatch.

    Raises:
        ValueError: some rows would be left out.
    """
    if settings.horizon is not None and settings.num_envs * settings.horizon % size:
        raise ValueError(
            "minibatch_size must divide num_envs x horizon = "
            f"{settings.num_envs * settings.horizon}, got {size}"
        )
