"""Episodes saved as the way to them, for environments that cannot be copied: start and actions."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


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


def save_episode(env: gym.Env, start: EpisodeStart, actions: NDArray, obs: Any) -> dict[str, Any]:
    """Return what makes a running episode again, and what to compare the result with.

    Args:
        env: in the middle of the episode.
        start: how it was begun.
        actions: those since, [T, ...], in an array that nothing else uses.
        obs: the latest observation.

    Returns:
        Plain containers and arrays of their own.
    """
    return {
        "seed": start.seed,
        "options": start.options,
        "generator_before_reset": start.generator,
        "actions": actions,
        "generator": generator_state(env),
        "observation": _flat(env, obs).copy(),
    }


def start_of(saved: dict[str, Any]) -> EpisodeStart:
    """Return how a saved episode was begun."""
    return EpisodeStart(saved["seed"], saved["options"], saved["generator_before_reset"])


def replay_episode(env: gym.Env, saved: dict[str, Any]) -> Any | None:
    """Make a saved episode again.

    Returns:
        The latest observation; None if the environment did not arrive at the saved state.
    """
    obs = start_of(saved).reset(env)
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


def _flat(env: gym.Env, obs: Any) -> NDArray:
    """One observation as a 1-D array."""
    return np.asarray(spaces.flatten(env.observation_space, obs))
