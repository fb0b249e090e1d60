"""What tokens are drawn from, where that is not the policy in training.

An engine with kernels, precision or weights of its own draws from μ_engine, while the policy's own
code gives the same token log μ; and μ is not π where a temperature, top-k or top-p stands between
them. Taken for on-policy, such data bias every gradient; and the ratio π_θ/μ leaves the band of a
clipped surrogate before the first step, so that those tokens teach nothing. Truncated importance
sampling (TIS; Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL
Training"; Ionides 2008) weighs each token's term of the gradient with

    w = min(π_old / μ_engine, C),

where π_old is the policy that wrote, and the surrogate's ratio is π_θ/π_old, which is 1 at first.
Tokens that are never drawn (top-k, top-p) are missing with any weight.
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
    transitions: Transitions,
    policy: Any,
    sampling: Sampling,
    bound: float | None,
    *,
    other_engine: bool,
) -> Transitions:
    """Weigh tokens that were not drawn from the policy as it is.

    Args:
        transitions: whose `logp` is that of what was drawn from, as the engine says.
        policy: sequences -> the choices of the policy in training.
        sampling: how tokens are drawn.
        bound: C; None: nothing is weighed, and `logp` stays the engine's.
        other_engine: whether another program wrote, whose mismatch is to be measured.

    Raises:
        UserError: the engine's log-probabilities are none.
    """
    mask, said = transitions.mask, transitions.logp
    if not bool((said[mask].isfinite() & (said[mask] <= 1e-3)).all()):
        raise UserError("collector.engine: its log-probabilities are not finite numbers below 0")
    logits = policy(transitions.obs).logits
    token = transitions.action.to(logits.device).unsqueeze(-1)

    def of_token(log_probs: Tensor) -> Tensor:
        return torch.where(mask, log_probs.gather(-1, token).squeeze(-1).to(said.device), 0.0)

    metrics: dict[str, Tensor] = {}
    if other_engine:
        drawn = of_token(sampling.log_probs(logits))  # log μ
        difference = (drawn - said)[mask & drawn.isfinite()]
        metrics = {
            "engine/logp_difference": difference.abs().mean(),
            "engine/logp_difference_max": difference.abs().max(),
            # k3, of KL(μ_engine ‖ μ): the tokens were drawn from the engine.
            "engine/kl": (difference.exp() - 1 - difference).mean(),
        }
    if bound is None:
        return replace(transitions, metrics={**transitions.metrics, **metrics})
    own = of_token(logits.log_softmax(-1))  # log π_old
    ratio = torch.where(mask, (own - said).exp(), 1.0)
    metrics["engine/truncated_weights"] = (ratio > bound)[mask].float().mean()
    return replace(
        transitions,
        logp=own,
        importance=ratio.clamp(max=bound),
        metrics={**transitions.metrics, **metrics},
    )
