"""The distributions that policies return: small dataclasses of tensors.

They pass through ``torch.compile``, ``torch.func`` and devices like any other tensor.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rlrun.models.language.token_distributions import TokenCategorical


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

    def kl_from(self, parameters: Tensor) -> Tensor:
        """Return the exact KL(p ‖ self), [...], of the p of this kind that has these parameters."""
        return self.with_parameters(parameters).kl(self)


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

    def kl_from(self, parameters: Tensor) -> Tensor:
        """Return the exact KL(p ‖ self), [...], of the p of this kind that has these parameters."""
        return self.with_parameters(parameters).kl(self)


@dataclass(frozen=True)
class ActionValues:
    """The best of K actions, which leaves nothing to chance.

    Attributes:
        values: Q(s, ·), [..., K].
    """

    values: Tensor

    def mode(self) -> Tensor:
        """Return the action with the largest value, [...]."""
        return self.values.argmax(-1)


Distribution = Categorical | DiagonalGaussian | TokenCategorical
