"""Steps of bounded KL divergence: natural gradient, conjugate gradient, backtracking line search.

The natural gradient F⁻¹ g is the direction of steepest ascent when a step's length is the change of
the distribution instead of that of its parameters (Kakade 2001, "A Natural Policy Gradient"). F is
the Fisher matrix, which is the Hessian of the mean KL divergence. It is never built: conjugate
gradient needs its products with vectors alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeVar

import torch
from annotated_types import Interval
from torch import Tensor
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.func import functional_call

from rlrun.config.types import Count, NonNegative, Positive
from rlrun.errors import UserError
from rlrun.hardware.compilable import Compilable
from rlrun.learning.metrics import USUAL_CLIP, ratio_metrics
from rlrun.models.distributions import Categorical, DiagonalGaussian
from rlrun.models.flat_parameters import FlatParameters
from rlrun.models.language.networks import TokenPolicy
from rlrun.models.networks import Policy

Distribution = TypeVar("Distribution", Categorical, DiagonalGaussian)


def fisher_vector_product(
    distribution_at: Callable[[Tensor], Distribution],
    theta: Tensor,
    vector: Tensor,
) -> Tensor:
    """Return F v, [P].

    Args:
        distribution_at: θ [P] -> the policy's distributions at B states.
        theta: θ, where F is taken, [P].
        vector: v, [P].
    """
    # The KL divergence and its slope are 0 at θ, so that its Hessian is F = Jᵀ H J: J is the
    # Jacobian of the distributions' parameters, H the Hessian with respect to these.
    # Not torch.func's grad and vjp, nor grad_outputs: they import torch's compiler or SymPy, which
    # takes seconds. H is symmetric, so that the gradient of the product of slope and J v is H J v.
    with torch.enable_grad(), dual_level():
        theta = theta.detach().requires_grad_()
        distribution = distribution_at(make_dual(theta, vector))
        parameters, moved = unpack_dual(distribution.parameters)  # moved: J v
        here = distribution.with_parameters(parameters.detach())
        there = parameters.detach().requires_grad_()
        mean_kl = here.kl(here.with_parameters(there)).mean()
        (slope,) = torch.autograd.grad(mean_kl, there, create_graph=True)
        (curved,) = torch.autograd.grad((slope * moved.detach()).sum(), there)  # H J v
        return torch.autograd.grad((parameters * curved).sum(), theta)[0]


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, *, iterations: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Solve A x = b for a symmetric positive definite A (Hestenes & Stiefel 1952).

    Args:
        product: v -> A v.
        b: [P].
        iterations: at most so many products.
        tolerance: it stops once ‖b − A x‖² is no larger.

    Returns:
        x and the residual b − A x, each [P].
    """
    x, residual, direction = torch.zeros_like(b), b, b
    square = residual @ residual
    for _ in range(iterations):
        if square <= tolerance:
            break
        image = product(direction)
        length = square / (direction @ image)
        x = x + length * direction
        residual = residual - length * image
        previous, square = square, residual @ residual
        direction = residual + square / previous * direction
    return x, residual


class TrustRegionBatch(NamedTuple):
    """What the policy did: observations [B, D], actions [B] or [B, A], advantages [B]."""

    obs: Tensor
    action: Tensor
    advantage: Tensor


@dataclass(frozen=True, kw_only=True)
class TrustRegion:
    """Settings of a step.

    Attributes:
        max_kl: δ, the largest mean KL(π_old ‖ π_θ) of a step.
        damping: multiple of the identity that is added to F.
        cg_iterations: products of the conjugate gradient method.
        cg_tolerance: square of the residual at which it stops earlier.
        line_search_steps: lengths that are tried.
        line_search_shrink: factor from one length to the next.
    """

    max_kl: Positive
    damping: NonNegative
    cg_iterations: Count
    cg_tolerance: NonNegative
    line_search_steps: Count
    line_search_shrink: Annotated[float, Interval(gt=0, le=1)]


class TrustRegionStep:
    """Improves a policy as far as the mean KL divergence from where it stands allows.

    The step is √(2δ / xᵀ F x) x with F x = g, shortened until the surrogate has improved and the
    KL is at most δ; if no length will do, the policy stays exactly where it is.

    Attributes:
        parameters: θ.
        functions: what there is to compile: gradient, Fisher-vector product, trial of a length.
    """

    def __init__(self, policy: Policy, settings: TrustRegion):
        """Make the policy's parameters views of one vector.

        Args:
            policy: what is to be improved.
            settings: of the step.

        Raises:
            UserError: the policy reads sequences of tokens.
        """
        if isinstance(policy, TokenPolicy):
            raise UserError(
                "trpo takes derivatives of derivatives, which a transformer has not: algo=ppo"
            )
        self.policy = policy
        self.parameters = FlatParameters(policy)
        self.settings = settings
        self.gradient = Compilable(self._gradient)
        self.product = Compilable(self._product)
        self.trial = Compilable(self._trial)
        self.functions: Sequence[Compilable] = (self.gradient, self.product, self.trial)

    def expect(self, batch: TrustRegionBatch, *, rate: float) -> None:
        """Say what it will be given, for the case that the run is compiled.

        Args:
            batch: those of other sizes are worked on in Python.
            rate: steps for each environment step, on average.
        """
        theta = self.parameters.vector
        self.gradient.expect(theta, batch, rate=rate)
        self.product.expect(theta, theta, batch, rate=rate * self.settings.cg_iterations)
        self.trial.expect(theta, theta, batch, rate=rate)  # mostly, the first length will do

    @property
    def is_compiled(self) -> bool:
        """Whether the pieces run without Python."""
        return any(function.is_compiled for function in self.functions)

    @torch.no_grad()
    def take(self, batch: TrustRegionBatch) -> dict[str, Tensor]:
        """Move the policy by one step; return what to log, each [].

        Args:
            batch: all that the present policy did in an iteration.
        """
        old = self.parameters.vector.clone()

        def product(vector: Tensor) -> Tensor:
            return self.product(old, vector, batch)

        g = self.gradient(old, batch)
        x, residual = conjugate_gradient(
            product, g, iterations=self.settings.cg_iterations, tolerance=self.settings.cg_tolerance
        )
        # ½ sᵀ F s = δ: the second order of the KL at the end of the step s. F x = g − residual.
        step = torch.sqrt(2 * self.settings.max_kl / (x @ (g - residual))) * x
        for tried in range(1, self.settings.line_search_steps + 1):
            candidate = old + self.settings.line_search_shrink ** (tried - 1) * step
            metrics = self.trial(candidate, old, batch)
            accepted = bool(
                (metrics["policy/improvement"] > 0) & (metrics["policy/kl"] <= self.settings.max_kl)
            )
            if accepted:
                self.parameters.vector.copy_(candidate)
                break
        else:
            metrics = self.trial(old, old, batch)
        return {
            **metrics,
            "policy/line_search_steps": old.new_tensor(tried),
            "policy/line_search_accepted": old.new_tensor(accepted),
            "policy/cg_residual": torch.linalg.vector_norm(residual),
        }

    def _distribution_at(self, theta: Tensor, batch: TrustRegionBatch) -> Any:
        """Return π_θ(·|s) at the batch's states."""
        return functional_call(self.policy, self.parameters.unflatten(theta), (batch.obs,))

    def _gradient(self, theta: Tensor, batch: TrustRegionBatch) -> Tensor:
        """Return g = ∇E[ρ Â] where ρ = 1, which is E[Â ∇log π(a|s)], [P]."""
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            log_prob = self._distribution_at(theta, batch).log_prob(batch.action)
            surrogate = (batch.advantage * log_prob).mean()
            return torch.autograd.grad(surrogate, theta)[0]

    def _product(self, theta: Tensor, vector: Tensor, batch: TrustRegionBatch) -> Tensor:
        """Return (F + damping·I) v, [P]."""
        product = fisher_vector_product(
            lambda theta: self._distribution_at(theta, batch), theta, vector
        )
        return product + self.settings.damping * vector

    def _trial(
        self, candidate: Tensor, theta: Tensor, batch: TrustRegionBatch
    ) -> dict[str, Tensor]:
        """Say what moving from θ [P] to a candidate [P] would do, each []."""
        new, old = (self._distribution_at(at, batch) for at in (candidate, theta))
        log_ratio = new.log_prob(batch.action) - old.log_prob(batch.action)  # log ρ
        return {
            "policy/improvement": (torch.expm1(log_ratio) * batch.advantage).mean(),
            "policy/kl": old.kl(new).mean(),
            "policy/entropy": new.entropy().mean(),
            **ratio_metrics(log_ratio, USUAL_CLIP),
        }

    def state_dict(self) -> dict:
        """Return nothing: a step depends on the weights alone, which are the network's."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Go on from there."""
