"""Rollouts as groups of whole episodes: which of them differ in their returns, parts, and sums."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlrun.data.rollout import Rollout


def return_spreads(rollout: Rollout, group_size: int) -> Tensor:
    """Return max − min of the raw, undiscounted returns of each group, [groups].

    Raw, because a shaped or penalised reward lets noise pass for a difference between episodes.

    Args:
        rollout: whole episodes, the members of a group side by side.
        group_size: episodes of a group.
    """
    returns = (rollout.raw_reward * rollout.mask).sum(0).view(-1, group_size)
    return returns.amax(1) - returns.amin(1)


def spread_metrics(rollout: Rollout, group_size: int | None) -> dict[str, Tensor]:
    """Return the share of groups whose returns are all equal, which teach nothing, for the logs.

    Args:
        rollout: whole episodes, the members of a group side by side.
        group_size: episodes of a group.
    """
    if group_size is None or rollout.group is None:
        return {}
    return {"groups/without_spread": (return_spreads(rollout, group_size) == 0).float().mean()}


def take_columns(rollout: Rollout, episodes: Tensor) -> Rollout:
    """Return a rollout of some of the episodes: a copy, which the next collecting does not touch.

    Args:
        rollout: T steps of N episodes.
        episodes: their numbers, [n].
    """
    columns: dict[str, Any] = {
        name: column[:, episodes.to(column.device)] for name, column in _columns(rollout).items()
    }
    return replace(rollout, **columns)


def join(rollouts: Sequence[Rollout]) -> Rollout:
    """Put the episodes of several rollouts side by side, as if they had been collected at once.

    Shorter rollouts get rows of padding, zeros with a mask of False; groups get new numbers where
    two rollouts have the same ones.

    Args:
        rollouts: [T_k, N_k] each, with the same columns; at least one.

    Returns:
        [max T_k, Σ N_k].
    """
    length = max(len(rollout.mask) for rollout in rollouts)
    parts = [_columns(rollout) for rollout in rollouts]
    joined: dict[str, Any] = {
        name: torch.cat([_pad(part[name], length) for part in parts], dim=1) for name in parts[0]
    }
    if "group" in joined:
        numbers, taken = [], 0
        for part in parts:
            group = part["group"][0] + taken
            taken = int(group.max()) + 1 if len(group) else taken
            numbers.append(group)
        joined["group"] = torch.cat(numbers).expand(length, -1)
    return replace(rollouts[0], **joined)


def _columns(rollout: Rollout) -> dict[str, Tensor]:
    """Return the columns [T, N, …] that a rollout has, by name."""
    return {name: value for name, value in vars(rollout).items() if isinstance(value, Tensor)}


def _pad(column: Tensor, length: int) -> Tensor:
    """Return a column [T, N, …] with zeros below, [length, N, …]."""
    rows = length - len(column)
    return torch.cat([column, column.new_zeros(rows, *column.shape[1:])]) if rows else column
