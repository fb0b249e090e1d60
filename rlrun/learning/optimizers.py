"""Optimisers as pure functions of flat vectors.

``torch.optim`` keeps its state in objects and updates it in place, which keeps a whole PPO
update from being compiled as one function. Written as a function of vectors, gradient, clip and
step fuse into a few kernels, and several updates fit into one call.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from rlrun.config.types import Decay, NonNegative, Positive, PositiveOrInfinite


class Optimizer(Protocol):
    """Settings of an optimiser, and its step.

    Attributes:
        max_grad_norm: largest Euclidean norm of a gradient.
    """

    @property
    def max_grad_norm(self) -> float: ...  # noqa: D102

    def rate(self, progress: float) -> float:
        """Return α when a share of the run's steps is done."""
        ...

    def start(self, parameters: Tensor) -> Any:
        """Return the state before the first step, a NamedTuple of tensors, for θ [P]."""
        ...

    def of_torch(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's own, which keeps its state in objects, for parameters of a module."""
        ...

    def step(
        self, parameters: Tensor, gradient: Tensor, state: Any, *, learning_rate: Tensor
    ) -> tuple[Tensor, Any]:
        """Descend a gradient [P]; return the new θ [P] and state, and leave the arguments.

        Args:
            parameters: θ [P].
            gradient: ∇L(θ) [P].
            state: what `start` or the last step returned.
            learning_rate: α, a tensor [] so that a schedule does not recompile the caller.
        """
        ...


class AdamState(NamedTuple):
    """What Adam remembers: first moment m [P], second moment v [P], steps taken t [] (float)."""

    m: Tensor
    v: Tensor
    t: Tensor


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma & Ba 2015, Algorithm 1), with decay AdamW (Loshchilov & Hutter 2019).

    Attributes:
        learning_rate: α at the start of the run.
        anneal_learning_rate: whether it falls linearly to zero over the run.
        epsilon: ε, added to the root of the second moment.
        max_grad_norm: largest Euclidean norm of a gradient; infinite: any.
        beta1: β₁, decay of the first moment.
        beta2: β₂, decay of the second moment.
        weight_decay: λ, by which θ shrinks in each step, α λ θ.
    """

    learning_rate: Positive
    anneal_learning_rate: bool
    epsilon: Positive
    max_grad_norm: PositiveOrInfinite
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    weight_decay: NonNegative = 0.0

    def rate(self, progress: float) -> float:
        """Return α when a share of the run's steps is done."""
        return self.learning_rate * (1.0 - progress if self.anneal_learning_rate else 1.0)

    def start(self, parameters: Tensor) -> AdamState:
        """Return zero moments for parameters [P]."""
        zero = torch.zeros((), dtype=parameters.dtype, device=parameters.device)
        return AdamState(torch.zeros_like(parameters), torch.zeros_like(parameters), zero)

    def of_torch(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's AdamW."""
        return torch.optim.AdamW(
            parameters,
            lr=self.learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            fused=True,
        )

    def step(
        self, parameters: Tensor, gradient: Tensor, state: AdamState, *, learning_rate: Tensor
    ) -> tuple[Tensor, AdamState]:
        """Take one step (see :class:`Optimizer`)."""
        t = state.t + 1
        m = torch.lerp(state.m, gradient, 1 - self.beta1)  # m ← β₁ m + (1 − β₁) g
        v = torch.lerp(state.v, gradient.square(), 1 - self.beta2)  # v ← β₂ v + (1 − β₂) g²
        m_hat = m / (1 - self.beta1**t)
        v_hat = v / (1 - self.beta2**t)
        if self.weight_decay:
            parameters = parameters - learning_rate * self.weight_decay * parameters
        return parameters - learning_rate * m_hat / (v_hat.sqrt() + self.epsilon), AdamState(
            m, v, t
        )


class RMSpropState(NamedTuple):
    """What RMSprop remembers: the mean square of the gradients v [P]."""

    v: Tensor


@dataclass(frozen=True, kw_only=True)
class RMSprop:
    """RMSprop (Tieleman & Hinton 2012, lecture 6e), as A2C uses it (Mnih et al. 2016, §4).

    Attributes:
        learning_rate: step size at the start of the run.
        anneal_learning_rate: whether it falls linearly to zero over the run.
        alpha: decay of the mean square.
        epsilon: ε, added to its root as torch does; Mnih et al. and TensorFlow add it to the mean
            square, inside of the root, where the same number means much more.
        max_grad_norm: largest Euclidean norm of a gradient; infinite: any.
    """

    learning_rate: Positive
    anneal_learning_rate: bool
    alpha: Decay
    epsilon: Positive
    max_grad_norm: PositiveOrInfinite

    def rate(self, progress: float) -> float:
        """Return the step size when a share of the run's steps is done."""
        return self.learning_rate * (1.0 - progress if self.anneal_learning_rate else 1.0)

    def start(self, parameters: Tensor) -> RMSpropState:
        """Return a zero mean square for parameters [P]."""
        return RMSpropState(torch.zeros_like(parameters))

    def of_torch(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's."""
        return torch.optim.RMSprop(
            parameters, lr=self.learning_rate, alpha=self.alpha, eps=self.epsilon
        )

    def step(
        self, parameters: Tensor, gradient: Tensor, state: RMSpropState, *, learning_rate: Tensor
    ) -> tuple[Tensor, RMSpropState]:
        """Take one step (see :class:`Optimizer`)."""
        v = torch.lerp(gradient.square(), state.v, self.alpha)  # v ← α v + (1 − α) g²
        return parameters - learning_rate * gradient / (v.sqrt() + self.epsilon), RMSpropState(v)


def clip_by_norm(gradient: Tensor, max_norm: float) -> Tensor:
    """Scale a gradient [P] so that its Euclidean norm is at most ``max_norm``."""
    if max_norm == math.inf:
        return gradient
    norm = torch.linalg.vector_norm(gradient)
    return gradient * torch.clamp(max_norm / (norm + 1e-6), max=1.0)
