"""Multi-layer perceptrons: the model of small observations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import gymnasium as gym
import torch
from torch import nn

from rlrun.config.types import Count, Finite
from rlrun.envs.problem import Problem
from rlrun.models.networks import (
    ActionCritic,
    BoxActionCritic,
    CategoricalPolicy,
    Critic,
    DeterministicPolicy,
    DiscreteActionCritic,
    Dueling,
    GaussianPolicy,
    Policy,
    SquashedGaussianPolicy,
)
from rlrun.models.noisy import Noisy

Activation = Literal["tanh", "relu", "elu", "gelu", "silu"]
Initialization = Literal["orthogonal", "uniform"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class Linear(nn.Linear):
    """A layer whose weights are drawn by who makes it, and not from torch's own generator.

    ``nn.utils.skip_init`` imports a second's worth of torch's compiler.
    """

    def reset_parameters(self) -> None:
        """Leave them as they are."""


def orthogonal(linear: nn.Linear, gain: float, generator: torch.Generator) -> None:
    """Fill in orthogonal weights of a gain, and zero biases (Huang et al. 2022, core 2)."""
    nn.init.orthogonal_(linear.weight, gain, generator=generator)
    nn.init.zeros_(linear.bias)


def uniform(linear: nn.Linear, gain: float, generator: torch.Generator) -> None:
    """Fill in U(±1/√inputs), as torch does by itself; the gain counts for nothing."""
    bound = 1 / math.sqrt(linear.in_features)
    nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
    nn.init.uniform_(linear.bias, -bound, bound, generator=generator)


INITIALIZATIONS: dict[Initialization, Callable[[nn.Linear, float, torch.Generator], None]] = {
    "orthogonal": orthogonal,
    "uniform": uniform,
}


@dataclass(frozen=True, kw_only=True)
class MLP:
    """Settings; ``conf/model/mlp.yaml`` explains them."""

    hidden_sizes: list[Count]
    activation: Activation
    initialization: Initialization
    log_std: Finite

    def policy(self, problem: Problem, generator: torch.Generator) -> Policy:
        """Build π(a|s) for the action space (see :class:`~rlrun.models.networks.Model`)."""
        space = problem.action_space
        if isinstance(space, gym.spaces.Discrete):
            sizes = [problem.obs_size, *self.hidden_sizes, int(space.n)]
            return CategoricalPolicy(self._stack(sizes, 0.01, generator))
        sizes = [problem.obs_size, *self.hidden_sizes, space.shape[0]]
        log_std = torch.full((space.shape[0],), self.log_std)
        return GaussianPolicy(self._stack(sizes, 0.01, generator), log_std)

    def critic(self, problem: Problem, generator: torch.Generator) -> Critic:
        """Build V(s) (see :class:`~rlrun.models.networks.Model`)."""
        return Critic(self._stack([problem.obs_size, *self.hidden_sizes, 1], 1.0, generator))

    def action_critic(self, problem: Problem, generator: torch.Generator) -> ActionCritic:
        """Build Q(s, a) (see :class:`~rlrun.models.networks.Model`)."""
        space = problem.action_space
        if isinstance(space, gym.spaces.Discrete):
            sizes = [problem.obs_size, *self.hidden_sizes, int(space.n)]
            return DiscreteActionCritic(self._stack(sizes, 1.0, generator))
        sizes = [problem.obs_size + space.shape[0], *self.hidden_sizes, 1]
        return BoxActionCritic(self._stack(sizes, 1.0, generator))

    def squashed_policy(self, problem: Problem, generator: torch.Generator) -> Policy:
        """Build π(a|s) over a box (see :class:`~rlrun.models.networks.Model`)."""
        low, high = problem.bounds
        sizes = [problem.obs_size, *self.hidden_sizes, 2 * len(low)]
        return SquashedGaussianPolicy(self._stack(sizes, 0.01, generator), low, high)

    def deterministic_policy(self, problem: Problem, generator: torch.Generator) -> Policy:
        """Build μ(s) (see :class:`~rlrun.models.networks.Model`)."""
        low, high = problem.bounds
        sizes = [problem.obs_size, *self.hidden_sizes, len(low)]
        return DeterministicPolicy(self._stack(sizes, 0.01, generator), low, high)

    def action_values(
        self, problem: Problem, generator: torch.Generator, *, dueling: bool, sigma: float | None
    ) -> nn.Module:
        """Build Q(s, ·) (see :class:`~rlrun.models.networks.Model`)."""
        assert isinstance(problem.action_space, gym.spaces.Discrete)
        outputs = int(problem.action_space.n) + (1 if dueling else 0)
        values: nn.Module = self._stack(
            [problem.obs_size, *self.hidden_sizes, outputs], 1.0, generator
        )
        if sigma is not None:
            values = Noisy(values, sigma)
        return Dueling(values) if dueling else values

    def _stack(
        self, sizes: Sequence[int], output_gain: float, generator: torch.Generator
    ) -> nn.Sequential:
        """Put layers on each other.

        Args:
            sizes: widths from input to output, e.g. ``[11, 64, 64, 3]``.
            output_gain: gain of the last layer: 0.01 keeps a new policy near its mean, 1 is for
                values. The others have √2.
            generator: source of the initial weights.
        """
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            last = i == len(sizes) - 2
            linear = Linear(inputs, outputs)
            gain = output_gain if last else math.sqrt(2.0)
            INITIALIZATIONS[self.initialization](linear, gain, generator)
            layers += [linear] if last else [linear, ACTIVATIONS[self.activation]()]
        return nn.Sequential(*layers)
