"""What is to be learned: the environment, as far as it concerns an algorithm."""

from dataclasses import dataclass

import gymnasium as gym

from rlrun.envs.actions import ActionUnits
from rlrun.envs.contract import EnvironmentSpec
from rlrun.envs.control import ControlEnv


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An environment's measures, which networks and rollouts are made to.

    Attributes:
        env_id: Gymnasium id.
        obs_size: D, the numbers in a flat observation.
        action_space: of one environment: Discrete from 0, or a 1-D float32 Box.
        action_units: what the numbers of a policy mean (see :class:`~.actions.ActionAdapter`).
        time_limit: steps after which an episode is truncated; None: it may go on for ever.
        state_sizes: how many values each category of an observation has, where that is all there
            is to a state; None: states cannot be counted.
    """

    env_id: str
    obs_size: int
    action_space: gym.spaces.Discrete | gym.spaces.Box
    action_units: ActionUnits
    time_limit: int | None
    state_sizes: tuple[int, ...] | None = None

    @classmethod
    def of(cls, spec: EnvironmentSpec, env: ControlEnv) -> "Problem":
        """Take an environment's measures.

        Args:
            spec: what makes such environments, from ``conf/env/``.
            env: one of them or more.
        """
        return cls(
            env_id=spec.id,
            obs_size=env.obs_size,
            action_space=env.action_space,
            action_units=spec.action_units,
            time_limit=spec.time_limit,
            state_sizes=env.state_sizes,
        )

    @property
    def discrete(self) -> bool:
        """Whether an action is a choice among finitely many."""
        return isinstance(self.action_space, gym.spaces.Discrete)
