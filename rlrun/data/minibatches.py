"""How a rollout is cut into minibatches: of rows, or of whole episodes."""

import torch
from torch import Tensor


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


def all_rows(mask: Tensor) -> Tensor:
    """Return the numbers of all rows that count, as one minibatch in their order, [1, B].

    Args:
        mask: rows that count, [T, N].
    """
    return mask.flatten().nonzero().view(1, -1)


def take(rows: Tensor, *columns: Tensor) -> list[Tensor]:
    """Return these rows [M, B] of columns [T, N, …], each as [M, B, …]."""
    return [column.flatten(0, 1)[rows] for column in columns]


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


def take_columns(episodes: Tensor, *columns: Tensor) -> list[Tensor]:
    """Return these episodes [M, n] of columns [T, N, …], each as [M, T, n, …]."""
    return [column[:, episodes].movedim(1, 0) for column in columns]
