"""What passes from collecting to learning: transitions, and the rollout that is made of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlrun.data.normalize import RunningMoments
from rlrun.data.sequences import Observations
from rlrun.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RolloutShape:
    """What the rollouts of a run look like, before there is one.

    Attributes:
        num_envs: N, environments stepped side by side.
        longest: T, steps of the longest column.
        whole_episodes: each column is one episode from its start to its end; else all have T rows.
        group_size: episodes that begin from one start, side by side; 1: each has its own.
        may_be_empty: episodes are dropped, and sometimes all of them.
        sequences: observations are whole sequences of tokens.
        recorded: others have acted, with probabilities that nobody knows.
    """

    num_envs: int
    longest: int
    whole_episodes: bool
    group_size: int
    may_be_empty: bool = False
    sequences: bool = False
    recorded: bool = False

    @property
    def rows(self) -> int:
        """Rows of a rollout; at most, where it is whole episodes."""
        return self.longest * self.num_envs

    def minibatches(self, size: int) -> int:
        """Return how many minibatches of B rows a pass over a rollout usually has.

        Args:
            size: B.

        Raises:
            UserError: some rows of a segment would be left out.
        """
        if self.rows % size and not self.whole_episodes:
            raise UserError(
                f"algo: minibatch_size must divide num_envs x horizon = {self.rows}, got {size}"
            )
        return max(self.rows // size, 1)


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """T steps of N environments, time-major, as a collector returns them. Row [t, n] is one step.

    Attributes:
        obs: s_t as the environment gave it, [T, N, D]; or the sequences whose states they are.
        next_obs: the true successor s_{t+1}; the final observation where an episode ended, never
            the first one of the next, [T, N, D]; or sequences.
        action: as sampled, not clipped to the bounds, [T, N] (int64) or [T, N, A].
        logp: log μ(a|s) under the behaviour policy, of what was recorded when the action was
            drawn, [T, N]; with `importance`, log π_old(a|s) of the policy that has drawn it.
        reward: r_t as the environment gave it, [T, N].
        terminated: s_{t+1} is terminal: nothing follows it, [T, N] (bool).
        truncated: the episode was cut after this step, but would have gone on, [T, N] (bool). Of
            language it is terminated as well: what was cut has been judged.
        mask: rows that count, [T, N] (bool); the others are padding behind the end of an episode,
            with zeros for rewards and False for endings.
        whole_episodes: each column is one episode, from its first step to its last.
        group: number of the group of episodes with a common start that a row belongs to, [T, N];
            None where every episode has a start of its own.
        policy_version: of the policy that acted, [T, N] (int64).
        obs_moments: mean and variance of all observations that were acted on, [D].
        steps: environment steps that it took; more than there are rows, if some were dropped.
        outcome: what the task is about, before a reward was shaped of it: the summands of an
            episode's, as those of its return, [T, N]; None: the reward is that.
        importance: weight of each row's term of a gradient, where actions were not drawn from the
            policy as it is, [T, N]; None: 1.
        metrics: what the collector says of it besides, for the logs, each [].
    """

    obs: Observations
    next_obs: Observations
    action: Tensor
    logp: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor
    whole_episodes: bool
    group: Tensor | None
    policy_version: Tensor
    obs_moments: RunningMoments
    steps: int
    outcome: Tensor | None = None
    importance: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def done(self) -> Tensor:
        """Whether the episode ended with this step, for whatever reason, [T, N] (bool)."""
        return self.terminated | self.truncated


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """T steps of N environments as the learner sees them, time-major, on its device.

    Attributes:
        obs: normalised observation s_t, [T, N, D]; or the sequences whose states they are.
        next_obs: the true successor s_{t+1}, normalised, [T, N, D]; or sequences.
        raw_obs: s_t as the environment gave it, [T, N, D] (where the environment is); or sequences.
        action: as sampled, not clipped to the bounds, [T, N] (int64) or [T, N, A].
        logp: log μ(a|s) under the behaviour policy, which sampled the action, [T, N].
        reward: r_t as the algorithm sees it (scaled, if it asked for that), [T, N].
        raw_reward: r_t as the environment gave it, [T, N].
        terminated: s_{t+1} is terminal: nothing follows it, [T, N] (bool).
        truncated: the episode was cut after this step, but would have gone on, [T, N] (bool). Of
            language it is terminated as well: what was cut has been judged.
        mask: rows that count, [T, N] (bool).
        whole_episodes: each column is one episode, from its first step to its last.
        group: number of the group of episodes with a common start, [T, N], or None.
        importance: weight w of each row's term of a gradient, where actions were not drawn from the
            policy as it is, [T, N]; None: 1.
        columns: what networks say of each row, by name, each [T, N]: those that the estimator
            asks for (``advantages/columns.py`` has them all).
    """

    obs: Observations
    next_obs: Observations
    raw_obs: Observations
    action: Tensor
    logp: Tensor
    reward: Tensor
    raw_reward: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor
    whole_episodes: bool
    group: Tensor | None
    importance: Tensor | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def weight(self) -> Tensor:
        """W of each row: what a term of a gradient is multiplied with, after Ψ has been scaled."""
        return torch.ones_like(self.reward) if self.importance is None else self.importance

    @property
    def done(self) -> Tensor:
        """Whether the episode ended with this step, for whatever reason, [T, N] (bool)."""
        return self.terminated | self.truncated
