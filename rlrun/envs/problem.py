"""What is to be learned: the environment, as far as it concerns an algorithm."""

from dataclasses import dataclass

import gymnasium as gym
import torch
from torch import Tensor

from rlrun.envs.actions import ActionUnits
from rlrun.envs.contract import EnvironmentSpec
from rlrun.envs.control import ControlEnv
from rlrun.envs.tokens.task import TokenTask
from rlrun.envs.tokens.vocabulary import Language
from rlrun.errors import UserError


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
        obs_dtype: of observations, as a replay buffer keeps them.
        language: its tokens; None: it is no task of language.
    """

    env_id: str
    obs_size: int
    action_space: gym.spaces.Discrete | gym.spaces.Box
    action_units: ActionUnits
    time_limit: int | None
    state_sizes: tuple[int, ...] | None = None
    obs_dtype: torch.dtype = torch.float32
    language: Language | None = None

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
            obs_dtype=env.obs_dtype,
            language=spec.language if isinstance(spec, TokenTask) else None,
        )

    @classmethod
    def of_prompts(cls, task: TokenTask) -> "Problem":
        """Take the measures of a task of language, to whose prompts whole responses are written.

        Args:
            task: from ``conf/env/``.
        """
        return cls(
            env_id=task.id,
            obs_size=1,  # a step adds a token
            action_space=gym.spaces.Discrete(task.language.size),
            action_units=task.action_units,
            time_limit=task.time_limit,
            language=task.language,
        )

    @property
    def discrete(self) -> bool:
        """Whether an action is a choice among finitely many."""
        return isinstance(self.action_space, gym.spaces.Discrete)

    @property
    def choices(self) -> int | None:
        """How many actions there are; None: a box of them."""
        space = self.action_space
        return int(space.n) if isinstance(space, gym.spaces.Discrete) else None

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Of one action: () for a choice, (A,) for a box."""
        return self.action_space.shape or ()

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest action, [A] each.

        Raises:
            UserError: actions are a choice, or have no bounds.
        """
        space = self.action_space
        if not isinstance(space, gym.spaces.Box):
            raise UserError(f"{self.env_id}: its actions are a choice of {space.n}, not a box")
        low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
        if not (low.isfinite().all() and high.isfinite().all()):
            raise UserError(f"{self.env_id}: its actions have no bounds, which is needed to squash")
        return low, high
