"""Estimators from the rewards of whole episodes, with no critic.

Where the time limit truncates an episode, the sum of its rewards ends as it does at a terminal
state, since there is no value to go on with: the objective is the return within the time limit.

The value target of each is the reward-to-go G_t: a critic V that an algorithm has anyway is fitted
to that.
"""

import torch
from torch import Tensor

from rlrun.advantages.columns import column, require_whole_episodes
from rlrun.data.discounting import discounted_sums
from rlrun.data.rollout import Rollout


def discounted_returns(rollout: Rollout, gamma: float) -> Tensor:
    """Return G_t = Σ_{k≥0} γ^k r_{t+k}, up to the end of the episode, [T, N].

    Raises:
        ValueError: the rollout is not whole episodes.
    """
    require_whole_episodes(rollout)
    goes_on = (~rollout.done).to(rollout.reward.dtype)
    return discounted_sums(rollout.reward, gamma * goes_on)


def total_return(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Weigh each step with the return of its whole episode (REINFORCE, Williams 1992).

    Ψ_t = R = Σ_k γ^k r_k, discounted from the first step, for every t. Unbiased for the discounted
    return without a factor γ^t; of most variance, since rewards of the past add noise alone.

    Args:
        rollout: rewards and ends of whole episodes, [T, N].
        gamma: discount γ of the return.

    Returns:
        Advantage R and value target G_t, each [T, N].

    Raises:
        ValueError: the rollout is not whole episodes.
    """
    returns = discounted_returns(rollout, gamma)
    return returns[0].repeat(len(returns), 1), returns


def reward_to_go(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Weigh each step with what came after it (G(PO)MDP, Baxter & Bartlett 2001).

    Ψ_t = G_t = Σ_{k≥0} γ^k r_{t+k}, discounted from t.

    Args:
        rollout: rewards and ends of whole episodes, [T, N].
        gamma: discount γ of the return.

    Returns:
        Advantage and value target, both G_t, each [T, N].

    Raises:
        ValueError: the rollout is not whole episodes.
    """
    returns = discounted_returns(rollout, gamma)
    return returns, returns


def baseline_constant(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Reward-to-go minus its mean over the steps of all other episodes (Williams 1992).

    Ψ_{i,t} = G_{i,t} − b_i with b_i = Σ_{j≠i} Σ_t G_{j,t} / Σ_{j≠i} |o_j|, |o_j| being the steps of
    episode j. One number for all steps of an episode, of which the episode itself has no part:
    that keeps the estimate unbiased.

    Args:
        rollout: rewards and ends of two or more whole episodes, [T, N].
        gamma: discount γ of the return.

    Returns:
        Advantage and value target G_t, each [T, N].

    Raises:
        ValueError: the rollout is not whole episodes, or only one.
    """
    returns = discounted_returns(rollout, gamma)
    return returns - mean_of_the_others(returns, weight=rollout.mask.to(returns)), returns


def baseline_optimal(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Reward-to-go minus the constant that leaves the least variance.

    Ψ_{i,t} = G_{i,t} − b_i with b = E[‖∇ log π‖² G] / E[‖∇ log π‖²] (Greensmith, Bartlett & Baxter
    2004; Peters & Schaal 2008). Both means are over the steps of all other episodes, as in
    :func:`baseline_constant`. It is the optimum of the variance of single steps, summed over the
    components of the gradient; how the steps of an episode vary together is left out.

    Args:
        rollout: rewards, ends and squared scores of two or more whole episodes, [T, N].
        gamma: discount γ of the return.

    Returns:
        Advantage and value target G_t, each [T, N].

    Raises:
        ValueError: the rollout is not whole episodes, or only one.
    """
    returns = discounted_returns(rollout, gamma)
    weight = torch.where(rollout.mask, column(rollout, "score_square"), 0.0)
    return returns - mean_of_the_others(returns, weight=weight), returns


def mean_of_the_others(x: Tensor, *, weight: Tensor) -> Tensor:
    """Return the weighted mean of x [T, N] over all columns but one, for each of them, [N].

    Raises:
        ValueError: there is only one column.
    """
    columns = x.shape[1]
    if columns < 2:
        raise ValueError("this estimator compares episodes: algo.num_envs must be at least 2")
    # A sum over the others, not all minus the own one, which would cancel where that is most.
    others = 1 - torch.eye(columns, dtype=x.dtype, device=x.device)
    total = (weight * x).sum(0) @ others
    # Without any weight there is no gradient either, whatever is subtracted.
    return total / (weight.sum(0) @ others).clamp_min(torch.finfo(x.dtype).tiny)
