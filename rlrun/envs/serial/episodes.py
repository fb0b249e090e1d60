"""Episodes saved as the way to them, for environments that cannot be copied: start and actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import DTypeLike, NDArray

from rlrun.envs.serial.action_record import ActionRecord


@dataclass(frozen=True)
class EpisodeStart:
    """How a running episode was begun.

    Attributes:
        seed: that the environment was last given, in this reset or an earlier one; None: none.
        options: of this reset.
        generator: state of the environment's generator before it; None after a reset with a seed.
    """

    seed: int | None = None
    options: dict[str, Any] | None = None
    generator: dict[str, Any] | None = None

    def reset(self, env: gym.Env) -> Any:
        """Begin the episode once more, and return its first observation."""
        if self.generator is None:
            obs, _ = env.reset(seed=self.seed, options=self.options)
            return obs
        if self.seed is not None:
            # For environments that derive more than their generator from the seed.
            env.reset(seed=self.seed)
        set_generator_state(env, self.generator)
        obs, _ = env.reset(options=self.options)
        return obs


class RunningEpisodes:
    """How N environments came where they are: how each began its episode, and its actions since."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike | None):
        """Begin with environments that have not been reset.

        Args:
            shape: of the actions of a step, (N, ...).
            dtype: of the actions.
        """
        self._starts = [EpisodeStart()] * shape[0]
        self._record = ActionRecord(shape, dtype)

    def append(self, actions: NDArray, rows: NDArray[np.intp] | None) -> None:
        """Record the actions [N, ...] of a step, given to the environments in rows (None: all)."""
        self._record.append(actions, rows)

    def begin(
        self, index: int, env: gym.Env, seed: int | None, options: dict[str, Any] | None
    ) -> None:
        """Record that environment ``index`` is about to be reset, with a seed or without."""
        if seed is None:
            start = EpisodeStart(self._starts[index].seed, options, generator_state(env))
        else:
            start = EpisodeStart(seed, options)
        self._starts[index] = start
        self._record.begin(index)

    def seed(self, index: int) -> int | None:
        """Return the seed that environment ``index`` was last given, if any."""
        return self._starts[index].seed

    def save(self, envs: Sequence[gym.Env], observations: Sequence[Any]) -> list[dict[str, Any]]:
        """Return what makes the episodes again, and what to compare the result with.

        Args:
            envs: in the middle of their episodes.
            observations: the latest of each.

        Returns:
            Plain containers and arrays of their own, one for each environment.
        """
        return [
            {
                "seed": start.seed,
                "options": start.options,
                "generator_before_reset": start.generator,
                "actions": self._record.episode(index),
                "generator": generator_state(env),
                "observation": _flat(env, obs).copy(),
            }
            for index, (env, start, obs) in enumerate(
                zip(envs, self._starts, observations, strict=True)
            )
        ]

    def load(self, saved_envs: Sequence[dict[str, Any]]) -> None:
        """Go on with what ``save`` returned."""
        self._record.load([saved["actions"] for saved in saved_envs])
        self._starts = [_start_of(saved) for saved in saved_envs]


def replay_episode(env: gym.Env, saved: dict[str, Any]) -> Any | None:
    """Make a saved episode again.

    Returns:
        The latest observation; None if the environment did not arrive at the saved state.
    """
    obs = _start_of(saved).reset(env)
    for action in saved["actions"]:
        obs, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            return None
    same_obs = np.array_equal(_flat(env, obs), saved["observation"], equal_nan=True)
    return obs if same_obs and generator_state(env) == saved["generator"] else None


def generator_state(env: gym.Env) -> dict[str, Any] | None:
    """Return the state of an environment's generator; None for one that Gymnasium did not make."""
    generator = env.unwrapped.np_random
    if isinstance(generator, np.random.Generator) and isinstance(
        generator.bit_generator, np.random.PCG64
    ):
        return dict(generator.bit_generator.state)
    return None


def set_generator_state(env: gym.Env, state: dict[str, Any] | None) -> None:
    """Put back what ``generator_state`` read."""
    if state is not None:
        env.unwrapped.np_random.bit_generator.state = state


def _start_of(saved: dict[str, Any]) -> EpisodeStart:
    """How a saved episode was begun."""
    return EpisodeStart(saved["seed"], saved["options"], saved["generator_before_reset"])


def _flat(env: gym.Env, obs: Any) -> NDArray:
    """One observation as a 1-D array."""
    return np.asarray(spaces.flatten(env.observation_space, obs))
