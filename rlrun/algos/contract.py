"""What rlrun asks of an algorithm: the contract of every class in ``rlrun/algos/``."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from rlrun.data.rollout import Transitions
from rlrun.learning.agent import Agent
from rlrun.learning.contract import Context, Stateful, Trainable


class Algorithm(Protocol):
    """What every run needs of its algorithm; ``policy_gradient/ppo.py`` is the example.

    It is a keyword-only dataclass whose fields are its hyperparameters, without defaults: their
    values are in its YAML. It need not inherit from this class.

    Attributes:
        loop: the function of ``loops.py`` that trains it.
        num_envs: N, environments stepped side by side.
        agent: networks and actor; from `setup` on, as are the following.
        learners: what fits the networks, by name.
        parts: what else decides the future, by name.
    """

    loop: Callable[[Any], None]
    num_envs: int
    agent: Agent
    learners: Mapping[str, Trainable]
    parts: Mapping[str, Stateful]

    def setup(self, context: Context) -> None:
        """Build networks and learners, before anything of the run is written.

        Raises:
            UserError: the algorithm cannot work with one of the parts.
        """


class OnPolicyAlgorithm(Algorithm, Protocol):
    """What the loop ``loops.on_policy`` needs besides."""

    def update(self, transitions: Transitions, *, progress: float) -> dict[str, Tensor]:
        """Learn from what the current policy did.

        Args:
            transitions: what the collector returned, [T, N].
            progress: share of the run's steps done before this update, for schedules.

        Returns:
            What to log, each [], and ``updates``, the number of optimiser steps: those that two
            learners take together on one minibatch count as one.
        """
