"""How a rollout is cut into minibatches: of rows, or of whole episodes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlrun.data.rollout import Rollout
from rlrun.data.sequences import Sequences

# Numbers of rows or episodes in M minibatches: [M, B], or of lengths that differ.
Minibatches = Tensor | Sequence[Tensor]


def cut(rollout: Rollout, *, size: int, generator: torch.Generator) -> Minibatches:
    """Shuffle the rows of a rollout that count and cut them into minibatches.

    Sequences are not cut into pieces: to learn from a step takes as long as from all before it.

    Args:
        rollout: T steps of N environments.
        size: rows a minibatch; of sequences, about so many.
        generator: source of the shuffle (CPU).
    """
    if isinstance(rollout.obs, Sequences):
        return sequence_minibatches(rollout.mask, size=size, generator=generator)
    return minibatches(rollout.mask, size=size, generator=generator)


def minibatches(mask: Tensor, *, size: int, generator: torch.Generator) -> Tensor:
    """Shuffle the rows that count and cut them into minibatches.

    Args:
        mask: rows that count, [T, N].
        size: rows a minibatch; if there are fewer altogether, they are one minibatch.
        generator: source of the shuffle (CPU).

    Returns:
        Row numbers into the flattened rollout, [minibatches, size]. A remainder smaller than a
        minibatch is left out of this epoch.
    """
    rows = mask.flatten().nonzero().squeeze(-1)
    order = torch.randperm(len(rows), generator=generator).to(rows.device)
    size = min(size, len(rows))
    count = len(rows) // size
    return rows[order[: count * size]].view(count, size)


def sequence_minibatches(
    mask: Tensor, *, size: int, generator: torch.Generator
) -> Sequence[Tensor]:
    """Shuffle whole sequences, and cut them into minibatches of all their steps that count.

    Args:
        mask: steps that count, [T, N].
        size: steps a minibatch would have if all sequences were equally long; if there are fewer
            altogether, they are one minibatch.
        generator: source of the shuffle (CPU).

    Returns:
        Of each minibatch the numbers of its rows in the flattened rollout, [B]. All have the same
        number of sequences; a remainder is left out of this epoch.
    """
    count = max(1, int(mask.sum()) // size)
    sequences = int(mask.any(0).sum()) // count
    chosen = minibatches(mask.any(0, keepdim=True), size=max(1, sequences), generator=generator)
    rows = torch.arange(mask.numel(), device=mask.device).view(mask.shape)
    return [rows[:, columns][mask[:, columns]] for columns in chosen]


def all_rows(mask: Tensor) -> Tensor:
    """Return the numbers of all rows that count, as one minibatch in their order, [1, B].

    Args:
        mask: rows that count, [T, N].
    """
    return mask.flatten().nonzero().view(1, -1)


def take(rows: Minibatches, *columns: Tensor | Sequences) -> list[Any]:
    """Return these rows [M, B] of columns [T, N, …], each as [M, B, …].

    Where there are sequences among the columns, a list of M minibatches takes the place of M.
    """
    if isinstance(rows, Tensor) and not any(isinstance(each, Sequences) for each in columns):
        return [column.flatten(0, 1)[rows] for column in columns if isinstance(column, Tensor)]
    return [[rows_of(column, chosen) for chosen in rows] for column in columns]


def rows_of(column: Tensor | Sequences, rows: Tensor) -> Any:
    """Return some rows [B] of a column [T, N, …], as [B, …]."""
    return column.rows(rows) if isinstance(column, Sequences) else column.flatten(0, 1)[rows]


def shuffled_episodes(mask: Tensor, *, size: int, generator: torch.Generator) -> Tensor:
    """Shuffle the episodes that have a step and cut them into minibatches.

    Args:
        mask: steps that count, [T, N].
        size: episodes a minibatch; if there are fewer altogether, they are one minibatch.
        generator: source of the shuffle (CPU).

    Returns:
        Numbers of episodes, [M, n]. A remainder smaller than a minibatch is left out.
    """
    return minibatches(mask.any(0, keepdim=True), size=size, generator=generator)


def take_columns(episodes: Tensor, *columns: Tensor | Sequences) -> list[Any]:
    """Return these episodes [M, n] of columns [T, N, …], each as [M, T, n, …].

    Of sequences, it is a list of M minibatches.
    """
    return [
        [column.columns(chosen) for chosen in episodes]
        if isinstance(column, Sequences)
        else column[:, episodes].movedim(1, 0)
        for column in columns
    ]
