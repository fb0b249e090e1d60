"""How the numbers of many minibatches or iterations become one: what a row of metrics says.

A number is averaged, unless its name ends in ``_max``: of these the largest is kept.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def is_maximum(name: str) -> bool:
    """Say whether the largest value of this number counts, and not the mean."""
    return name.endswith("_max")


def summarize(history: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each number over all minibatches, or its maximum, each [].

    Args:
        history: for each pass over a rollout, the numbers of its M minibatches, each [M].
    """
    names = history[0] if history else ()
    columns = {name: torch.cat([metrics[name] for metrics in history]) for name in names}
    return {
        name: column.max() if is_maximum(name) else column.mean()
        for name, column in columns.items()
    }
