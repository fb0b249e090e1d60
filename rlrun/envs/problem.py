"""What is to be learned: the environment, as far as it concerns an algorithm."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from rlrun.envs.control import ControlEnv
from rlrun.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An environment's measures, which networks and rollouts are made to.

    Attributes:
        env_id: Gymnasium id.
        obs_size: D, the numbers in a flat observation.
        action_space: of one environment: Discrete from 0, or a 1-D float32 Box.
        time_limit: steps after which an episode is truncated; None: it may go on for ever.
        group_size: episodes that begin from one start state, a rollout being whole episodes;
            None: environments go on from one rollout to the next.
    """

    env_id: str
    obs_size: int
    action_space: gym.spaces.Discrete | gym.spaces.Box
    time_limit: int | None
    group_size: int | None

    @classmethod
    def of(cls, spec: Any, env: ControlEnv) -> "Problem":
        """Take an environment's measures.

        Args:
            spec: what makes such environments, from ``conf/env/``.
            env: one of them or more.
        """
        return cls(
            env_id=spec.id,
            obs_size=env.obs_size,
            action_space=env.action_space,
            time_limit=spec.time_limit,
            group_size=spec.group_size,
        )

    @property
    def whole_episodes(self) -> bool:
        """Whether each column of a rollout is one episode from its start to its end."""
        return self.group_size is not None

    @property
    def discrete(self) -> bool:
        """Whether an action is a choice among finitely many."""
        return isinstance(self.action_space, gym.spaces.Discrete)

    def rollout_length(self, horizon: int | None, num_envs: int) -> int:
        """Check an algorithm's horizon and number of environments; return the longest rollout.

        Args:
            horizon: steps of each environment an iteration; None: as long as an episode can be.
            num_envs: environments stepped side by side.

        Raises:
            UserError: episodes do not fit into the horizon, or groups not into the environments.
        """
        if self.group_size is None:
            if horizon is None:
                raise UserError(
                    "algo.horizon=null is the length of an episode, and rollouts are whole "
                    "episodes only with env.group_size=1 or more"
                )
            return horizon
        if num_envs % self.group_size:
            raise UserError(
                f"algo.num_envs={num_envs} is not a multiple of env.group_size={self.group_size}"
            )
        if self.time_limit is None:
            raise UserError(
                f"{self.env_id} has no time limit, which whole episodes need: "
                "env.max_episode_steps=1000, say"
            )
        if horizon is not None and horizon < self.time_limit:
            raise UserError(
                f"algo.horizon={horizon} is shorter than an episode, which may last "
                f"{self.time_limit} steps: algo.horizon=null is that"
            )
        return self.time_limit
