"""Surrogate objectives and the quantities logged with them, as pure functions of tensors."""

import torch
from torch import Tensor

from rlrun.rollout import Rollout

# PPO's clip (Schulman et al. 2017), for the logs of algorithms that do not clip.
USUAL_CLIP = 0.2


def clipped_surrogate(
    log_ratio: Tensor, advantage: Tensor, clip: float, clip_high: float | None = None
) -> Tensor:
    """PPO's pessimistic objective, to be maximised (Schulman et al. 2017, eq. 7).

    Args:
        log_ratio: log π_θ(a|s) − log π_old(a|s), [B].
        advantage: Â, [B].
        clip: ε, half the width of the band around ratio 1.
        clip_high: ε above 1, where it differs from that below (Yu et al. 2025, "clip-higher").

    Returns:
        min(ρ Â, clip(ρ, 1 − ε, 1 + ε) Â), [B].
    """
    ratio = log_ratio.exp()
    high = clip if clip_high is None else clip_high
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + high) * advantage)


def standardize(advantage: Tensor) -> Tensor:
    """Bring a minibatch's advantages to mean 0 and standard deviation 1 (that of a sample), [B].

    One alone becomes 0.
    """
    freedom = min(1, len(advantage) - 1)  # what torch subtracts from B; B − 1 must not be 0
    return (advantage - advantage.mean()) / (advantage.std(correction=freedom) + 1e-8)


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


def k1(log_ratio: Tensor) -> Tensor:
    """Return log π − log π_ref of samples of π, [...].

    As a value: unbiased for KL(π ‖ π_ref). This and the next two: Schulman 2020, "Approximating KL
    divergence"; what they do to a policy is said in ``reference_penalty.py``.

    Args:
        log_ratio: log π(a|s) − log π_ref(a|s), [...].
    """
    return log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """Return ½ (log π − log π_ref)² of samples of π, [...]: biased, of low variance."""
    return 0.5 * log_ratio.square()


def k3(log_ratio: Tensor) -> Tensor:
    """Return π_ref/π − 1 − log π_ref/π of samples of π, [...]: unbiased, never negative."""
    return torch.expm1(-log_ratio) + log_ratio


def ratio_metrics(
    log_ratio: Tensor, clip: float, clip_high: float | None = None
) -> dict[str, Tensor]:
    """Say how far the policy has moved from the one that sampled the data, for the logs.

    Args:
        log_ratio: log ρ = log π_θ(a|s) − log π_old(a|s), [B].
        clip: ε of the band around ratio 1.
        clip_high: ε above 1, where it differs from that below.

    Returns:
        Mean and maximum of ρ, the share outside [1 − ε, 1 + ε], and the effective sample size
        (Σρ)² / (B Σρ²), a share too: of B rows, so many would estimate as well without weights.
        Of these rows: an algorithm logs the mean over its minibatches of all epochs, the first of
        which have equal weights; the whole rollout under the last policy mostly has less.
    """
    ratio, change = log_ratio.exp(), torch.expm1(log_ratio)
    outside = (change < -clip) | (change > (clip if clip_high is None else clip_high))
    return {
        "policy/ratio_mean": ratio.mean(),
        "policy/ratio_max": ratio.max(),
        "policy/clip_fraction": outside.float().mean(),
        "policy/effective_sample_size": ratio.mean().square() / ratio.square().mean(),
    }


def explained_variance(rollout: Rollout, target: Tensor) -> dict[str, Tensor]:
    """Say how good the rollout's critic is, for the logs.

    Returns:
        1 − Var(target − V) / Var(target) over the rows that count: 1 is a perfect critic, 0 a
        constant one. Nothing, if there is no critic V.
    """
    if rollout.value is None:
        return {}
    value, target = rollout.value[rollout.mask], target[rollout.mask]
    error, total = (target - value).var(correction=0), target.var(correction=0)
    return {"value/explained_variance": 1 - error / total.clamp_min(1e-12)}
