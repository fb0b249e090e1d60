"""What the loops see of an environment: tensors, flat observations and true successors.

Nothing after this module knows about NumPy, autoreset, spaces or action bounds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Tensor

from rlrun.errors import NonFiniteError, UserError

# A uint8 array of two or more dimensions and more values than this is taken for an image: as a
# flat vector it would train an MLP of millions of weights, slowly and badly.
LARGEST_FLAT_GRID = 1024


class ResumableVectorEnv(Protocol):
    """A ``gymnasium.vector.VectorEnv`` in mode SAME_STEP that can be saved and stepped in part."""

    num_envs: int
    metadata: dict[str, Any]
    single_observation_space: gym.Space
    single_action_space: gym.Space

    def reset(self, *, seed: int | Sequence[int] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment."""

    def step(
        self, actions: Any, rows: NDArray[np.intp] | None = None
    ) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Advance all environments or ``rows``; those that end begin their next episode."""

    def close(self) -> None:
        """Release what the environments hold."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future, in plain containers and tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> dict[int, Any] | None:
        """Continue from ``state``.

        Returns:
            The first observation of every environment, by its index, that could not be put back
            into the middle of its episode and began another one; empty or None if all could.
        """


class EnvStep(NamedTuple):
    """One step of N environments, in new tensors; D is the size of an observation.

    Attributes:
        obs: [N, D] float32, where to act next: after an episode's end, the first of the next one.
        next_obs: [N, D] float32, the true successor: after an episode's end, its final one.
        reward: [N] float32.
        terminated: [N] bool, the task ended: nothing comes after it, so nothing is bootstrapped.
        truncated: [N] bool, the episode was cut: its value goes on after ``next_obs``.
    """

    obs: Tensor
    next_obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor


class ControlEnv:
    """N environments with flat observations, unclipped actions and episode statistics.

    Observations are flattened in the order of ``gymnasium.spaces.flatten``: arrays as they are,
    categories one-hot, the parts of a Tuple or Dict one after the other.

    Attributes:
        device: where the tensors are that come out and go in.
        num_envs: N.
        obs_size: D, the numbers in a flat observation.
        action_space: of one environment: Discrete from 0, or a 1-D float32 Box.
        obs: [N, D] float32, the observations that the next actions answer; to be read again
            after ``load_state_dict``.
    """

    device = torch.device("cpu")

    def __init__(self, vector_env: ResumableVectorEnv):
        """Look at the spaces and refuse what cannot be trained on.

        Args:
            vector_env: N environments in mode SAME_STEP; from now on this object's.

        Raises:
            UserError: the autoreset mode or one of the spaces is not supported.
        """
        mode = vector_env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise UserError(
                f"{type(vector_env).__name__} has autoreset mode {mode}; "
                "rlrun needs AutoresetMode.SAME_STEP"
            )
        _check_observation_space(vector_env.single_observation_space)
        self._vector_env = vector_env
        self._obs_space = vector_env.single_observation_space
        self._env_action_space = vector_env.single_action_space
        self.num_envs = vector_env.num_envs
        self.obs_size = spaces.flatdim(self._obs_space)
        self.action_space = _flat_action_space(self._env_action_space)
        self.obs = torch.zeros(self.num_envs, self.obs_size)
        self._returns = np.zeros(self.num_envs, np.float64)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._episodes: list[tuple[float, int]] = []

    def reset(self, seed: int | Sequence[int]) -> Tensor:
        """Begin an episode in every environment; those that were running do not count.

        Args:
            seed: environment i is seeded with ``seed + i``, or with ``seed[i]``. Those with equal
                seeds begin from the same state.

        Returns:
            The first observations, [N, D].

        Raises:
            EnvironmentFailure: an environment raised.
            ValueError: wrong number of seeds.
            NonFiniteError: an observation is NaN or infinite.
        """
        observations, _ = self._vector_env.reset(seed=seed)
        obs = flatten_batch(self._obs_space, observations)
        _require_finite("observation", obs)
        self.obs = torch.from_numpy(obs)
        self._returns[:] = 0.0
        self._lengths[:] = 0
        return self.obs

    def step(self, action: Tensor, rows: Tensor | None = None) -> EnvStep:
        """Advance environments by one step.

        Args:
            action: [N] int64 from 0, or [N, A] float32 that is clipped to the Box here.
            rows: the environments to advance, in order; None: all. The others stay untouched,
                whatever their action: both observations are the one they had, the reward is 0,
                nothing ends.

        Returns:
            The transition, and where to act next.

        Raises:
            EnvironmentFailure: an environment raised.
            NonFiniteError: an action, observation or reward is NaN or infinite.
        """
        given = action.numpy()
        if rows is None:
            result = self._vector_env.step(self._bounded(given))
            self._lengths += 1
        else:
            advanced = rows.numpy()
            harmless = np.zeros_like(given)
            harmless[advanced] = given[advanced]
            result = self._vector_env.step(self._bounded(harmless), advanced)
            self._lengths[advanced] += 1
        observations, rewards, terminated, truncated, infos = result
        obs = next_obs = flatten_batch(self._obs_space, observations)
        reward = rewards.astype(np.float32)
        _require_finite("observation", obs)
        _require_finite("reward", reward)
        self._returns += rewards

        if "final_obs" in infos:
            next_obs = obs.copy()
            for index in np.flatnonzero(infos["_final_obs"]):
                next_obs[index] = self._flat(infos["final_obs"][index])
                self._episodes.append((float(self._returns[index]), int(self._lengths[index])))
                self._returns[index] = 0.0
                self._lengths[index] = 0
            _require_finite("observation", next_obs)
        self.obs = torch.from_numpy(obs)
        return EnvStep(
            obs=self.obs,
            next_obs=self.obs if next_obs is obs else torch.from_numpy(next_obs),
            reward=torch.from_numpy(reward),
            # Copies, as a vector environment may use its arrays again.
            terminated=torch.from_numpy(terminated.copy()),
            truncated=torch.from_numpy(truncated.copy()),
        )

    def drain_episodes(self) -> list[tuple[float, int]]:
        """(undiscounted return, length in steps) of the episodes ended since the last call."""
        episodes, self._episodes = self._episodes, []
        return episodes

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future, in plain containers and tensors."""
        return {
            "vector_env": self._vector_env.state_dict(),
            "obs": self.obs.clone(),
            "returns": torch.from_numpy(self._returns.copy()),
            "lengths": torch.from_numpy(self._lengths.copy()),
            "episodes": list(self._episodes),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()`` of a ControlEnv over the same environments."""
        restarted = self._vector_env.load_state_dict(state["vector_env"]) or {}
        self.obs = state["obs"].clone()
        self._returns[:] = state["returns"].numpy()
        self._lengths[:] = state["lengths"].numpy()
        self._episodes = [(value, length) for value, length in state["episodes"]]
        for index, first_obs in restarted.items():
            self.obs[index] = torch.from_numpy(self._flat(first_obs))
            self._returns[index] = 0.0
            self._lengths[index] = 0

    def close(self) -> None:
        """Release what the environments hold."""
        self._vector_env.close()

    def _flat(self, obs: Any) -> NDArray:
        """One observation of an environment -> [D]."""
        return np.asarray(spaces.flatten(self._obs_space, obs))

    def _bounded(self, action: NDArray) -> NDArray:
        """[N] or [N, A] as the policy gives it -> [N, ...] inside the environments' space."""
        space = self._env_action_space
        if isinstance(space, spaces.Discrete):
            return action + space.start
        _require_finite("action", action)
        assert isinstance(space, spaces.Box)
        shaped = action.reshape(self.num_envs, *space.shape)
        # Compared in the finer precision of the two: float32(0.1) lies above a float64 bound 0.1.
        # Two ufuncs take half the time of np.clip on arrays of this size.
        return np.minimum(np.maximum(shaped, space.low), space.high)


def flatten_batch(space: gym.Space, batch: Any) -> NDArray[np.float32]:
    """Flatten a batch as ``gymnasium.spaces.flatten`` does one observation.

    Args:
        space: of one observation.
        batch: N observations as a vector environment batches them: an array [N, ...], or a tuple
            or dict of such.

    Returns:
        A new array [N, D].
    """
    match space:
        case spaces.Box() | spaces.MultiBinary():
            return batch.reshape(len(batch), -1).astype(np.float32)
        case spaces.Discrete():
            return _one_hot(batch - space.start, int(space.n))
        case spaces.MultiDiscrete():
            sizes = space.nvec.ravel()
            codes = (batch - space.start).reshape(len(batch), -1)
            parts = [_one_hot(codes[:, k], int(size)) for k, size in enumerate(sizes)]
        case spaces.Tuple():
            parts = [
                flatten_batch(subspace, part)
                for subspace, part in zip(space.spaces, batch, strict=True)
            ]
        case spaces.Dict():
            parts = [flatten_batch(subspace, batch[key]) for key, subspace in space.items()]
    return np.concatenate(parts, axis=1)


def _one_hot(codes: NDArray, size: int) -> NDArray[np.float32]:
    """[N] integers below ``size`` -> [N, size]."""
    return (codes[:, None] == np.arange(size)).astype(np.float32)


def _require_finite(quantity: str, values: NDArray) -> None:
    """Raise a NonFiniteError that names the quantity and the first environment, [N, ...]."""
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite.reshape(len(values), -1).all(axis=1)))
        raise NonFiniteError(f"{quantity} of environment {index} is not finite")


def _check_observation_space(space: gym.Space) -> None:
    """Refuse observations that no fixed, short vector stands for."""
    match space:
        case spaces.Dict():
            for subspace in space.values():
                _check_observation_space(subspace)
        case spaces.Tuple():
            for subspace in space.spaces:
                _check_observation_space(subspace)
        case spaces.Box():
            size = int(np.prod(space.shape))
            if space.dtype == np.uint8 and len(space.shape) >= 2 and size > LARGEST_FLAT_GRID:
                shape = " x ".join(str(length) for length in space.shape)
                raise UserError(f"observations that are images ({shape}) are not supported yet")
        case spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            pass
        case _:
            raise UserError(
                f"observation space {space} is not supported: use Box, Discrete, MultiDiscrete, "
                "MultiBinary, or a Tuple or Dict of these"
            )


def _flat_action_space(space: gym.Space) -> spaces.Discrete | spaces.Box:
    """The action space that a policy sees: Discrete from 0, or a 1-D float32 Box."""
    match space:
        case spaces.Discrete():
            return spaces.Discrete(int(space.n))
        case spaces.Box() if np.issubdtype(space.dtype, np.floating):
            low, high = (bound.ravel().astype(np.float32) for bound in (space.low, space.high))
            return spaces.Box(low, high, dtype=np.float32)
        case _:
            raise UserError(
                f"action space {space} is not supported: use Discrete or a Box of floats"
            )
