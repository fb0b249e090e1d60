"""Surrogate objectives and the quantities logged with them, as pure functions of tensors."""

import torch
from torch import Tensor


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's pessimistic objective, to be maximised (Schulman et al. 2017, eq. 7).

    Args:
        log_ratio: log π_θ(a|s) − log π_old(a|s), [B].
        advantage: Â, [B].
        clip: ε, half the width of the band around ratio 1.

    Returns:
        min(ρ Â, clip(ρ, 1 − ε, 1 + ε) Â), [B].
    """
    ratio = log_ratio.exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def squared_value_error(value: Tensor, target: Tensor) -> Tensor:
    """Return ½ (V(s) − target)², [B]."""
    return 0.5 * (value - target).square()


def clipped_value_error(value: Tensor, old_value: Tensor, target: Tensor, clip: float) -> Tensor:
    """PPO's value clipping: the larger of the errors with and without a bounded change of V.

    Args:
        value: V_θ(s), [B].
        old_value: V at the time of collection, [B].
        target: value target, [B].
        clip: the largest change of V that is rewarded.

    Returns:
        ½ max((V − target)², (V_old + clip(V − V_old, ±clip) − target)²), [B]; baselines' ppo2.
        Andrychowicz et al. 2021 found it to hurt.
    """
    bounded = old_value + (value - old_value).clamp(-clip, clip)
    return torch.maximum(squared_value_error(value, target), squared_value_error(bounded, target))


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Estimate KL(π_old ‖ π_θ) from samples of π_old: mean of (ρ − 1) − log ρ, [].

    Unbiased and never negative (Schulman 2020, "Approximating KL divergence", k3).
    """
    return (torch.expm1(log_ratio) - log_ratio).mean()


def clip_fraction(log_ratio: Tensor, clip: float) -> Tensor:
    """Return the share of ratios outside [1 − ε, 1 + ε], []."""
    return (torch.expm1(log_ratio).abs() > clip).float().mean()


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Return 1 − Var(target − V) / Var(target), []: 1 is a perfect critic, 0 a constant one."""
    error, total = (target - value).var(correction=0), target.var(correction=0)
    return 1 - error / total.clamp_min(1e-12)
