"""Multi-layer perceptrons, the distributions that policies return, and flat parameter vectors.

A policy maps observations to a distribution; a distribution is a small dataclass of tensors, so
that it passes through ``torch.compile``, ``torch.func`` and devices like any other tensor.
"""

from collections.abc import Sequence

import gymnasium as gym
import torch
from torch import Tensor, nn

from rlrun.envs.problem import Problem
from rlrun.models.distributions import Categorical, DiagonalGaussian
from rlrun.models.mlp import mlp


class CategoricalPolicy(nn.Module):
    """π(a|s) over a discrete action space; observations [..., D] -> :class:`Categorical`."""

    def __init__(self, sizes: Sequence[int], generator: torch.Generator):
        super().__init__()
        self.logits = mlp(sizes, output_gain=0.01, generator=generator)

    def forward(self, obs: Tensor) -> Categorical:
        """Return the distribution at each observation."""
        return Categorical(self.logits(obs))


class GaussianPolicy(nn.Module):
    """π(a|s) over a box of actions; observations [..., D] -> :class:`DiagonalGaussian`.

    The standard deviation is a parameter of its own and does not depend on the state.
    """

    def __init__(self, sizes: Sequence[int], log_std: float, generator: torch.Generator):
        super().__init__()
        self.mean = mlp(sizes, output_gain=0.01, generator=generator)
        self.log_std = nn.Parameter(torch.full((sizes[-1],), log_std))

    def forward(self, obs: Tensor) -> DiagonalGaussian:
        """Return the distribution at each observation."""
        return DiagonalGaussian(self.mean(obs), self.log_std)


class Critic(nn.Module):
    """V(s); observations [..., D] -> values [...]."""

    def __init__(self, sizes: Sequence[int], generator: torch.Generator):
        super().__init__()
        self.value = mlp(sizes, output_gain=1.0, generator=generator)

    def forward(self, obs: Tensor) -> Tensor:
        """Return the value of each observation."""
        return self.value(obs).squeeze(-1)


class DiscreteActionCritic(nn.Module):
    """Q(s, a) of a finite number of actions, all in one pass."""

    def __init__(self, sizes: Sequence[int], generator: torch.Generator):
        super().__init__()
        self.values = mlp(sizes, output_gain=1.0, generator=generator)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return Q(s, a) of observations [..., D] and actions [...], as [...]."""
        return self.values(obs).gather(-1, action.long().unsqueeze(-1)).squeeze(-1)


class BoxActionCritic(nn.Module):
    """Q(s, a) of a box of actions, which are an input beside the observation."""

    def __init__(self, sizes: Sequence[int], generator: torch.Generator):
        super().__init__()
        self.value = mlp(sizes, output_gain=1.0, generator=generator)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return Q(s, a) of observations [..., D] and actions [..., A], as [...]."""
        return self.value(torch.cat([obs, action], -1)).squeeze(-1)


def make_policy(
    problem: Problem, *, hidden_sizes: Sequence[int], log_std: float, generator: torch.Generator
) -> CategoricalPolicy | GaussianPolicy:
    """Build the policy that fits the action space.

    Args:
        problem: gives the sizes of input and output.
        hidden_sizes: widths of the hidden layers.
        log_std: logarithm of the first standard deviation, for a box of actions.
        generator: source of the initial weights.
    """
    space = problem.action_space
    if isinstance(space, gym.spaces.Discrete):
        return CategoricalPolicy([problem.obs_size, *hidden_sizes, int(space.n)], generator)
    return GaussianPolicy([problem.obs_size, *hidden_sizes, space.shape[0]], log_std, generator)


def make_action_critic(
    problem: Problem, *, hidden_sizes: Sequence[int], generator: torch.Generator
) -> DiscreteActionCritic | BoxActionCritic:
    """Build the action-value critic that fits the action space (as :func:`make_policy`)."""
    space = problem.action_space
    if isinstance(space, gym.spaces.Discrete):
        return DiscreteActionCritic([problem.obs_size, *hidden_sizes, int(space.n)], generator)
    return BoxActionCritic([problem.obs_size + space.shape[0], *hidden_sizes, 1], generator)


class Networks(nn.Module):
    """Separate networks that share no parameters; one that a run does not need is None."""

    def __init__(
        self,
        policy: CategoricalPolicy | GaussianPolicy,
        critic: Critic | None,
        action_critic: DiscreteActionCritic | BoxActionCritic | None,
    ):
        super().__init__()
        self.policy = policy
        self.critic = critic
        self.action_critic = action_critic
