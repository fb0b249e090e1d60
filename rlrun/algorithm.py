"""What rlrun asks of an algorithm: the contract of every class in ``rlrun/algos/``."""

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
import torch
from torch import Tensor

from rlrun.hardware import Hardware
from rlrun.rollout import Actor, Rollout
from rlrun.seeding import Streams


class OnPolicyAlgorithm(Actor, Protocol):
    """An algorithm of the loop ``loops.on_policy``; ``algos/ppo.py`` is the example.

    It is a keyword-only dataclass whose fields are its hyperparameters, without defaults: their
    values are in its YAML. It need not inherit from this class.

    Attributes:
        loop: the function of ``loops.py`` that trains it.
        device: where its networks are, from `setup` on.
        num_envs: N, environments stepped side by side.
        horizon: T, steps of each of them an iteration.
        gamma: discount of the return.
        normalize_observation: whether observations are scaled.
        normalize_reward: whether rewards are scaled.
        normalizer_clip: bound of scaled observations and rewards.
    """

    loop: Callable[[Any], None]
    device: torch.device
    num_envs: int
    horizon: int
    gamma: float
    normalize_observation: bool
    normalize_reward: bool
    normalizer_clip: float

    def setup(
        self,
        obs_size: int,
        action_space: gym.spaces.Discrete | gym.spaces.Box,
        *,
        hardware: Hardware,
        streams: Streams,
        estimator: Callable[..., tuple[Tensor, Tensor]] | None,
        compiled: bool,
    ) -> None:
        """Build networks and optimisers, before anything of the run is written.

        Raises:
            UserError: the algorithm cannot work with the action space or the estimator.
        """

    def updates(self, total_steps: int) -> int:
        """Return how many optimiser steps a run takes, from which compiling is decided."""

    def warm_up(self) -> None:
        """Compile what is to be compiled; nothing is learned."""

    def run_eagerly(self) -> None:
        """Do without the compiler, which failed."""

    def act_greedily(self, obs: Tensor) -> Tensor:
        """Return the policy's best actions at normalised observations [N, D] (CPU)."""

    def update(self, rollout: Rollout, *, progress: float) -> dict[str, Tensor]:
        """Learn from a rollout; return what to log, each [], and ``updates``, their number."""

    def weights(self) -> dict[str, Tensor]:
        """Return the networks' weights by name: what is shared of a trained policy."""

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Continue from saved weights."""

    def state_dict(self) -> dict:
        """Return what decides the future besides the weights."""

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
