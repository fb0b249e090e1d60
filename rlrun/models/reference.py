"""A frozen policy, read from another run, that a policy in training is to stay near."""

import copy
from typing import Any

import torch

from rlrun.config import targets
from rlrun.config.load import ROOMS
from rlrun.data.normalize import ObservationNormalizer
from rlrun.data.sequences import Observations
from rlrun.envs.problem import Problem
from rlrun.models.distributions import Distribution
from rlrun.models.networks import Policy


class Reference:
    """A frozen policy that sees raw observations through a normaliser of its own.

    A new run reads it from another run (``runs/policies.py: load_policy``). From then on it is a
    part of the run's own state, whole, so that the other run may change, move or go.
    """

    # Set by `load_state_dict`.
    _policy: Policy
    _normalizer: ObservationNormalizer
    _model: dict[str, Any]

    def __init__(self, problem: Problem, device: torch.device):
        """Leave open which policy it is: a state says that.

        Args:
            problem: what it is a policy for.
            device: where the learner lives.
        """
        self._problem = problem
        self._device = device

    def __call__(self, raw_obs: Observations) -> Distribution:
        """Return π_ref(·|s) at observations [T, N, D] as the environment gave them (CPU).

        Or at the steps of sequences.
        """
        return self._policy(self._normalizer(raw_obs).to(self._device))

    @property
    def policy(self) -> Policy:
        """Without its normaliser."""
        return self._policy

    def is_like(self, policy: Policy) -> bool:
        """Say whether a policy has weights of the same names and sizes."""
        own, other = (
            {name: weight.shape for name, weight in each.state_dict().items()}
            for each in (self._policy, policy)
        )
        return own == other

    def become(self, policy: Policy, normalizer: ObservationNormalizer) -> None:
        """Take the place of a policy as it is now.

        Args:
            policy: one that this is like (`is_like`).
            normalizer: of its observations.
        """
        # Copies: a state that was taken before stays what it was.
        self._policy = copy.deepcopy(policy).requires_grad_(False)
        self._normalizer = copy.deepcopy(normalizer)

    def state_dict(self) -> dict:
        """Return all that the policy is made of."""
        return {
            "model": self._model,
            "clip": self._normalizer.clip,
            "normalized": self._normalizer.enabled,
            "weights": dict(self._policy.state_dict()),
            "observation_normalizer": self._normalizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Build the policy that a state describes.

        Raises:
            RuntimeError: its weights are those of a policy for another problem.
            UserError: it is of a model that rlrun does not have.
        """
        self._model = state["model"]
        model = targets.build(self._model, "model", ROOMS["model"])
        policy = model.policy(self._problem, torch.Generator())
        policy.load_state_dict(state["weights"])
        self._policy = policy.requires_grad_(False).to(self._device)
        self._normalizer = ObservationNormalizer(
            self._problem.obs_size, clip=state["clip"], enabled=state["normalized"]
        )
        self._normalizer.load_state_dict(state["observation_normalizer"])
