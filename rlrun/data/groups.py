"""Whole episodes in groups: which groups have a spread, some of the episodes, several batches."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlrun.data.normalize import RunningMoments
from rlrun.data.rollout import Transitions
from rlrun.data.sequences import Sequences, join_sequences


def return_spreads(reward: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """Return max − min of the undiscounted returns of each group, [groups].

    Args:
        reward: of whole episodes, the members of a group side by side, [T, N]. Raw, because a
            shaped or penalised reward lets noise pass for a difference between episodes.
        mask: steps that count, [T, N].
        group_size: episodes of a group.
    """
    returns = (reward * mask).sum(0).view(-1, group_size)
    return returns.amax(1) - returns.amin(1)


def take_episodes(transitions: Transitions, episodes: Tensor) -> Transitions:
    """Return some of the episodes.

    Args:
        transitions: T steps of N episodes.
        episodes: their numbers, [n].
    """
    columns: dict[str, Any] = {
        name: column[:, episodes.to(column.device)]
        for name, column in _columns(transitions).items()
    }
    columns |= {name: each.columns(episodes) for name, each in _sequences(transitions).items()}
    return replace(transitions, **columns)


def join(parts: Sequence[Transitions]) -> Transitions:
    """Put episodes side by side, as if they had been collected at once.

    Shorter ones get rows of padding, zeros with a mask of False; groups get new numbers where two
    parts have the same ones.

    Args:
        parts: [T_k, N_k] each, with the same columns; at least one.

    Returns:
        [max T_k, Σ N_k], with the steps and the observations' moments of all parts.
    """
    length = max(len(part.mask) for part in parts)
    columns = [_columns(part) for part in parts]
    joined: dict[str, Any] = {
        name: torch.cat([pad(column[name], length) for column in columns], dim=1)
        for name in columns[0]
    }
    for name in _sequences(parts[0]):
        joined[name] = join_sequences([_sequences(part)[name] for part in parts])
    if "group" in joined:
        numbers, taken = [], 0
        for column in columns:
            group = column["group"][0] + taken
            taken = int(group.max()) + 1 if len(group) else taken
            numbers.append(group)
        joined["group"] = torch.cat(numbers).expand(length, -1)
    moments = RunningMoments(len(parts[0].obs_moments.mean))
    for part in parts:
        moments.merge(part.obs_moments)
    steps = sum(part.steps for part in parts)
    return replace(parts[0], **joined, obs_moments=moments, steps=steps)


def pad(column: Any, length: int) -> Any:
    """Return a column [T, N, …], or sequences, with zeros below, [length, N, …]."""
    if isinstance(column, Sequences):
        return column.padded(length)
    rows = length - len(column)
    return torch.cat([column, column.new_zeros(rows, *column.shape[1:])]) if rows else column


def _columns(transitions: Transitions) -> dict[str, Tensor]:
    """Return the columns [T, N, …] that there are, by name."""
    return {name: value for name, value in vars(transitions).items() if isinstance(value, Tensor)}


def _sequences(transitions: Transitions) -> dict[str, Sequences]:
    """Return the columns that are sequences, by name."""
    return {name: each for name, each in vars(transitions).items() if isinstance(each, Sequences)}
