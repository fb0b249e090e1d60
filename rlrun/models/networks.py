"""What the networks of a run are: a policy, and critics of states or of actions.

Each takes observations, [..., D] for control, and is wrapped around what computes its numbers.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from rlrun.envs.problem import Problem
from rlrun.models.bounded_distributions import Box, Dirac, SquashedGaussian
from rlrun.models.distributions import ActionValues, Categorical, DiagonalGaussian
from rlrun.models.ensemble import Ensemble
from rlrun.models.language.networks import TokenCritic, TokenPolicy


class CategoricalPolicy(nn.Module):
    """π(a|s) over a discrete action space; observations [..., D] -> :class:`Categorical`."""

    def __init__(self, logits: nn.Module):
        """Wrap a network, observations -> logits [..., K]."""
        super().__init__()
        self.logits = logits

    def forward(self, obs: Tensor, *noise: Tensor) -> Categorical:
        """Return the distribution at each observation; noisy logits take noise besides."""
        return Categorical(self.logits(obs, *noise))


class GreedyPolicy(nn.Module):
    """The best action by Q(s, ·); observations [..., D] -> :class:`ActionValues`."""

    def __init__(self, values: nn.Module):
        """Wrap a network or table, observations -> Q(s, ·), [..., K]."""
        super().__init__()
        self.logits = values  # as checkpoints call it

    def forward(self, obs: Tensor, *noise: Tensor) -> ActionValues:
        """Return the values at each observation; a noisy network takes noise besides."""
        return ActionValues(self.logits(obs, *noise))


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


class BoundedPolicy(nn.Module):
    """A policy whose actions are in a box.

    Attributes:
        low: of the box, A numbers.
        high: likewise.
    """

    def __init__(self, low: Tensor, high: Tensor):
        """Keep the bounds of the box, [A] each."""
        super().__init__()
        self.low, self.high = low.tolist(), high.tolist()

    def box(self, obs: Tensor) -> Box:
        """Return the box where observations are, as numbers: compiled code has no other tensors."""
        return Box(as_tensor(self.low, obs), as_tensor(self.high, obs))


class SquashedGaussianPolicy(BoundedPolicy):
    """π(a|s) over a box of actions; observations [..., D] -> :class:`SquashedGaussian`.

    Mean and standard deviation both depend on the state. log σ is clipped to [−20, 2], as in the
    authors' code (Haarnoja et al. 2018).
    """

    least_log_std, largest_log_std = -20.0, 2.0

    def __init__(self, parameters_of: nn.Module, low: Tensor, high: Tensor):
        """Wrap a network, observations -> μ and log σ, [..., 2A], and the bounds, [A]."""
        super().__init__(low, high)
        self.parameters_of = parameters_of

    def forward(self, obs: Tensor) -> SquashedGaussian:
        """Return the distribution at each observation."""
        mean, log_std = self.parameters_of(obs).chunk(2, -1)
        log_std = log_std.clamp(self.least_log_std, self.largest_log_std)
        return SquashedGaussian(mean, log_std, self.box(obs))


class DeterministicPolicy(BoundedPolicy):
    """μ(s) in a box of actions; observations [..., D] -> :class:`Dirac`."""

    def __init__(self, action: nn.Module, low: Tensor, high: Tensor):
        """Wrap a network, observations -> [..., A], and the bounds, [A]."""
        super().__init__(low, high)
        self.action = action

    def forward(self, obs: Tensor) -> Dirac:
        """Return the action at each observation."""
        box = self.box(obs)
        return Dirac(box.middle + box.scale * self.action(obs).tanh(), box)


def as_tensor(numbers: Sequence[float], like: Tensor) -> Tensor:
    """Return A numbers as a tensor that broadcasts to [A], of the kind of another one."""
    if len(set(numbers)) == 1:
        return like.new_full((1,), numbers[0])
    return torch.stack([like.new_full((), number) for number in numbers])


class Dueling(nn.Module):
    """Q(s, a) = V(s) + A(s, a) − mean_a A(s, a) (Wang et al. 2016, eq. 9)."""

    def __init__(self, streams: nn.Module):
        """Wrap a network, observations -> V and A, [..., 1 + K]."""
        super().__init__()
        self.streams = streams

    def forward(self, obs: Tensor, *noise: Tensor) -> Tensor:
        """Return Q(s, ·) of observations [..., D], as [..., K]."""
        value, advantage = self.streams(obs, *noise).tensor_split([1], -1)
        return value + advantage - advantage.mean(-1, keepdim=True)


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


Policy = (
    CategoricalPolicy
    | GreedyPolicy
    | GaussianPolicy
    | SquashedGaussianPolicy
    | DeterministicPolicy
    | TokenPolicy
)
StateCritic = Critic | TokenCritic
ActionCritic = DiscreteActionCritic | BoxActionCritic | Ensemble


class Model(Protocol):
    """What ``conf/model/*.yaml`` name: it builds networks that fit a problem."""

    def policy(self, problem: Problem, generator: torch.Generator) -> Policy:
        """Build π(a|s).

        Args:
            problem: gives the sizes of input and output.
            generator: source of the initial weights.
        """
        ...

    def critic(self, problem: Problem, generator: torch.Generator) -> StateCritic:
        """Build V(s) (as `policy`)."""
        ...

    def action_critic(self, problem: Problem, generator: torch.Generator) -> ActionCritic:
        """Build Q(s, a) (as `policy`)."""
        ...

    def squashed_policy(self, problem: Problem, generator: torch.Generator) -> Policy:
        """Build π(a|s) over a box of actions, with a σ that depends on the state (as `policy`)."""
        ...

    def deterministic_policy(self, problem: Problem, generator: torch.Generator) -> Policy:
        """Build μ(s) in a box of actions (as `policy`)."""
        ...

    def action_values(
        self, problem: Problem, generator: torch.Generator, *, dueling: bool, sigma: float | None
    ) -> nn.Module:
        """Build Q(s, ·), observations [..., D] -> [..., K], of a finite number of actions.

        Args:
            problem: gives the sizes of input and output.
            generator: source of the initial weights.
            dueling: whether it is made of V(s) and A(s, ·) (see :class:`Dueling`).
            sigma: how noisy the weights are at first (see :class:`~rlrun.models.noisy.Noisy`), so
                that the network takes noise as a second input; None: they are not.
        """
        ...


class Networks(nn.Module):
    """Separate networks that share no parameters; one that a run does not need is None."""

    def __init__(
        self, policy: Policy, critic: StateCritic | None, action_critic: ActionCritic | None
    ):
        """Hold them under their names."""
        super().__init__()
        self.policy = policy
        self.critic = critic
        self.action_critic = action_critic
