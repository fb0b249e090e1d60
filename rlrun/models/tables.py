"""Tables: the model of states that can be counted."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Table(nn.Module):
    """A row of numbers for each state, zeros at first, in float64.

    A state is read from its observation: one category, or several, each of them one-hot, of which
    it is a combination (a hand of Blackjack: 32 sums × 11 cards × 2).

    Attributes:
        rows: [S, K].
    """

    def __init__(self, sizes: Sequence[int], width: int):
        """Make a table.

        Args:
            sizes: number of values of each category, whose product is S.
            width: K.
        """
        super().__init__()
        self._sizes = list(sizes)
        self.rows = nn.Parameter(torch.zeros(math.prod(sizes), width, dtype=torch.float64))

    def states(self, obs: Tensor) -> Tensor:
        """Return the number of the state of each observation [..., D], as [...]."""
        state, *others = (category.argmax(-1) for category in obs.split(self._sizes, -1))
        for size, category in zip(self._sizes[1:], others, strict=True):
            state = state * size + category
        return state

    def forward(self, obs: Tensor) -> Tensor:
        """Return the row of each observation [..., D], as [..., K]."""
        return self.rows[self.states(obs)]
