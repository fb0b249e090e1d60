"""Estimators that compare the episodes of a group: K of them from one start.

R_i is the return of episode i, discounted from its first step and, without a value to go on with,
ended by the time limit; what R_i gives is the same for all steps of the episode. The value target
of each estimator is the reward-to-go G_t: a critic V that an algorithm has anyway is fitted to
that.
"""

from typing import Literal

import torch
from torch import Tensor

from rlrun.advantages.columns import groups
from rlrun.advantages.episodes import discounted_returns
from rlrun.config.types import NonNegative
from rlrun.data.rollout import Rollout


def same_group(rollout: Rollout) -> Tensor:
    """Return 1 where two episodes are of one group, else 0, [N, N].

    Raises:
        ValueError: the rollout is not made of groups.
    """
    group = groups(rollout)
    return (group[:, None] == group).to(rollout.reward.dtype)


def summed_differences(returns: Tensor, same: Tensor) -> Tensor:
    """Return Σ_j (R_i − R_j) = K (R_i − R̄) over the group of i, [N].

    Exactly zero where all members are equal, which R_i minus a rounded mean is not: grpo would
    divide that by a spread which is rounding too.
    """
    return (same * (returns[:, None] - returns)).sum(1)


def rloo(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Return minus the mean return of the group's other members (Kool et al. 2019).

    Ψ_i = R_i − Σ_{j≠i} R_j / (K − 1) = K/(K − 1) (R_i − R̄), unbiased (Ahmadian et al. 2024).

    Args:
        rollout: rewards and ends of whole episodes in groups, [T, N].
        gamma: discount γ of the return.

    Returns:
        Advantage and value target G_t, each [T, N].

    Raises:
        ValueError: the rollout is not made of groups.
    """
    same, returns = same_group(rollout), discounted_returns(rollout, gamma)
    advantage = summed_differences(returns[0], same) / (same.sum(1) - 1)
    return advantage.repeat(len(returns), 1), returns


def dr_grpo(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Return minus the group's mean, Ψ_i = R_i − R̄ (Dr. GRPO, Liu et al. 2025).

    The mean has the own return in it, which makes the expected gradient (K − 1)/K of the true one.

    The paper's algorithm is this estimator and a constant in place of the episode's length in the
    loss: ``algo=grpo advantage=dr_grpo algo.aggregation=episode_mean_step_norm``.

    Args:
        rollout: rewards and ends of whole episodes in groups, [T, N].
        gamma: discount γ of the return.

    Returns:
        Advantage and value target G_t, each [T, N].

    Raises:
        ValueError: the rollout is not made of groups.
    """
    same, returns = same_group(rollout), discounted_returns(rollout, gamma)
    advantage = summed_differences(returns[0], same) / same.sum(1)
    return advantage.repeat(len(returns), 1), returns


def grpo(
    rollout: Rollout, *, gamma: float, ddof: Literal[0, 1], epsilon: NonNegative
) -> tuple[Tensor, Tensor]:
    """Return in units of its group's spread, Ψ_i = (R_i − R̄) / (σ + ε) (Shao et al. 2024).

    σ² = Σ_j (R_j − R̄)² / (K − ddof). The division changes the direction of the expected gradient:
    starts on which returns differ little weigh as much as others.

    Args:
        rollout: rewards and ends of whole episodes in groups, [T, N].
        gamma: discount γ of the return.
        ddof: 1 for the sample's standard deviation, 0 for the population's.
        epsilon: ε, at least 0, added to the standard deviation.

    Returns:
        Advantage and value target G_t, each [T, N].

    Raises:
        ValueError: the rollout is not made of groups.
    """
    same, returns = same_group(rollout), discounted_returns(rollout, gamma)
    size = same.sum(1)
    deviation = summed_differences(returns[0], same) / size
    spread = ((same * deviation.square()).sum(1) / (size - ddof)).sqrt()
    return (deviation / (spread + epsilon)).repeat(len(returns), 1), returns


def reinforce_pp(
    rollout: Rollout, *, gamma: float, baseline: Literal["none", "group"], epsilon: NonNegative
) -> tuple[Tensor, Tensor]:
    """Whiten over the whole batch instead of single groups (REINFORCE++, Hu et al. 2025).

    Departure: the KL penalty that the paper takes from each reward, β (log π − log π_ref), is the
    algorithm's part, of those that have ``algo.kl``: ``algo.kl.reference=RUN
    algo.kl.place=reward algo.kl.estimator=k1 algo.kl.coefficient=…``. Elsewhere, and by default,
    this is REINFORCE++ without its penalty.

    Args:
        rollout: rewards and ends of whole episodes, [T, N]; in groups for a baseline of them.
        gamma: discount γ of the return.
        baseline: what is whitened: G_t (``none``), or R_i − R̄ for all steps of an episode
            (``group``, "REINFORCE++ with baseline").
        epsilon: ε, at least 0, added to the variance.

    Returns:
        Advantage and value target G_t, each [T, N].

    Raises:
        ValueError: the rollout is not whole episodes or not made of groups.
    """
    if baseline == "group":
        advantage, returns = dr_grpo(rollout, gamma=gamma)
    else:
        advantage = returns = discounted_returns(rollout, gamma)
    return whiten(advantage, rollout.mask, epsilon), returns


def whiten(x: Tensor, mask: Tensor, epsilon: float) -> Tensor:
    """Return (x − mean) / √(variance + ε), both over the rows that count, [T, N]."""
    weight = mask.to(x.dtype)
    count = weight.sum()
    centred = x - (weight * x).sum() / count
    variance = (weight * centred.square()).sum() / (count - 1).clamp_min(1)
    return centred / (variance + epsilon).sqrt()


def time_group(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Reward-to-go minus that of the group's other members at the same step.

    Ψ_{i,t} = G_{i,t} − Σ_{j≠i} G_{j,t} / (K − 1), where G_{j,t} = 0 once j is over. Unbiased, and
    unlike :func:`rloo` causal: rewards of the past have no part in it. The leave-one-out baseline
    of Kool et al. 2019 at each step; cf. Chen et al. 2025 ("Group Policy Gradient").

    Args:
        rollout: rewards and ends of whole episodes in groups, [T, N].
        gamma: discount γ of the return.

    Returns:
        Advantage and value target G_t, each [T, N].

    Raises:
        ValueError: the rollout is not made of groups.
    """
    same, returns = same_group(rollout), discounted_returns(rollout, gamma)
    others = same - torch.eye(len(same), dtype=same.dtype, device=same.device)
    return returns - returns @ others / others.sum(0), returns
