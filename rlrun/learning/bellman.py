"""Bellman's equations of a finite Markov decision process that is known.

Sutton & Barto 2018, ch. 3 and 4. S states, A actions; after an episode's end there is no value, for
which `TabularModel.transition` leaves out the outcomes that end it.
"""

import torch
from torch import Tensor

from rlrun.envs.tabular import TabularModel
from rlrun.errors import UserError

# What the probabilities of going on may differ from 1 by, where no episode ends.
ROUNDING = 1e-12


def action_values(model: TabularModel, value: Tensor, gamma: float) -> Tensor:
    """Q(s, a) = r(s, a) + γ Σ_s' P(s'|s, a) V(s').

    Args:
        model: P and r.
        value: V, [S].
        gamma: discount γ.

    Returns:
        Q, [S, A].
    """
    return model.reward + gamma * model.transition @ value


def of_policy(table: Tensor, policy: Tensor) -> Tensor:
    """Return the row of each state's action: table[s, π(s)].

    Args:
        table: one entry for each action, [S, A, …].
        policy: π, the action of each state, [S].
    """
    return table[torch.arange(len(policy)), policy]


def exact_value(model: TabularModel, policy: Tensor, gamma: float) -> Tensor:
    """Solve V = r_π + γ P_π V.

    Args:
        model: P and r.
        policy: π, the action of each state, [S], or π(a|s), [S, A].
        gamma: discount γ. With 1 the solution is unique where every episode ends.

    Returns:
        V^π, [S].

    Raises:
        UserError: it is not unique.
    """
    if policy.ndim == 1:
        policy = torch.nn.functional.one_hot(policy, model.reward.shape[1]).to(model.reward)
    # P_π = Σ_a π(a|s) P(s'|s, a),  r_π = Σ_a π(a|s) r(s, a)
    transition = torch.einsum("sa,sat->st", policy, model.transition)
    identity = torch.eye(len(policy), dtype=transition.dtype)
    reward = (policy * model.reward).sum(-1)
    if gamma == 1 and not _can_end(transition).all():
        raise UserError("with gamma=1 this policy has no value: some of its episodes never end")
    return torch.linalg.solve(identity - gamma * transition, reward)


def _can_end(transition: Tensor) -> Tensor:
    """Say of each state whether an episode may end that comes there, [S], by P_π [S, S]."""
    new = can_end = transition.sum(-1) < 1 - ROUNDING
    while new.any():
        new = (transition[:, new] > 0).any(-1) & ~can_end
        can_end = can_end | new
    return can_end


def greedy(action_value: Tensor, policy: Tensor | None = None, *, tolerance: float = 0.0) -> Tensor:
    """Return the best action of each state; of two that are as good, the present one or the first.

    Args:
        action_value: Q, [S, A].
        policy: π so far, [S]; without one, ties go to the first action.
        tolerance: by how much another action must be better than the present one to replace it, so
            that rounding errors do not.

    Returns:
        The action of each state, [S].
    """
    best = action_value.argmax(-1)
    if policy is None:
        return best
    better = of_policy(action_value, best) > of_policy(action_value, policy) + tolerance
    return torch.where(better, best, policy)
