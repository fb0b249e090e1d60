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
from rlrun.models.huggingface.adapters import with_own_adapters
from rlrun.models.huggingface.model import HuggingFace
from rlrun.models.networks import Model, Policy

# In place of a model's settings: that of the learner, as it was before training, by its tensors.
SHARED = {"shared": True}
# And that with adapters of its own.
ADAPTED = {"adapted": True}


class Reference:
    """A frozen policy that sees raw observations through a normaliser of its own.

    A new run reads it from another run (``runs/setup/policies.py: load_policy``). From then on it
    is a part of the run's own state, whole, so that the other run may change, move or go.
    """

    # Set by `hold`.
    _policy: Policy
    _normalizer: ObservationNormalizer
    _model: dict[str, Any]

    def __init__(self, problem: Problem, device: torch.device, learner: Model | None = None):
        """Leave open which policy it is: a state says that.

        Args:
            problem: what it is a policy for.
            device: where the learner lives.
            learner: what has built the policy in training; None: nothing is shared with that.
        """
        self._problem = problem
        self._device = device
        self._learner = learner

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
        """Say whether a policy has weights of the same names and sizes, or begins as this one."""
        if self._model == SHARED:
            return True
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
        self._policy = with_own_adapters(policy).requires_grad_(False)
        self._normalizer = copy.deepcopy(normalizer)
        if isinstance(self._learner, HuggingFace) and self._learner.lora is not None:
            self._model = ADAPTED

    def state_dict(self) -> dict:
        """Return all that the policy is made of; what it shares is read where the learner's is."""
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
        if state["model"] in (SHARED, ADAPTED):
            assert isinstance(self._learner, HuggingFace)
            before = state["model"] == SHARED
            learner = self._learner
            policy: Policy = learner.before_training() if before else learner.other_adapters()
        else:
            model = targets.build(state["model"], "model", ROOMS["model"])
            policy = model.policy(self._problem, torch.Generator())
        policy.load_state_dict(state["weights"])
        normalizer = ObservationNormalizer(
            self._problem.obs_size, clip=state["clip"], enabled=state["normalized"]
        )
        normalizer.load_state_dict(state["observation_normalizer"])
        self.hold(policy, normalizer, state["model"])

    def hold(
        self, policy: Policy, normalizer: ObservationNormalizer, model: dict[str, Any]
    ) -> None:
        """Take a policy, which does not change any more.

        Args:
            policy: for the problem.
            normalizer: of its observations.
            model: the settings that it can be built from again, `SHARED` or `ADAPTED`.
        """
        self._policy = policy.requires_grad_(False).to(self._device)
        self._normalizer, self._model = normalizer, model
