"""Multi-layer perceptrons, the distributions that policies return, and flat parameter vectors.

A policy maps observations to a distribution; a distribution is a small dataclass of tensors, so
that it passes through ``torch.compile``, ``torch.func`` and devices like any other tensor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import gymnasium as gym
import torch
from torch import Tensor, nn

from rlrun.problem import Problem


def mlp(sizes: Sequence[int], *, output_gain: float, generator: torch.Generator) -> nn.Sequential:
    """Build a tanh network with orthogonal weights and zero biases.

    Hidden layers have gain √2 (Huang et al. 2022, "The 37 implementation details of PPO", core 2).

    Args:
        sizes: widths from input to output, e.g. ``[11, 64, 64, 3]``.
        output_gain: gain of the last layer: 0.01 keeps a new policy near its mean, 1 is for values.
        generator: source of the initial weights.
    """
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        linear = nn.Linear(fan_in, fan_out)
        gain = output_gain if last else math.sqrt(2.0)
        nn.init.orthogonal_(linear.weight, gain, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, nn.Tanh()]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Categorical:
    """A choice among K actions.

    Attributes:
        logits: unnormalised log-probabilities, [..., K].
    """

    logits: Tensor

    @property
    def parameters(self) -> Tensor:
        """All that the distribution is made of, as one tensor: the logits, [..., K]."""
        return self.logits

    def with_parameters(self, parameters: Tensor) -> Self:
        """Return the distribution of this kind that has other `parameters`."""
        return type(self)(parameters)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw actions, [...] (int64), by the Gumbel-max trick: argmax(logits + Gumbel noise).

        Args:
            generator: source of the noise, on the CPU wherever the distribution is.
        """
        uniform = torch.rand(self.logits.shape, generator=generator).clamp_min_(1e-20)
        return (self.logits - (-uniform.log()).log().to(self.logits.device)).argmax(-1)

    def mode(self) -> Tensor:
        """Return the most probable action, [...]."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log π(a|s) of ``action`` [...], as [...]."""
        log_probs = self.logits.log_softmax(-1)
        return log_probs.gather(-1, action.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return -Σ_a π(a|s) log π(a|s), [...]."""
        log_probs = self.logits.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1)

    def kl(self, other: Self) -> Tensor:
        """Return the exact KL(self ‖ other), [...]."""
        log_p, log_q = self.logits.log_softmax(-1), other.logits.log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normal distributions over A action dimensions.

    Attributes:
        mean: [..., A].
        log_std: natural logarithm of the standard deviation, broadcastable to ``mean``.
    """

    mean: Tensor
    log_std: Tensor

    @property
    def parameters(self) -> Tensor:
        """All that the distribution is made of, as one tensor: mean and log σ, [..., 2A]."""
        return torch.cat([self.mean, self.log_std.expand_as(self.mean)], -1)

    def with_parameters(self, parameters: Tensor) -> Self:
        """Return the distribution of this kind that has other `parameters`."""
        return type(self)(*parameters.chunk(2, -1))

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw actions, [..., A]: mean + σ ε with ε ~ N(0, 1).

        Args:
            generator: source of the noise, on the CPU wherever the distribution is.
        """
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean.device)
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def mode(self) -> Tensor:
        """Return the mean, which is the most probable action, [..., A]."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log π(a|s) of ``action`` [..., A], as [...]."""
        # Σ_j −½ z_j² − log σ_j − ½ log 2π,  z = (a − μ) / σ
        z = (action - self.mean) * torch.exp(-self.log_std)
        log_std = self.log_std.expand_as(self.mean)
        return (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Return Σ_j log σ_j + ½ log 2πe, [...]."""
        return (self.log_std.expand_as(self.mean) + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl(self, other: Self) -> Tensor:
        """Return the exact KL(self ‖ other), [...]."""
        # Σ_j log σ₂/σ₁ + (σ₁² + (μ₁ − μ₂)²) / 2σ₂² − ½
        variance_ratio = torch.exp(2 * (self.log_std - other.log_std))
        z = (self.mean - other.mean) * torch.exp(-other.log_std)
        log_ratio = other.log_std - self.log_std
        return (log_ratio + 0.5 * (variance_ratio + z.square() - 1)).sum(-1)


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


class FlatParameters:
    """One vector θ [P] whose slices are a module's parameters.

    An optimiser step on a network of many small tensors is dominated by the cost of calling
    kernels; on one vector it is a handful of them. Functional methods (gradients of pure
    functions, Fisher-vector products) want a single vector too.

    Attributes:
        vector: θ. The module's parameters are views of it: writing here moves the module.
    """

    def __init__(self, module: nn.Module):
        named = list(module.named_parameters())
        self.names = [name for name, _ in named]
        self.shapes = [parameter.shape for _, parameter in named]
        self.sizes = [parameter.numel() for _, parameter in named]
        self.vector = torch.cat([parameter.detach().flatten() for _, parameter in named])
        for (_, parameter), view in zip(named, self.unflatten(self.vector).values(), strict=True):
            parameter.data = view
            parameter.requires_grad_(False)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """View a vector [P] as named parameters, for ``torch.func.functional_call``."""
        slices = vector.split(self.sizes)
        return {
            name: piece.view(shape)
            for name, piece, shape in zip(self.names, slices, self.shapes, strict=True)
        }
