"""What an algorithm gets its rollouts from, and what that needs of an agent."""

from typing import Protocol

from torch import Tensor

from rlrun.data.rollout import Rollout


class Actor(Protocol):
    """What collecting needs of an agent."""

    def act(self, obs: Tensor) -> Tensor:
        """Sample actions [N] or [N, A] (CPU) at normalised observations [N, D] (CPU)."""
        ...

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return log π(a|s), [T, N], of a whole rollout."""
        ...

    def judge(self, rollout: Rollout) -> Rollout:
        """Fill in what policy and critics say of a rollout."""
        ...


class Collector(Protocol):
    """What an algorithm gets its rollouts from.

    Attributes:
        steps: environment steps simulated since the counter was last set to zero.
    """

    steps: int

    def collect(self, actor: Actor) -> Rollout:
        """Let the actor act.

        Columns of the rollout may be the collector's own buffers: they hold until the next call.

        Raises:
            EnvironmentFailure: an environment raised.
            NonFiniteError: an observation, a reward or an action is not finite.
            UserError: an episode that is to be whole goes on after its time limit.
        """
        ...

    def state_dict(self) -> dict:
        """Return what decides the future rollouts."""
        ...

    def load_state_dict(self, state: dict) -> None:
        """Go on from a saved state."""
        ...
