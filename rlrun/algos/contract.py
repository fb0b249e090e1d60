"""What rlrun asks of an algorithm: the contract of every class in ``rlrun/algos/``."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from rlrun.data.replay.buffer import ReplayBuffer
from rlrun.data.rollout import Transitions
from rlrun.envs.control import EnvStep
from rlrun.learning.agent import Agent
from rlrun.learning.contract import Context, Stateful, Trainable
from rlrun.models.explorers import Explorer


class GreedyActor(Protocol):
    """Who acts in an evaluation."""

    def act_greedily(self, obs: Tensor) -> Tensor:
        """Return the best action at each raw observation [N, D], as [N] or [N, A]."""
        ...


class Weighted(Protocol):
    """What an algorithm trains: networks, and who acts by them."""

    @property
    def networks(self) -> nn.Module:
        """All weights, by name."""
        ...

    @property
    def actor(self) -> GreedyActor:
        """Who acts by them."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights by name: what is shared of a trained policy."""
        ...

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Continue from saved weights."""
        ...


class Tabled(Weighted, Protocol):
    """Weights that are tables.

    Attributes:
        value: V, [S].
        action_value: Q, [S, A].
    """

    value: Tensor
    action_value: Tensor


class Plan(Protocol):
    """What a planner has found so far.

    Attributes:
        converged: whether another sweep would change nothing.
    """

    converged: bool


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
    learners: Mapping[str, Trainable]
    parts: Mapping[str, Stateful]

    @property
    def agent(self) -> Weighted:
        """Networks and actor."""
        ...

    def setup(self, context: Context) -> None:
        """Build networks and learners, before anything of the run is written.

        Raises:
            UserError: the algorithm cannot work with one of the parts.
        """


class OnPolicyAlgorithm(Algorithm, Protocol):
    """What the loop ``loops.on_policy`` needs besides."""

    agent: Agent

    def update(self, transitions: Transitions, *, progress: float) -> dict[str, Tensor]:
        """Learn from what the current policy did.

        Args:
            transitions: what the collector returned, [T, N].
            progress: share of the run's steps done before this update, for schedules.

        Returns:
            What to log, each [], and ``updates``, the number of optimiser steps: those that two
            learners take together on one minibatch count as one.
        """


class SupervisedAlgorithm(OnPolicyAlgorithm, Protocol):
    """What the loop ``loops.supervised`` needs besides: who does what is learned from."""

    @property
    def author(self) -> Any:
        """Who acts for the collector: an actor."""
        ...


class ExploringAgent(Weighted, Protocol):
    """Networks, and who acts by a copy of them while they are fitted."""

    @property
    def actor(self) -> Explorer:
        """Who acts, in training and evaluations."""
        ...

    def publish(self) -> None:
        """Let the actor act with the present weights."""
        ...


class OffPolicyAlgorithm(Algorithm, Protocol):
    """What the loop ``loops.off_policy`` needs besides.

    Attributes:
        buffer: what was seen so far.
    """

    buffer: ReplayBuffer

    @property
    def agent(self) -> ExploringAgent:
        """Networks and actor."""
        ...

    def explore(self, progress: float) -> None:
        """Decide how the actor tries things out in the next iteration.

        Args:
            progress: share of the run's steps done, for schedules.
        """
        ...

    def update(self, progress: float) -> dict[str, Tensor]:
        """Learn from the buffer, in another thread than the actor acts in.

        Args:
            progress: share of the run's steps done, for schedules.

        Returns:
            What to log, each [], and ``updates``, the number of optimiser steps.
        """
        ...


class PlanningAlgorithm(Algorithm, Protocol):
    """What the loop ``loops.planning`` needs besides.

    Attributes:
        agent: the tables.
        plan: whether it has converged.
    """

    agent: Tabled
    plan: Plan

    def sweep(self) -> dict[str, Tensor]:
        """Go over all states of the model once; return what to log, each []."""
        ...


class OnlineAlgorithm(Algorithm, Protocol):
    """What the loop ``loops.online`` needs besides.

    Attributes:
        agent: the tables.
    """

    agent: Tabled

    def act(self, obs: Tensor, progress: float) -> Tensor:
        """Choose an action at each raw observation [N, D], as [N] or [N, A].

        Args:
            obs: as the environments gave it.
            progress: share of the run's steps done, for schedules.
        """
        ...

    def learn(
        self, obs: Tensor, action: Tensor, step: EnvStep, *, progress: float
    ) -> dict[str, Tensor]:
        """Learn from one step; return what to log, each [].

        Args:
            obs: where it began, [N, D].
            action: what was done, [N] or [N, A].
            step: what the environments made of it.
            progress: share of the run's steps done before it, for schedules.
        """
        ...

    def forget_episode(self) -> None:
        """Learn nothing more from the episode so far: what comes next is not its continuation."""
        ...
