"""Rows of a replay buffer: what they are, and what a minibatch of them is to learn from.

A row is one step of one environment. Rows are written in the order of time, the N environments of
one instant side by side, so that the next step of a row's environment is N rows further on.
"""

from functools import partial
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from rlrun.data.rollout import Transitions
from rlrun.envs.problem import Problem


class Rows(NamedTuple):
    """Columns of R rows.

    Attributes:
        obs: s, [R, D], in the smallest type that holds the environment's.
        action: a, [R] (int64) or [R, A].
        reward: r, [R].
        next_obs: the true successor s', [R, D], also where an episode ended.
        terminated: nothing follows s', [R] (bool).
        done: the episode ended there, for whatever reason, [R] (bool).
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    done: Tensor

    @classmethod
    def empty(cls, problem: Problem, size: int, device: torch.device | str) -> Self:
        """Make room for R rows of an environment."""
        obs = torch.empty(0, problem.obs_size, dtype=problem.obs_dtype)
        action = torch.empty(0, dtype=torch.int64)
        if not problem.discrete:
            action = torch.empty(0, *problem.action_shape)
        reward, flag = torch.empty(0), torch.empty(0, dtype=torch.bool)
        on_cpu = torch.device(device).type == "cpu"
        room = untouched if on_cpu else partial(torch.Tensor.new_zeros, device=device)
        columns = (obs, action, reward, obs, flag, flag)
        return cls(*(room(kind, (size, *kind.shape[1:])) for kind in columns))

    @classmethod
    def of(cls, transitions: Transitions) -> Self:
        """Flatten T steps of N environments into T N rows."""
        assert isinstance(transitions.obs, Tensor)
        assert isinstance(transitions.next_obs, Tensor)
        columns = (
            transitions.obs,
            transitions.action,
            transitions.reward,
            transitions.next_obs,
            transitions.terminated,
            transitions.done,
        )
        return cls(*(column.flatten(0, 1) for column in columns))

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return sum(column[0].numel() * column.element_size() for column in self)


def untouched(kind: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return zeros on the CPU that take no memory before they are written to; torch's own do.

    Args:
        kind: a tensor of the same type.
        shape: of the zeros.
    """
    return torch.from_numpy(np.zeros(shape, kind.numpy().dtype))


class Ring(NamedTuple):
    """What a step of a learner sees of a replay buffer.

    Attributes:
        rows: all C of them, [C, ...]; those that are not written yet are never drawn.
        written: rows so far, [] (int64): the next one goes to written mod C.
    """

    rows: Rows
    written: Tensor


class ReplayBatch(NamedTuple):
    """B rows to learn from, with what follows them: y = return + discount · V(next_obs).

    Attributes:
        obs: s_t, [B, D] (float32).
        action: a_t, [B] or [B, A].
        reward: Σ_k γ^k r_{t+k} of n steps, or fewer where the episode ends, [B].
        next_obs: s_{t+n}, [B, D] (float32).
        discount: γ^n, or 0 where nothing follows s_{t+n}, [B].
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    discount: Tensor


def take(ring: Ring, index: Tensor, *, gamma: float, steps: int, num_envs: int) -> ReplayBatch:
    """Return rows with what followed them in n steps.

    The sum ends where the episode does, and goes on from the newest row of an environment with what
    it has: both are targets of fewer steps. An episode that was cut by its time limit is
    bootstrapped from its true last observation, one that terminated is not.

    Args:
        ring: the rows.
        index: places of the first steps, [B].
        gamma: discount γ.
        steps: n.
        num_envs: N, the distance between two steps of one environment.
    """
    rows, capacity = ring.rows, len(ring.rows.reward)
    reward = rows.reward[index]
    factor = torch.full_like(reward, gamma)  # γ^k, where the last step taken is t + k − 1
    last = index
    for _ in range(steps - 1):
        age = (ring.written - 1 - last) % capacity
        goes_on = ~rows.done[last] & (age >= num_envs)
        last = torch.where(goes_on, (last + num_envs) % capacity, last)
        reward = reward + torch.where(goes_on, factor * rows.reward[last], 0.0)
        factor = torch.where(goes_on, gamma * factor, factor)
    return ReplayBatch(
        obs=rows.obs[index].float(),
        action=rows.action[index],
        reward=reward,
        next_obs=rows.next_obs[last].float(),
        discount=factor * (~rows.terminated[last]).float(),
    )
