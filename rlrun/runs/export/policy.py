"""A policy with all that stands between an environment's observation and the action it is given."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlrun.data.normalize import ObservationNormalizer
from rlrun.envs.actions import ActionAdapter
from rlrun.envs.control import ControlEnv
from rlrun.models.bounded_distributions import Dirac, SquashedGaussian
from rlrun.models.distributions import ActionValues, Categorical, DiagonalGaussian
from rlrun.models.language.token_distributions import TokenCategorical
from rlrun.models.networks import Policy
from rlrun.runs.export.observations import leaves_of, torch_dtype

# What a policy returns.
PolicyDistribution = (
    Categorical | ActionValues | DiagonalGaussian | SquashedGaussian | Dirac | TokenCategorical
)


class DeployedPolicy(nn.Module):
    """Observations as an environment gives them -> actions as it takes them.

    An observation is flattened, with choices as one-hot, and normalised by the statistics of
    training; the policy's action is brought to the environment's units and clipped to its box. All
    of it are operations of torch on buffers and parameters, so that it can be exported.

    Attributes:
        observation_space: of one environment.
        leaves: the arrays that an observation is made of, inputs of `forward` in this order.
        normalizer: flat observations [N, D] -> what the policy takes; None: they are that.
        policy: normalised flat observations [N, D] -> distribution.
        to_env: actions in the policy's units [N] or [N, A] -> in the environment's, [N, ...].
    """

    def __init__(self, policy: Policy, normalizer: ObservationNormalizer, env: ControlEnv):
        """Put the parts of a run together.

        Args:
            policy: of the run.
            normalizer: of its observations.
            env: an environment of the run; it is only looked at.
        """
        super().__init__()
        self.observation_space = env.observation_space
        self.leaves = leaves_of(env.observation_space)
        self.normalizer = FrozenNormalizer(normalizer) if normalizer.enabled else None
        self.policy = policy
        self.to_env = ToEnvironment(env.to_env)

    @property
    def action_space(self) -> gym.Space:
        """Of one environment."""
        return self.to_env.space

    def forward(self, *observations: Tensor) -> dict[str, Tensor]:
        """Return the greedy actions, and what the policy says besides.

        Args:
            observations: of each leaf, [N, ...].

        Returns:
            ``action``, as the environment takes it; beside it ``logits`` [N, K] of a choice,
            ``action_values`` [N, K] of a policy that takes the best one, or ``mean`` and
            ``log_std`` [N, A] of a Gaussian in the policy's own units, before tanh if it has one.
        """
        distribution = self.distribution(*observations)
        return {"action": self.to_env(distribution.mode()), **parameters_of(distribution)}

    def distribution(self, *observations: Tensor) -> PolicyDistribution:
        """Return π(·|s), in the policy's own units.

        Args:
            observations: of each leaf, [N, ...].
        """
        pairs = zip(self.leaves, observations, strict=True)
        flat = torch.cat([leaf.flatten(values) for leaf, values in pairs], -1)
        if self.normalizer is not None:
            flat = self.normalizer(flat)
        distribution: PolicyDistribution = self.policy(flat)
        return distribution


class FrozenNormalizer(nn.Module):
    """(s − mean) / std, clipped, by the statistics of training."""

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, normalizer: ObservationNormalizer):
        """Take the statistics."""
        super().__init__()
        self.clip = normalizer.clip
        self.register_buffer("mean", normalizer.mean)
        self.register_buffer("inverse_std", normalizer.inverse_std)

    def forward(self, obs: Tensor) -> Tensor:
        """Normalise flat observations, [N, D]."""
        return ((obs - self.mean) * self.inverse_std).clamp(-self.clip, self.clip)


class ToEnvironment(nn.Module):
    """`ActionAdapter` by operations of torch.

    Attributes:
        space: of one environment's actions.
        scaled: whether a policy's −1…1 stands for the box.
    """

    low: Tensor
    high: Tensor
    middle: Tensor
    scale: Tensor

    def __init__(self, adapter: ActionAdapter):
        """Take the bounds of the space, and what a policy's numbers mean."""
        super().__init__()
        self.space = adapter.space
        self.scaled = adapter.scale is not None
        if isinstance(adapter.space, spaces.Box):
            arrays = {"low": adapter.space.low, "high": adapter.space.high}
            if adapter.scale is not None and adapter.middle is not None:
                # In double precision, as in training.
                arrays |= {"middle": adapter.middle, "scale": adapter.scale}
            for name, array in arrays.items():
                self.register_buffer(name, torch.from_numpy(np.array(array)))

    def forward(self, action: Tensor) -> Tensor:
        """Bring actions [N] or [N, A] to the environment's units, and into its space."""
        dtype = torch_dtype(self.space)
        if isinstance(self.space, spaces.Discrete):
            return (action + int(self.space.start)).to(dtype)
        shaped = action.reshape(action.shape[0], *(self.space.shape or ()))
        if self.scaled:
            shaped = self.middle + self.scale * shaped.double()
        return torch.minimum(torch.maximum(shaped, self.low), self.high).to(dtype)


def parameters_of(distribution: PolicyDistribution) -> dict[str, Tensor]:
    """Return the tensors that a distribution is made of, by name; none of a single action."""
    match distribution:
        case Categorical(logits):
            return {"logits": logits}
        case TokenCategorical():
            return {"logits": distribution.logits}
        case ActionValues(values):
            return {"action_values": values}
        case DiagonalGaussian(mean, log_std) | SquashedGaussian(mean, log_std):
            return {"mean": mean, "log_std": log_std.expand_as(mean)}
    return {}
