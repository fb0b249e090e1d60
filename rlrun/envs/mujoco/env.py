"""The environment spec that ``conf/env/*.yaml`` names for a MuJoCo task."""

import copy
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from rlrun.config import schema
from rlrun.config.types import Count
from rlrun.envs.actions import ActionUnits
from rlrun.envs.contract import ResumableVectorEnv
from rlrun.envs.gymnasium_form import GymnasiumForm
from rlrun.envs.mujoco.tasks import TASKS
from rlrun.envs.mujoco.vector import MujocoVectorEnv
from rlrun.errors import UserError, did_you_mean

# MuJoCo counts with C's int.
LARGEST_INT = 2**31 - 1


@dataclass(kw_only=True)
class MujocoEnv(GymnasiumForm):
    """One of Gymnasium's eleven MuJoCo tasks, version 5, N in a batch on threads.

    With wrappers, which go around single environments, N are stepped as Gymnasium does it.

    Attributes:
        id: Gymnasium's id, "Hopper-v5".
        max_episode_steps: steps after which an episode is truncated; None: as registered.
        options: keyword arguments of Gymnasium's class ("forward_reward_weight"); one that is not
            given has Gymnasium's default.
        action_units: "box": a policy's −1…1 stands for the control range; "raw": its numbers are
            the controls (see :class:`~rlrun.envs.actions.ActionAdapter`).
    """

    id: str
    max_episode_steps: Count | None
    options: dict[str, Any]
    action_units: ActionUnits

    def __post_init__(self):
        """Check the id, the options and the wrappers.

        Raises:
            UserError: no such task, option or wrapper, or a value that does not fit.
        """
        super().__post_init__()
        if self.id not in TASKS:
            raise UserError(f"env.id: '{self.id}' is no MuJoCo task{did_you_mean(self.id, TASKS)}")
        options = schema.check_arguments(
            TASKS[self.id], gymnasium_options(self.id) | self.options, "env.options"
        )
        _check_values(options)
        if self.workers and not self.wrappers:
            raise UserError(
                f"env.workers={self.workers}: {self.id} is simulated in a batch on threads "
                "(hardware.threads); workers step single environments (env=gym, or env.wrappers)"
            )
        self._task = TASKS[self.id](**options)
        self._gymnasium_spec = copy.deepcopy(gym.spec(self.id))
        self._gymnasium_spec.kwargs |= options
        if self.max_episode_steps is not None:
            self._gymnasium_spec.max_episode_steps = self.max_episode_steps

    @property
    def time_limit(self) -> int | None:
        """Steps after which an episode is truncated; None if it may go on for ever."""
        return self.limit(self._gymnasium_spec.max_episode_steps)

    def remarks(self) -> list[str]:
        """Return what a user may not have meant: that wrappers cost the batch."""
        if not self.wrappers:
            return []
        return [
            f"env.wrappers: each {self.id} is stepped by itself, as Gymnasium does it, and not in "
            "a batch on threads, which is several times as fast"
        ]

    def make(self, *, num_envs: int, threads: int) -> ResumableVectorEnv:
        """Make N environments, which step in lockstep if they have no wrappers.

        Args:
            num_envs: N.
            threads: threads that simulate, the caller's included; not used with wrappers.

        Raises:
            UserError: the environment cannot be made.
        """
        return self.make_vector(num_envs) if self.wrappers else self.make_batch(num_envs, threads)

    def make_batch(self, num_envs: int, threads: int) -> MujocoVectorEnv:
        """Make N environments without wrappers, which step in lockstep.

        Raises:
            UserError: the model cannot be read, or does not fit the task.
        """
        try:
            return MujocoVectorEnv(
                self._task, num_envs=num_envs, threads=threads, spec=self._gymnasium_spec
            )
        except (OSError, ValueError) as error:
            raise UserError(f"env.options.xml_file: {' '.join(str(error).split())}") from error
        except KeyError as error:
            raise UserError(f"env.options: the model lacks a body: {error.args[0]}") from error

    def make_single(self, *, render_mode: str | None) -> gym.Env:
        """Make one Gymnasium environment with the same limit, options and wrappers.

        Args:
            render_mode: as in ``gymnasium.make``, e.g. "rgb_array" for video.

        Raises:
            UserError: the model cannot be read, or a wrapper does not fit.
        """
        try:
            env = gym.make(self._gymnasium_spec, render_mode=render_mode)
        except (OSError, ValueError) as error:
            raise UserError(f"env.options.xml_file: {' '.join(str(error).split())}") from error
        return self.wrap(env)


def gymnasium_options(env_id: str) -> dict[str, Any]:
    """Return the options of Gymnasium's class for a task, with its default values."""
    gymnasium_class = load_env_creator(str(gym.spec(env_id).entry_point))
    arguments = inspect.signature(gymnasium_class).parameters
    return {name: arguments[name].default for name in inspect.signature(TASKS[env_id]).parameters}


def _check_values(options: Mapping[str, Any]) -> None:
    """Raise a UserError for an option of the right type whose value makes no sense."""
    for name, value in options.items():
        if isinstance(value, tuple) and not (len(value) == 2 and value[0] < value[1]):
            raise UserError(f"env.options.{name}: expected [low, high], got {list(value)}")
    for name, least, most in (("frame_skip", 1, LARGEST_INT), ("reset_noise_scale", 0, math.inf)):
        if name in options and not options[name] >= least:
            raise UserError(f"env.options.{name} must be at least {least}, got {options[name]}")
        if name in options and options[name] > most:
            raise UserError(f"env.options.{name} must be at most {most}, got {options[name]}")
