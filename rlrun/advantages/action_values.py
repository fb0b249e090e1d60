"""Estimators from an action value Q(s, a) that is learned.

Their target is r_t + γ (1 − terminated_t) E Q(s_{t+1}, a') over a' ~ π: expected SARSA (van Seijen
et al. 2009) where the mean over actions is exact, SARSA where it is one sample. With a right Q its
mean over a_t ~ π is V(s_t), so that V, where there is one, is fitted to it too.
"""

from typing import Literal

import torch
from torch import Tensor

from rlrun.advantages.columns import column
from rlrun.data.rollout import Rollout

BASELINES = {"value": "value", "policy_mean": "policy_q"}


def q_target(rollout: Rollout, gamma: float) -> Tensor:
    """Return r_t + γ (1 − terminated_t) E Q(s_{t+1}, a'), [T, N]."""
    return rollout.reward + gamma * torch.where(rollout.terminated, 0.0, column(rollout, "next_q"))


def q_value(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Action value Ψ_t = Q(s_t, a_t) (policy-gradient theorem, Sutton et al. 2000).

    Args:
        rollout: rewards, action values and terminal steps, [T, N].
        gamma: discount γ of the return.

    Returns:
        Advantage Q(s_t, a_t) and target of Q, each [T, N].
    """
    return column(rollout, "q"), q_target(rollout, gamma)


def advantage_q(
    rollout: Rollout, *, gamma: float, baseline: Literal["value", "policy_mean"]
) -> tuple[Tensor, Tensor]:
    """Action value minus what the policy is worth in that state, Ψ_t = Q(s_t, a_t) − V(s_t).

    Args:
        rollout: rewards, action values and terminal steps, [T, N].
        gamma: discount γ of the return.
        baseline: where V comes from: a critic of its own (``value``), or Σ_a π(a|s_t) Q(s_t, a),
            which needs discrete actions (``policy_mean``).

    Returns:
        Advantage and target of Q and V, each [T, N].
    """
    return column(rollout, "q") - column(rollout, BASELINES[baseline]), q_target(rollout, gamma)
