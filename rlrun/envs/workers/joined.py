"""What the environments of several workers returned, as if it were one vector environment's."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def joined(parts: Sequence[Any]) -> Any:
    """Put batches of observations together, [n_k, ...] each: arrays, or tuples or dicts of them."""
    match parts[0]:
        case tuple():
            return tuple(joined(members) for members in zip(*parts, strict=True))
        case dict():
            return {key: joined([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)


def joined_infos(infos: dict[range, dict[str, Any]], num_envs: int) -> dict[str, Any]:
    """Put infos together as Gymnasium does those of single environments.

    Args:
        infos: of some environments, by which of the N they are.
        num_envs: N.
    """
    values: dict[str, dict[range, Any]] = {}
    for rows, info in infos.items():
        for key, value in info.items():
            values.setdefault(key, {})[rows] = value
    return {key: _joined_info(parts, num_envs) for key, parts in values.items()}


def _joined_info(parts: dict[range, Any], num_envs: int) -> Any:
    """Put one entry of infos together: a dict of entries, or an array [n_k, ...]."""
    first = next(iter(parts.values()))
    if isinstance(first, dict):
        return joined_infos(parts, num_envs)
    # What Gymnasium has for environments without the entry.
    missing = None if first.dtype == object else np.zeros((), first.dtype)
    whole = np.full((num_envs, *first.shape[1:]), missing, first.dtype)
    for rows, value in parts.items():
        whole[rows.start : rows.stop] = value
    return whole
