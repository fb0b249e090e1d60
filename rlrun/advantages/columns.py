"""What an estimator needs of a rollout: how it asks, and how an algorithm finds out."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rlrun.data.rollout import Rollout
from rlrun.envs.problem import Problem
from rlrun.errors import UserError

# (rollout, gamma=γ) -> advantage and value target, each [T, N].
Estimator = Callable[..., tuple[Tensor, Tensor]]

# Columns that an agent's networks can fill in, by what a user calls their source.
SOURCES = {
    "policy_logp": "a policy",
    "value": "a critic V(s)",
    "next_value": "a critic V(s)",
    "q": "a critic Q(s, a)",
    "next_q": "a critic Q(s, a)",
    "policy_q": "a critic Q(s, a)",
    "score_square": "the policy's gradient at each step",
}

# Those of every policy-gradient algorithm with critics.
ACTOR_CRITIC_COLUMNS = frozenset(SOURCES)

# Those of an algorithm without a critic.
POLICY_COLUMNS = frozenset({"policy_logp", "score_square"})


class MissingColumn(Exception):
    """An estimator asked for a column that the rollout does not have."""

    def __init__(self, name: str):
        super().__init__(f"the rollout has no column {name!r}, which needs {SOURCES[name]}")
        self.name = name


def column(rollout: Rollout, name: str) -> Tensor:
    """Return a column that policy or critics fill in, [T, N].

    Args:
        rollout: what was collected.
        name: the column.

    Raises:
        MissingColumn: this run has no such column.
    """
    values = {
        "policy_logp": rollout.policy_logp,
        "value": rollout.value,
        "next_value": rollout.next_value,
        "q": rollout.q,
        "next_q": rollout.next_q,
        "policy_q": rollout.policy_q,
        "score_square": rollout.score_square,
    }[name]
    if values is None:
        raise MissingColumn(name)
    return values


def groups(rollout: Rollout) -> Tensor:
    """Return the number of each episode's group, [N].

    Raises:
        ValueError: the rollout is not made of groups of two or more.
    """
    if rollout.group is None:
        size = 1 if rollout.whole_episodes else "null"
        raise ValueError(
            "this estimator compares episodes from one start: env.group_size=8, say; "
            f"got env.group_size={size}"
        )
    return rollout.group[0]


def require_whole_episodes(rollout: Rollout) -> None:
    """Check that each column of a rollout is one whole episode.

    Raises:
        ValueError: it is not.
    """
    if not rollout.whole_episodes:
        raise ValueError("this estimator needs whole episodes: env.group_size=1, or more")


def prepare(
    estimator: Estimator | None,
    *,
    algorithm: str,
    offers: AbstractSet[str],
    gamma: float,
    problem: Problem,
    num_envs: int,
) -> tuple[Estimator, frozenset[str]]:
    """Call an estimator on two steps of zeros, to find out what it needs, and its mistakes.

    Args:
        estimator: called as ``estimator(rollout, gamma=gamma)``.
        algorithm: what messages call it.
        offers: names of the columns that the algorithm can fill in.
        gamma: discount of the return.
        problem: whether there are groups, and what the actions are.
        num_envs: N, the columns of a rollout.

    Returns:
        The estimator as a function of the rollout alone, and the names of the columns that it
        asks for.

    Raises:
        UserError: there is no estimator, it asks for what this run cannot have, or one of its
            constants is out of range.
    """
    if estimator is None:
        raise UserError(f"{algorithm} needs an estimator: advantage=…, see rlrun --help")
    needed: dict[str, Any] = {}
    while True:
        rollout = replace(two_steps_of_zeros(problem, num_envs), **needed)
        try:
            estimator(rollout, gamma=gamma)
        except MissingColumn as missing:
            name = missing.name
            if name not in offers:
                raise UserError(
                    f"advantage: it needs {SOURCES[name]}, which {algorithm} has not; "
                    "a2c, ppo and reinforce have one"
                ) from missing
            if name == "policy_q" and not problem.discrete:
                raise UserError(
                    "advantage: the mean of Q over all actions needs discrete ones; "
                    "advantage.baseline=value needs none"
                ) from missing
            needed[name] = rollout.reward
        except ValueError as error:
            raise UserError(f"advantage: {error}") from error
        else:
            return partial(estimator, gamma=gamma), frozenset(needed)


def two_steps_of_zeros(problem: Problem, num_envs: int) -> Rollout:
    """Return the shortest rollout that looks like those of a run, [2, N]."""
    shape = (2, num_envs)
    zeros, never = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    obs = torch.zeros(*shape, problem.obs_size)
    ended = never.clone()
    ended[-1] = problem.whole_episodes
    group = None
    if problem.group_size is not None and problem.group_size > 1:
        group = (torch.arange(num_envs) // problem.group_size).expand(shape)
    return Rollout(
        obs=obs,
        next_obs=obs,
        raw_obs=obs,
        action=zeros,
        logp=zeros,
        reward=zeros,
        raw_reward=zeros,
        terminated=ended,
        truncated=never,
        mask=~never,
        whole_episodes=problem.whole_episodes,
        group=group,
    )
