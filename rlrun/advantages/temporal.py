"""Estimators from temporal differences of a state value V.

Two flags end a step, and they are never merged: ``terminated`` cuts the bootstrap (nothing follows
a terminal state), ``terminated | truncated`` cuts the recursion (the next row is another episode).
``next_value`` is the value of the true successor, so that a truncated episode is bootstrapped
from the state in which it was cut.
"""

import torch
from torch import Tensor

from rlrun.advantages.columns import column
from rlrun.config.types import Count, Fraction
from rlrun.data.discounting import discounted_sums
from rlrun.data.rollout import Rollout


def td_errors(rollout: Rollout, gamma: float) -> Tensor:
    """Return δ_t = r_t + γ (1 − terminated_t) V(s_{t+1}) − V(s_t), [T, N]."""
    bootstrap = torch.where(rollout.terminated, 0.0, column(rollout, "next_value"))
    return rollout.reward + gamma * bootstrap - column(rollout, "value")


def gae(rollout: Rollout, *, gamma: float, lam: Fraction) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16).

    Â_t = δ_t + γλ (1 − done_t) Â_{t+1}, a mixture of all n-step advantages. λ = 0 is the TD error
    (little variance, biased while V is wrong), λ = 1 Monte Carlo minus V (no bias from V within
    the rollout, most variance).

    Args:
        rollout: rewards, values and episode ends, [T, N].
        gamma: discount γ of the return.
        lam: λ, the decay of the mixture, in [0, 1].

    Returns:
        Advantage and value target Â + V (the TD(λ) return), each [T, N].
    """
    delta = td_errors(rollout, gamma)
    decay = gamma * lam * (~rollout.done).to(delta.dtype)
    advantage = discounted_sums(delta, decay)
    return advantage, advantage + column(rollout, "value")


def td(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """One-step advantage Â_t = δ_t; the target is r_t + γ (1 − terminated_t) V(s_{t+1}).

    Args:
        rollout: rewards, values and episode ends, [T, N].
        gamma: discount γ of the return.

    Returns:
        Advantage and value target, each [T, N].
    """
    delta = td_errors(rollout, gamma)
    return delta, delta + column(rollout, "value")


def nstep(rollout: Rollout, *, gamma: float, n: Count) -> tuple[Tensor, Tensor]:
    """Advantage over n steps (Sutton & Barto 2018, §7.1).

    Â_t = Σ_{l<n} γ^l r_{t+l} + γ^n V(s_{t+n}) − V(s_t), which telescopes to Σ_{l<n} γ^l δ_{t+l};
    the sum stops at an episode's end and at the end of the rollout.

    Args:
        rollout: rewards, values and episode ends, [T, N].
        gamma: discount γ of the return.
        n: number of rewards before the bootstrap, at least 1.

    Returns:
        Advantage and value target, each [T, N].
    """
    delta = td_errors(rollout, gamma)
    goes_on = gamma * (~rollout.done).to(delta.dtype)
    advantage, weight = delta.clone(), goes_on
    for reach in range(1, min(n, len(delta))):
        # weight_t = γ^reach while no episode ended in t … t + reach − 1, else 0
        advantage[:-reach] += weight[: len(delta) - reach] * delta[reach:]
        weight = weight[:-1] * goes_on[reach:]
    return advantage, advantage + column(rollout, "value")


def baseline_value(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Monte Carlo reward-to-go minus V(s_t) (REINFORCE with baseline, Sutton & Barto §13.4).

    Â_t = G_t − V(s_t), where an episode that is cut (truncation, end of the rollout) is completed
    with the value of the state in which it was cut. Equal to ``gae`` with λ = 1.

    Args:
        rollout: rewards, values and episode ends, [T, N].
        gamma: discount γ of the return.

    Returns:
        Advantage and value target G_t, each [T, N].
    """
    cut = rollout.done.clone()
    cut[-1] = True
    # The reward-to-go of a cut row ends with γ V(s_{t+1}), unless s_{t+1} is terminal.
    completes = cut & ~rollout.terminated
    reward = rollout.reward + gamma * torch.where(completes, column(rollout, "next_value"), 0.0)
    reward_to_go = discounted_sums(reward, gamma * (~rollout.done).to(reward.dtype))
    return reward_to_go - column(rollout, "value"), reward_to_go
