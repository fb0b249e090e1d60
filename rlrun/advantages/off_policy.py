"""Estimators that correct for actions which another policy μ sampled."""

import torch
from torch import Tensor

from rlrun.advantages.columns import column
from rlrun.advantages.temporal import td_errors
from rlrun.config.types import PositiveOrInfinite
from rlrun.data.discounting import discounted_sums
from rlrun.data.rollout import Rollout


def vtrace(
    rollout: Rollout, *, gamma: float, rho_bar: PositiveOrInfinite, c_bar: float
) -> tuple[Tensor, Tensor]:
    """V-trace (IMPALA, Espeholt et al. 2018, eq. 1 and §4.2).

    With ratios of the policy π to the behaviour policy μ, cut off at two thresholds,
    ρ_t = min(ρ̄, π(a_t|s_t)/μ(a_t|s_t)) and c_t = min(c̄, π(a_t|s_t)/μ(a_t|s_t)):

        v_t − V(s_t) = ρ_t δ_t + γ c_t (1 − done_t) (v_{t+1} − V(s_{t+1}))
        Â_t = ρ_t (r_t + γ (1 − terminated_t) v_{t+1} − V(s_t))

    where v_{t+1} is V(s_{t+1}) behind a truncation and the end of the rollout. ρ̄ decides the policy
    that V is fitted to, π for ρ̄ = ∞, and c̄ how fast. With μ = π and thresholds of 1 or more, v_t is
    the λ = 1 return and Â_t that of ``baseline_value``. Â_t has its weight ρ_t already: it is for
    surrogates of the score ∇ log π. One with a ratio of its own would weigh twice once the policy
    has moved, and refuses it if Ψ is recomputed then. No algorithm here learns from the data of
    another policy: μ = π wherever it is asked.

    Args:
        rollout: rewards, values, episode ends and log-probabilities under both policies, [T, N].
        gamma: discount γ of the return.
        rho_bar: ρ̄, largest weight of a TD error, above 0.
        c_bar: c̄, largest weight of a trace, in [0, ρ̄].

    Returns:
        Advantage Â_t and value target v_t, each [T, N].

    Raises:
        ValueError: c̄ is out of range.
    """
    if not 0 <= c_bar <= rho_bar:
        raise ValueError(f"c_bar must be in [0, {rho_bar}], got {c_bar}")
    ratio = (column(rollout, "policy_logp") - rollout.logp).exp()
    rho, c = ratio.clamp(max=rho_bar), ratio.clamp(max=c_bar)
    delta = td_errors(rollout, gamma)
    goes_on = gamma * (~rollout.done).to(delta.dtype)
    correction = discounted_sums(rho * delta, c * goes_on)  # v_t − V(s_t)
    following = torch.cat([correction[1:], torch.zeros_like(correction[:1])])
    return rho * (delta + goes_on * following), column(rollout, "value") + correction
