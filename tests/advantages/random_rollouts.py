"""Rollouts of random numbers with every column that an estimator may ask for."""

from collections.abc import Callable
from dataclasses import replace

import torch
from tiny import bare_rollout
from torch import Tensor

from rlrun.data.rollout import Rollout

COLUMNS = ("value", "next_value", "q", "next_q", "policy_q", "logp", "policy_logp")


def numbers(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal numbers, in double precision."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def segment(steps: int, seed: int = 0, *, envs: int = 4, end_probability: float = 0.25) -> Rollout:
    """Environments that go on, with ends of both kinds in between.

    V(s_{t+1}) is that of the next row, unless the episode ended.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (steps, envs)
    columns = {name: numbers(shape, generator) for name in COLUMNS}
    ends = torch.rand(shape, generator=generator) < end_probability
    terminates = torch.rand(shape, generator=generator) < 0.5
    following = torch.cat([columns["value"][1:], columns["next_value"][-1:]])
    return bare_rollout(
        numbers(shape, generator),
        **columns | {"next_value": torch.where(ends, columns["next_value"], following)},
        score_square=numbers(shape, generator).square(),
        terminated=ends & terminates,
        truncated=ends & ~terminates,
    )


def whole_episodes(
    lengths: list[int], seed: int = 0, *, sizes: list[int] | None = None, padding: int = 0
) -> Rollout:
    """One episode in each column, which ends by termination or truncation.

    Args:
        lengths: steps of each episode.
        seed: of all numbers.
        sizes: members of each group, in the order of the columns; None: no groups.
        padding: rows behind the end of the longest episode.
    """
    steps, episodes = max(lengths) + padding, len(lengths)
    random = segment(steps, seed, envs=episodes, end_probability=0.0)
    last = torch.arange(steps)[:, None] == torch.tensor(lengths) - 1
    mask = torch.arange(steps)[:, None] < torch.tensor(lengths)
    terminates = torch.rand(episodes, generator=torch.Generator().manual_seed(seed)) < 0.5
    group = None
    if sizes is not None:
        group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        group = group.expand(steps, episodes)
    return replace(
        random,
        reward=random.reward * mask,
        terminated=last & terminates,
        truncated=last & ~terminates,
        mask=mask,
        whole_episodes=True,
        group=group,
    )


def with_columns(rollout: Rollout, change: Callable[[Tensor], Tensor]) -> Rollout:
    """Change every column [T, N] or [T, N, ...] in the same way."""
    own = {name: x for name, x in vars(rollout).items() if isinstance(x, Tensor)}
    others = {name: change(x) for name, x in rollout.columns.items()}
    return replace(rollout, **{name: change(x) for name, x in own.items()}, columns=others)


def filled_in(rollout: Rollout, **columns: Tensor) -> Rollout:
    """Have networks say something else of a rollout, [T, N] each."""
    return replace(rollout, columns={**rollout.columns, **columns})


def returns_by_loop(rollout: Rollout, gamma: float) -> Tensor:
    """G_t of whole episodes, [T, N]: each sum by itself, 0 in the padding."""
    returns = torch.zeros_like(rollout.reward)
    for i in range(returns.shape[1]):
        length = int(rollout.mask[:, i].sum())
        for t in range(length):
            returns[t, i] = sum(gamma**k * rollout.reward[t + k, i] for k in range(length - t))
    return returns


def assert_equal_where_it_counts(rollout: Rollout, ours: Tensor, expected: Tensor) -> None:
    """Compare the rows of the mask; those of the padding have to be finite."""
    assert ours.shape == rollout.reward.shape
    assert ours.isfinite().all()
    torch.testing.assert_close(ours[rollout.mask], expected[rollout.mask])
