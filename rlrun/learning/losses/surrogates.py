"""Surrogate objectives of policies, and errors of critics, as pure functions of tensors."""

import torch
from torch import Tensor


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


def clipped_weight_surrogate(
    log_ratio: Tensor, advantage: Tensor, clip: float, clip_high: float
) -> Tensor:
    """REINFORCE, weighed with a bounded ratio, to be maximised (CISPO, MiniMax 2025, eq. 4).

    Args:
        log_ratio: log π_θ(a|s) − log π_old(a|s), [B].
        advantage: Â, [B].
        clip: ε, how far below 1 the weight may be; infinite: down to 0.
        clip_high: ε above 1.

    Returns:
        sg(clip(ρ, 1 − ε, 1 + ε_high)) Â log ρ, [B]. The gradient of log ρ is that of log π_θ.
    """
    weight = log_ratio.detach().exp().clamp(1 - clip, 1 + clip_high)
    return weight * advantage * log_ratio


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


# Largest logarithm of an episode's ratio that is passed on: hundreds of small changes may multiply
# to more than a float holds (verl bounds the logarithms of single tokens' ratios so).
LARGEST_LOG_RATIO = 20.0


def bounded(episode_log_ratio: Tensor) -> Tensor:
    """Return logarithms of whole episodes' ratios, [n], within what floats can multiply with."""
    return episode_log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)


def of_each_step(episode: Tensor, log_ratio: Tensor) -> Tensor:
    """Give each step the ratio of its whole episode, and the gradient of its own.

    ρ_it = sg(ρ_i) · exp(Δ_it − sg(Δ_it)), "GSPO-token" (Zheng et al. 2025, §4.3). With an
    advantage A that is the same in all steps of an episode, Σ_t ρ_it A has the gradient of ρ_i A
    for ρ_i = exp Σ_t Δ_it; but the advantage may also differ between steps.

    Args:
        episode: log ρ_i, [n].
        log_ratio: Δ = log π_θ(a|s) − log π_old(a|s), [T, n].

    Returns:
        log ρ_it, [T, n].
    """
    return episode.detach() + (log_ratio - log_ratio.detach())
