"""What the networks of a run are: a policy, and critics of states or of actions.

Each takes observations, [..., D] for control, and is wrapped around what computes its numbers.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from rlrun.envs.problem import Problem
from rlrun.models.distributions import Categorical, DiagonalGaussian


class CategoricalPolicy(nn.Module):
    """π(a|s) over a discrete action space; observations [..., D] -> :class:`Categorical`."""

    def __init__(self, logits: nn.Module):
        """Wrap a network, observations -> logits [..., K]."""
        super().__init__()
        self.logits = logits

    def forward(self, obs: Tensor) -> Categorical:
        """Return the distribution at each observation."""
        return Categorical(self.logits(obs))


class GaussianPolicy(nn.Module):
    """π(a|s) over a box of actions; observations [..., D] -> :class:`DiagonalGaussian`.

    The standard deviation is a parameter of its own and does not depend on the state.
    """

    def __init__(self, mean: nn.Module, log_std: Tensor):
        """Wrap a network, observations -> means [..., A], and the first log σ, [A]."""
        super().__init__()
        self.mean = mean
        self.log_std = nn.Parameter(log_std)

    def forward(self, obs: Tensor) -> DiagonalGaussian:
        """Return the distribution at each observation."""
        return DiagonalGaussian(self.mean(obs), self.log_std)


class Critic(nn.Module):
    """V(s); observations [..., D] -> values [...]."""

    def __init__(self, value: nn.Module):
        """Wrap a network, observations -> [..., 1]."""
        super().__init__()
        self.value = value

    def forward(self, obs: Tensor) -> Tensor:
        """Return the value of each observation."""
        return self.value(obs).squeeze(-1)


class DiscreteActionCritic(nn.Module):
    """Q(s, a) of a finite number of actions, all in one pass."""

    def __init__(self, values: nn.Module):
        """Wrap a network, observations -> [..., K]."""
        super().__init__()
        self.values = values

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return Q(s, a) of observations [..., D] and actions [...], as [...]."""
        return self.values(obs).gather(-1, action.long().unsqueeze(-1)).squeeze(-1)


class BoxActionCritic(nn.Module):
    """Q(s, a) of a box of actions, which are an input beside the observation."""

    def __init__(self, value: nn.Module):
        """Wrap a network, observations and actions [..., D + A] -> [..., 1]."""
        super().__init__()
        self.value = value

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return Q(s, a) of observations [..., D] and actions [..., A], as [...]."""
        return self.value(torch.cat([obs, action], -1)).squeeze(-1)


Policy = CategoricalPolicy | GaussianPolicy
ActionCritic = DiscreteActionCritic | BoxActionCritic


class Model(Protocol):
    """What ``conf/model/*.yaml`` name: it builds networks that fit a problem."""

    def policy(self, problem: Problem, generator: torch.Generator) -> Policy:
        """Build π(a|s).

        Args:
            problem: gives the sizes of input and output.
            generator: source of the initial weights.
        """
        ...

    def critic(self, problem: Problem, generator: torch.Generator) -> Critic:
        """Build V(s) (as `policy`)."""
        ...

    def action_critic(self, problem: Problem, generator: torch.Generator) -> ActionCritic:
        """Build Q(s, a) (as `policy`)."""
        ...


class Networks(nn.Module):
    """Separate networks that share no parameters; one that a run does not need is None."""

    def __init__(self, policy: Policy, critic: Critic | None, action_critic: ActionCritic | None):
        """Hold them under their names."""
        super().__init__()
        self.policy = policy
        self.critic = critic
        self.action_critic = action_critic
