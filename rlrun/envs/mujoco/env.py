"""The environment spec that ``conf/env/*.yaml`` names for a MuJoCo task."""

import copy
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from rlrun import schema
from rlrun.envs.mujoco.tasks import TASKS
from rlrun.envs.mujoco.vector import MujocoVectorEnv
from rlrun.errors import UserError, did_you_mean


@dataclass(kw_only=True)
class MujocoEnv:
    """One of Gymnasium's eleven MuJoCo tasks, version 5.

    Attributes:
        id: Gymnasium's id, "Hopper-v5".
        max_episode_steps: steps after which an episode is truncated; None for Gymnasium's limit.
        options: keyword arguments of Gymnasium's class, by name ("forward_reward_weight"); those
            that are not given have Gymnasium's defaults.
    """

    id: str
    max_episode_steps: int | None
    options: dict[str, Any]

    def __post_init__(self):
        """Check the id, the limit and the options.

        Raises:
            UserError: no such task or option, or a value of the wrong type.
            ValueError: a value out of range.
        """
        if self.id not in TASKS:
            raise UserError(f"env.id: no MuJoCo task '{self.id}'{did_you_mean(self.id, TASKS)}")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {self.max_episode_steps}")
        task = TASKS[self.id]
        options = schema.check_arguments(task, self.options, "env.options", packages=[])
        self._task = schema.call(task, options, "env.options")
        self._gymnasium_spec = copy.deepcopy(gym.spec(self.id))
        self._gymnasium_spec.kwargs |= options
        if self.max_episode_steps is not None:
            self._gymnasium_spec.max_episode_steps = self.max_episode_steps

    def make(self, *, num_envs: int, threads: int) -> MujocoVectorEnv:
        """Make N environments that step in lockstep.

        Args:
            num_envs: N.
            threads: threads that simulate.

        Raises:
            UserError: the model file cannot be read.
        """
        try:
            return MujocoVectorEnv(
                self._task, num_envs=num_envs, threads=threads, spec=self._gymnasium_spec
            )
        except (OSError, ValueError) as error:
            raise UserError(f"env.options.xml_file: {error}") from error

    def make_single(self, *, render_mode: str | None) -> gym.Env:
        """Make one plain Gymnasium environment, with the same limit and options.

        Args:
            render_mode: Gymnasium's: "rgb_array", "human", None …
        """
        return gym.make(self._gymnasium_spec, render_mode=render_mode)
