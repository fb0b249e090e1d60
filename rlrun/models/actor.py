"""Who acts: a policy with its normaliser, a source of random numbers, and a version."""

import copy
from typing import ClassVar

import torch
from torch import Tensor

from rlrun.data.normalize import ObservationNormalizer
from rlrun.models.distributions import Distribution
from rlrun.models.networks import Policy


class Actor:
    """Acts where the environments are, with weights that the learner publishes.

    Environments step on the CPU, where a forward pass of a small network takes less time than a
    launch on a GPU: for a learner there, the actor has a copy of the policy.

    Attributes:
        policy: its own.
        normalizer: of the observations.
        generator: source of the exploration.
        device: where the policy is.
        version: how often weights were published.
    """

    # Whose log-probabilities a gradient is taken of (see `collectors/writing.py`).
    in_training: ClassVar[bool] = True

    def __init__(
        self,
        policy: Policy,
        normalizer: ObservationNormalizer,
        generator: torch.Generator,
        device: torch.device,
        *,
        apart: bool = False,
    ):
        """Take the learner's policy as it is.

        Args:
            policy: the learner's.
            normalizer: of the observations.
            generator: source of the exploration.
            device: where the environments are.
            apart: whether the actor has a copy in any case, as it acts while the learner learns.
        """
        self.policy = policy
        # The actor's own parameters, if it has any, and those that they are copies of. Found once:
        # a method with a replay buffer publishes after each of its few steps.
        self._copies: list[tuple[Tensor, Tensor]] = []
        if apart or next(policy.parameters()).device.type != device.type:
            self.policy = copy.deepcopy(policy).to(device)
            self._copies += zip(self.policy.parameters(), policy.parameters(), strict=True)
        self.normalizer = normalizer
        self.generator = generator
        self.device = device
        self.version = 0

    def act(self, obs: Tensor) -> tuple[Tensor, Distribution]:
        """Sample an action at each observation.

        Args:
            obs: as the environment gave it, [N, D].

        Returns:
            Actions, [N] or [N, A], and the distributions μ(·|s) that they were drawn from, [N].
        """
        distribution = self.policy(self.normalizer(obs))
        return distribution.sample(self.generator), distribution

    def distribution(self, obs: Tensor, *noise: Tensor) -> Distribution:
        """Return the policy's distribution at each observation.

        Args:
            obs: as the environment gave it, [N, D].
            noise: what a noisy network takes besides.
        """
        return self.policy(self.normalizer(obs), *noise)

    def act_greedily(self, obs: Tensor) -> Tensor:
        """Return the most probable action at each observation [N, D], as [N] or [N, A]."""
        return self.policy(self.normalizer(obs)).mode()

    def publish(self) -> None:
        """Act with the learner's present weights from now on."""
        self.version += 1
        self.refresh()

    def refresh(self) -> None:
        """Copy the learner's weights, if the actor has others."""
        for own, learned in self._copies:
            own.data.copy_(learned.data)

    def state_dict(self) -> dict:
        """Return the version; weights, statistics and random numbers are saved by others."""
        return {"version": self.version}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state, with weights that are loaded by now."""
        self.version = state["version"]
        self.refresh()
