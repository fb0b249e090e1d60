"""What an algorithm gets its data from: the parts that ``conf/collector/*.yaml`` name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from rlrun.data.rollout import RolloutShape, Transitions
from rlrun.data.rollout_buffer import Behaviour
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem
from rlrun.errors import EnvironmentFailure


class Actor(Protocol):
    """Who acts: a policy with its normaliser (``models/actor.py``)."""

    @property
    def version(self) -> int:
        """Of the policy's weights."""
        ...

    @property
    def generator(self) -> torch.Generator:
        """Source of the exploration."""
        ...

    def act(self, obs: Tensor) -> tuple[Tensor, Behaviour]:
        """Sample actions at raw observations [N, D]; return them, [N] or [N, A], and μ, [N]."""
        ...


class Collector(Protocol):
    """Lets an actor act, and returns what came of it. It never calls the learner's networks."""

    def collect(self, actor: Actor) -> Transitions:
        """Let the actor act.

        Raises:
            EnvironmentFailure: an environment raised; `state_dict` is that before the call.
            NonFiniteError: an observation, a reward or an action is not finite.
            UserError: an episode that is to be whole goes on after its time limit.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot of what decides the future transitions."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        ...


class CollectorSpec(Protocol):
    """Settings from which a collector is made."""

    def shape(self, problem: Problem, num_envs: int) -> RolloutShape:
        """Say what its rollouts will look like.

        Args:
            problem: the environment's measures.
            num_envs: N, environments stepped side by side.

        Raises:
            UserError: it cannot collect so many, or not from this environment.
        """
        ...

    def open(self, env: ControlEnv, shape: RolloutShape, *, seed: int) -> Collector:
        """Make the collector, at the start of an episode.

        Args:
            env: N environments; from now on the collector's.
            shape: what `shape` returned for them.
            seed: of the first environment's first episode.
        """
        ...


class Snapshot:
    """A collector's state at the start of a call, which is the one to save if the call fails."""

    def __init__(self) -> None:
        """Begin outside of a call."""
        self.before: dict[str, Any] | None = None

    @contextmanager
    def of(self, state: dict[str, Any], actor: Actor) -> Iterator[None]:
        """Keep a state for the time of a call, and for good if an environment fails in it.

        Args:
            state: of the collector, now.
            actor: whose random numbers are put back after a failure, too.
        """
        self.before, generator = state, actor.generator.get_state()
        try:
            yield
        except EnvironmentFailure:
            actor.generator.set_state(generator)
            raise
        self.before = None
