"""What another engine says of its tokens, and what the policy in training says of them.

An engine with kernels, precision or weights of its own draws from μ_engine, while the policy's own
code gives the same token log μ. Taken for on-policy, such data bias every gradient. Truncated
importance sampling (TIS; Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You
Off-Policy RL Training"; Ionides 2008) weighs each token's term of the gradient with

    w = min(μ / μ_engine, C),

and the surrogate's ratio is π_θ/μ, which is 1 at first.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlrun.collectors.sampling import Sampling
from rlrun.data.rollout import Transitions
from rlrun.errors import UserError


@torch.no_grad()
def corrected(
    transitions: Transitions, policy: Any, sampling: Sampling, bound: float | None
) -> Transitions:
    """Measure the mismatch, and weigh what was written by another engine.

    Args:
        transitions: whose `logp` is the engine's.
        policy: sequences -> the choices of the policy in training.
        sampling: how tokens are drawn.
        bound: C; None: nothing is weighed, and `logp` stays the engine's.

    Raises:
        UserError: the engine's log-probabilities are none.
    """
    mask, said = transitions.mask, transitions.logp
    if not bool((said[mask].isfinite() & (said[mask] <= 1e-3)).all()):
        raise UserError("collector.engine: its log-probabilities are not finite numbers below 0")
    log_probs = sampling.log_probs(policy(transitions.obs).logits)
    own = log_probs.gather(-1, transitions.action.to(log_probs.device).unsqueeze(-1))
    own = torch.where(mask, own.squeeze(-1).to(said.device), 0.0)
    difference = (own - said)[mask & own.isfinite()]
    metrics: dict[str, Tensor] = {
        "engine/logp_difference": difference.abs().mean(),
        "engine/logp_difference_max": difference.abs().max(),
        # k3, of KL(μ_engine ‖ μ): the tokens were drawn from the engine.
        "engine/kl": (difference.exp() - 1 - difference).mean(),
    }
    if bound is None:
        return replace(transitions, metrics={**transitions.metrics, **metrics})
    # Where the policy does not draw the token at all, its weight is 0, and its ratio is left at 1.
    weight = torch.where(mask, (own - said).exp().clamp(max=bound), 1.0)
    metrics["engine/truncated_weights"] = (difference.exp() > bound).float().mean()
    logp = torch.where(own.isfinite(), own, said)
    return replace(
        transitions,
        logp=logp,
        importance=weight,
        metrics={**transitions.metrics, **metrics},
    )
