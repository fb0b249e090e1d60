"""What an algorithm gets its data from: the parts that ``conf/collector/*.yaml`` name."""

from typing import Any, Protocol

import torch
from torch import Tensor

from rlrun.data.rollout import RolloutShape, Transitions
from rlrun.data.rollout_buffer import Behaviour
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem


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
            EnvironmentFailure: an environment raised; whoever has the state from before the call
                can go on from there (``Run.collect``).
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
