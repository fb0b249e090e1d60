"""What rlrun asks of an algorithm: the contract of every class in ``rlrun/algos/``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rlrun.advantages.columns import Estimator
from rlrun.data.rollout import RolloutShape, Transitions
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.hardware.spec import Hardware
from rlrun.learning.protocols import Stateful, Trainable
from rlrun.models.networks import Model
from rlrun.models.reference import Reference


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an algorithm is set up with: the other parts of the run.

    Attributes:
        problem: what is to be learned.
        shape: of the rollouts that the collector will return.
        model: builds networks.
        estimator: called as ``estimator(rollout, gamma=gamma)``; None: the run has none.
        hardware: where the learner is.
        streams: initial weights, exploration and shuffles.
        load_policy: path of a run or a checkpoint, device -> its policy, frozen. What a new run
            reads so is part of its state from then on: a resumed run reads nothing.
    """

    problem: Problem
    shape: RolloutShape
    model: Model
    estimator: Estimator | None
    hardware: Hardware
    streams: Streams
    load_policy: Callable[[str, torch.device], Reference]


class Acting(Protocol):
    """Who acts and is evaluated; ``algos/agent.py`` is the one of the policy gradient."""

    def act(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Sample actions at raw observations [N, D]; return them and their log μ, [N]."""
        ...

    def act_greedily(self, obs: Tensor) -> Tensor:
        """Return the best actions at raw observations [N, D], [N] or [N, A]."""
        ...


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
    agent: Any
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
