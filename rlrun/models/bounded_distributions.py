"""Distributions over a box of actions [low, high]: for methods whose critics see the action.

A critic is asked for actions that the environment can be given, so these are bounded before they
are recorded, where those of ``distributions.py`` are clipped by the environment.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class Box:
    """A box of actions.

    Attributes:
        low: [A], or [1] where all are alike.
        high: likewise.
    """

    low: Tensor
    high: Tensor

    @property
    def middle(self) -> Tensor:
        """(high + low) / 2."""
        return (self.high + self.low) / 2

    @property
    def scale(self) -> Tensor:
        """(high − low) / 2."""
        return (self.high - self.low) / 2

    def clip(self, action: Tensor) -> Tensor:
        """Return the nearest actions in the box, [..., A]."""
        return torch.minimum(torch.maximum(action, self.low), self.high)


@dataclass(frozen=True)
class SquashedGaussian:
    """a = middle + scale tanh(u) with u ~ N(μ, σ²), independent in A dimensions.

    Haarnoja et al. 2018, "Soft Actor-Critic", appendix C, with the box's scale.

    Attributes:
        mean: μ of u, [..., A].
        log_std: log σ of u, [..., A].
        box: of the actions.
    """

    mean: Tensor
    log_std: Tensor
    box: Box

    @property
    def parameters(self) -> Tensor:
        """μ and log σ, [..., 2A]."""
        return torch.cat([self.mean, self.log_std], -1)

    def with_parameters(self, parameters: Tensor) -> Self:
        """Return the distribution in this box that has other `parameters`."""
        mean, log_std = parameters.chunk(2, -1)
        return type(self)(mean, log_std, self.box)

    def of_noise(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions as a function of noise, and their log-densities.

        Gradients pass through both (the reparameterisation trick).

        Args:
            noise: ε ~ N(0, 1), [..., A].

        Returns:
            a [..., A] and log π(a|s) [...].
        """
        u = self.mean + self.log_std.exp() * noise
        normal = -0.5 * noise.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        log_prob = normal - self._log_slope(u)
        return self.box.middle + self.box.scale * u.tanh(), log_prob.sum(-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw actions, [..., A].

        Args:
            generator: source of the noise, on the CPU wherever the distribution is.
        """
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean.device)
        u = self.mean + self.log_std.exp() * noise
        return self.box.middle + self.box.scale * u.tanh()

    def mode(self) -> Tensor:
        """Return the action of the mean of u, [..., A]: the median, and no further from the bounds.

        The density itself is highest at the bounds where σ is large.
        """
        return self.box.middle + self.box.scale * self.mean.tanh()

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log π(a|s) of ``action`` [..., A] in the box, as [...]."""
        # The last float before ±1 keeps an action that was rounded to a bound finite.
        inside = 1 - torch.finfo(action.dtype).eps
        u = ((action - self.box.middle) / self.box.scale).clamp(-inside, inside).atanh()
        z = (u - self.mean) * torch.exp(-self.log_std)
        normal = -0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return (normal - self._log_slope(u)).sum(-1)

    def _log_slope(self, u: Tensor) -> Tensor:
        """Log da/du = log scale + log(1 − tanh² u), [..., A], without cancellation at large u."""
        # 1 − tanh² u = 4 e^(−2u) / (1 + e^(−2u))²
        return self.box.scale.log() + 2 * (math.log(2.0) - u - softplus(-2 * u))


@dataclass(frozen=True)
class Dirac:
    """One action, without a choice.

    Attributes:
        action: [..., A].
        box: of the actions.
    """

    action: Tensor
    box: Box

    def mode(self) -> Tensor:
        """Return the action, [..., A]."""
        return self.action


@dataclass(frozen=True)
class CensoredGaussian:
    """Normal noise around an action, of which what lies outside the box is set to its bound.

    Attributes:
        mean: [..., A].
        std: σ of the noise, [A].
        box: of the actions.
    """

    mean: Tensor
    std: Tensor
    box: Box

    @property
    def parameters(self) -> Tensor:
        """The mean, [..., A]; σ is the same for all."""
        return self.mean

    def with_parameters(self, parameters: Tensor) -> Self:
        """Return the distribution of this kind that has other `parameters`."""
        return type(self)(parameters, self.std, self.box)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log μ(a|s) of ``action`` [..., A], as [...].

        Inside the box a density; at a bound the probability of all that lies beyond it.
        """
        z = (action - self.mean) / self.std
        inside = -0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        beyond = torch.where(action >= self.box.high, -z, z)
        at_bound = (action <= self.box.low) | (action >= self.box.high)
        return torch.where(at_bound, torch.special.log_ndtr(beyond), inside).sum(-1)


@dataclass(frozen=True)
class UniformBox:
    """All actions of a box alike.

    Attributes:
        zeros: one for each action that is drawn, [...].
        box: of the actions.
    """

    zeros: Tensor
    box: Box

    @property
    def parameters(self) -> Tensor:
        """Nothing but the shape, [...]."""
        return self.zeros

    def with_parameters(self, parameters: Tensor) -> Self:
        """Return the distribution of another shape."""
        return type(self)(parameters, self.box)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw actions, [..., A]."""
        share = torch.rand((*self.zeros.shape, len(self.box.low)), generator=generator)
        return torch.lerp(self.box.low, self.box.high, share)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return −log volume, [...]."""
        return self.zeros - (self.box.high - self.box.low).log().sum()
