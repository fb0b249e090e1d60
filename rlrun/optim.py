"""The optimiser as a pure function of flat vectors.

``torch.optim`` keeps its state in objects and updates it in place, which keeps a whole PPO
update from being compiled as one function. Written as a function of vectors, gradient, clip and
step fuse into a few kernels, and several updates fit into one call.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class AdamState(NamedTuple):
    """What Adam remembers: first moment m [P], second moment v [P], steps taken t [] (float)."""

    m: Tensor
    v: Tensor
    t: Tensor

    @classmethod
    def zeros_like(cls, parameters: Tensor) -> "AdamState":
        """Start from zero moments for parameters [P]."""
        zero = torch.zeros((), dtype=parameters.dtype, device=parameters.device)
        return cls(torch.zeros_like(parameters), torch.zeros_like(parameters), zero)


def adam(
    parameters: Tensor,
    gradient: Tensor,
    state: AdamState,
    *,
    learning_rate: Tensor,
    epsilon: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
) -> tuple[Tensor, AdamState]:
    """Take one step of Adam (Kingma & Ba 2015, Algorithm 1).

    Args:
        parameters: θ [P].
        gradient: ∇L(θ) [P], to descend.
        state: the moments so far.
        learning_rate: α, a tensor [] so that a schedule does not recompile the caller.
        epsilon: ε, added to the root of the second moment.
        beta1: decay of the first moment.
        beta2: decay of the second moment.

    Returns:
        The new parameters and state; the arguments are left as they are.
    """
    t = state.t + 1
    m = torch.lerp(state.m, gradient, 1 - beta1)  # m ← β₁ m + (1 − β₁) g
    v = torch.lerp(state.v, gradient.square(), 1 - beta2)  # v ← β₂ v + (1 − β₂) g²
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return parameters - learning_rate * m_hat / (v_hat.sqrt() + epsilon), AdamState(m, v, t)


def clip_by_norm(gradient: Tensor, max_norm: float) -> Tensor:
    """Scale a gradient [P] so that its Euclidean norm is at most ``max_norm``."""
    norm = torch.linalg.vector_norm(gradient)
    return gradient * torch.clamp(max_norm / (norm + 1e-6), max=1.0)
