"""What the loops see of an environment: tensors, flat observations and true successors.

Nothing after this module knows about NumPy, autoreset, spaces or action bounds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Tensor

from rlrun.envs.actions import ActionAdapter, ActionUnits
from rlrun.envs.contract import EnvironmentSpec, ResumableVectorEnv
from rlrun.envs.flatten import (
    category_sizes,
    check_observation_space,
    fits_bytes,
    flatten_batch,
)
from rlrun.errors import NonFiniteError, UserError


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
        observation_space: of one environment.
        obs_size: D, the numbers in a flat observation.
        to_env: turns a policy's actions into the environments'.
        action_space: what a policy sees of one environment: Discrete from 0, or a 1-D float32
            Box in the policy's own units.
        obs: [N, D] float32, the observations that the next actions answer; to be read again
            after ``load_state_dict``.
        restarted: environments that ``load_state_dict`` could not put back into their episodes.
    """

    device = torch.device("cpu")

    def __init__(self, vector_env: ResumableVectorEnv, *, action_units: ActionUnits):
        """Look at the spaces and refuse what cannot be trained on.

        Args:
            vector_env: N environments in mode SAME_STEP; from now on this object's.
            action_units: what the numbers of a policy mean (see :class:`ActionAdapter`).

        Raises:
            UserError: the autoreset mode or one of the spaces is not supported.
        """
        mode = vector_env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise UserError(
                f"{type(vector_env).__name__} has autoreset mode {mode}; "
                "rlrun needs AutoresetMode.SAME_STEP"
            )
        check_observation_space(vector_env.single_observation_space)
        self._vector_env = vector_env
        self.observation_space = vector_env.single_observation_space
        self.to_env = ActionAdapter(vector_env.single_action_space, action_units)
        self.num_envs = vector_env.num_envs
        self.obs_size = spaces.flatdim(self.observation_space)
        self.action_space = self.to_env.policy_space
        self.state_sizes = category_sizes(self.observation_space)
        self.obs_dtype = torch.uint8 if fits_bytes(self.observation_space) else torch.float32
        self.obs = torch.zeros(self.num_envs, self.obs_size)
        self.restarted: tuple[int, ...] = ()
        self._returns = np.zeros(self.num_envs, np.float64)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._episodes: list[tuple[float, int]] = []

    @classmethod
    def make(cls, spec: EnvironmentSpec, *, num_envs: int, threads: int) -> "ControlEnv":
        """Make N environments of a spec.

        Args:
            spec: from ``conf/env/``.
            num_envs: N.
            threads: threads that step them, as far as they can use any.

        Raises:
            UserError: the environment cannot be made, or cannot be trained on.
        """
        vector_env = spec.make(num_envs=num_envs, threads=threads)
        try:
            return cls(vector_env, action_units=spec.action_units)
        except BaseException:
            vector_env.close()
            raise

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
        obs = flatten_batch(self.observation_space, observations)
        _require_finite("observation", obs)
        self.obs = torch.from_numpy(obs)
        self._returns[:] = 0.0
        self._lengths[:] = 0
        return self.obs

    def step(self, action: Tensor, rows: Tensor | None = None) -> EnvStep:
        """Advance environments by one step.

        Args:
            action: [N] int64 from 0, or [N, A] float32 in the policy's units, which is brought to
                those of the Box and clipped to it here.
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
            result = self._vector_env.step(self._given(given))
            self._lengths += 1
        else:
            advanced = rows.numpy()
            harmless = np.zeros_like(given)
            harmless[advanced] = given[advanced]
            result = self._vector_env.step(self._given(harmless), advanced)
            self._lengths[advanced] += 1
        observations, rewards, terminated, truncated, infos = result
        obs = next_obs = flatten_batch(self.observation_space, observations)
        with np.errstate(over="ignore"):  # which the next lines name
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
            "vector_env": _tensors(self._vector_env.state_dict()),
            "obs": self.obs.clone(),
            "returns": torch.from_numpy(self._returns.copy()),
            "lengths": torch.from_numpy(self._lengths.copy()),
            "episodes": list(self._episodes),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()`` of a ControlEnv over the same environments."""
        restarted = self._vector_env.load_state_dict(_arrays(state["vector_env"])) or {}
        self.restarted = tuple(restarted)
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

    def _given(self, action: NDArray) -> NDArray:
        """[N] or [N, A] as the policy says it -> [N, ...] as the environments are given it."""
        if isinstance(self.action_space, spaces.Box):
            _require_finite("action", action)
        return self.to_env(action)

    def _flat(self, obs: Any) -> NDArray:
        """One observation of an environment -> [D]."""
        return np.asarray(spaces.flatten(self.observation_space, obs))


def _require_finite(quantity: str, values: NDArray) -> None:
    """Raise a NonFiniteError that names the quantity and the first environment, [N, ...]."""
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite.reshape(len(values), -1).all(axis=1)))
        raise NonFiniteError(f"{quantity} of environment {index} is not finite")


def _tensors(state: Any) -> Any:
    """Make the arrays in a nest of containers tensors, as checkpoints hold no arrays."""
    match state:
        case np.ndarray():
            return torch.from_numpy(state)
        case dict():
            return {key: _tensors(value) for key, value in state.items()}
        case list():
            return [_tensors(value) for value in state]
    return state


def _arrays(state: Any) -> Any:
    """Make the tensors in a nest of containers arrays again."""
    match state:
        case Tensor():
            return state.numpy()
        case dict():
            return {key: _arrays(value) for key, value in state.items()}
        case list():
            return [_arrays(value) for value in state]
    return state
