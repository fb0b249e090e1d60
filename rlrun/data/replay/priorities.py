"""Which rows of a replay buffer are drawn how often.

Schaul et al. 2016, "Prioritized Experience Replay", the proportional variant.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rlrun.config.types import Fraction, Positive
from rlrun.data.replay.rows import untouched

# Of a sum tree: a leaf, and as many nodes above all leaves as there are leaves.
BYTES_PER_ROW = 16


@dataclass(frozen=True, kw_only=True)
class Priorities:
    """How rows are preferred; ``conf/algo/dqn.yaml`` explains the settings.

    Attributes:
        exponent: α: 0 draws all alike.
        correction: β at the start of the run; it rises linearly to 1 at its end.
        epsilon: added to an error, so that every row is drawn at some time.
    """

    exponent: Fraction
    correction: Fraction
    epsilon: Positive

    def beta(self, progress: float) -> float:
        """Return β when a share of the run's steps is done."""
        return self.correction + (1 - self.correction) * progress


class Drawn(NamedTuple):
    """Rows that were drawn.

    Attributes:
        places: in the ring, [K, B].
        weight: importance weights, the largest of each minibatch 1, [K, B].
    """

    places: Tensor
    weight: Tensor


class SumTree:
    """Numbers p_i ≥ 0, of which one is drawn with probability p_i / Σ p in log₂ C steps.

    Node 1 is the root, 2i and 2i + 1 are below i, and each holds the sum of what is below it.
    """

    def __init__(self, size: int, device: torch.device):
        """Begin with C zeros."""
        self._leaves = 1 << (size - 1).bit_length()
        self._levels = self._leaves.bit_length() - 1
        self._size = size
        self.nodes = untouched(torch.empty(0).double(), (2 * self._leaves,)).to(device)

    @property
    def values(self) -> Tensor:
        """All p_i, [C]."""
        return self.nodes[self._leaves : self._leaves + self._size]

    @property
    def total(self) -> Tensor:
        """Σ p, []."""
        return self.nodes[1]

    def set(self, index: Tensor, value: Tensor) -> None:
        """Set p_i.

        Args:
            index: i, [R]; of equal ones, one counts.
            value: p_i, [R].
        """
        node = self._leaves + index
        self.nodes[node] = value.to(self.nodes)
        for _ in range(self._levels):
            node = node // 2
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def find(self, mass: Tensor) -> Tensor:
        """Return the i whose part of the line from 0 to Σ p a point is in, [...].

        Args:
            mass: points, in [0, Σ p), [...].
        """
        node = torch.ones_like(mass, dtype=torch.int64)
        for _ in range(self._levels):
            left = self.nodes[2 * node]
            # A point that rounding has moved beyond the last number falls on that number.
            right = (mass >= left) & (self.nodes[2 * node + 1] > 0)
            mass = torch.where(right, mass - left, mass)
            node = 2 * node + right
        return node - self._leaves


class PrioritizedSampler:
    """Draws rows with probability P(i) = p_i^α / Σ p^α, p_i = |δ_i| + ε.

    The K minibatches of a call are drawn before its first update. A row's priority is the largest
    that any row ever had until it is drawn for the first time.
    """

    def __init__(self, priorities: Priorities, capacity: int, device: torch.device):
        """Begin without rows."""
        self._settings = priorities
        self._tree = SumTree(capacity, device)
        self._largest = torch.ones((), dtype=torch.float64, device=device)
        self._written = 0
        self._loaded = False

    def draw(
        self,
        updates: int,
        batch_size: int,
        *,
        count: int,
        stored: int,
        progress: float,
        generator: torch.Generator,
    ) -> Drawn:
        """Draw rows.

        Args:
            updates: K.
            batch_size: B.
            count: rows that the buffer has been given so far; the new ones become known here.
            stored: rows that it has.
            progress: share of the run's steps done, for β.
            generator: source of the numbers (CPU).
        """
        self._take_note(count, stored)
        tree = self._tree
        # One point in each of B equal parts of the line: less variance (appendix B.2.1).
        share = torch.rand(updates, batch_size, dtype=torch.float64, generator=generator)
        place = (torch.arange(batch_size) + share) / batch_size
        index = tree.find(place.to(tree.nodes.device) * tree.total)
        # w_i = (N P(i))^−β / max w
        probability = tree.values[index] / tree.total
        weight = (stored * probability) ** -self._settings.beta(progress)
        weight = weight / weight.amax(-1, keepdim=True)
        return Drawn(index, weight.float())

    def _take_note(self, count: int, stored: int) -> None:
        """Give new rows the largest priority."""
        first = max(self._written, count - stored)
        device, capacity = self._tree.nodes.device, len(self._tree.values)
        if self._loaded:  # perhaps without the rows that the priorities are of
            self._loaded = False
            oldest = max(count - capacity, 0)
            gone = torch.arange(oldest, count - stored, device=device) % capacity
            self._tree.set(gone, torch.zeros(len(gone), device=device))
        index = torch.arange(first, count, device=device) % capacity
        self._tree.set(index, self._largest.expand(len(index)))
        self._written = count

    def learn(self, index: Tensor, error: Tensor) -> None:
        """Take note of the errors of rows that were drawn.

        Args:
            index: places in the ring, [K, B].
            error: δ, [K, B].
        """
        value = (error.double().abs() + self._settings.epsilon) ** self._settings.exponent
        self._largest = torch.maximum(self._largest, value.max())
        for places, values in zip(index, value, strict=True):  # the last one counts
            self._tree.set(places, values)

    def state_dict(self) -> dict:
        """Return the priorities of all rows that there are."""
        return {
            "values": self._tree.values[: self._written].clone(),
            "largest": self._largest.clone(),
            "written": self._written,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on with saved priorities.

        Raises:
            ValueError: they are those of another buffer, or none.
        """
        values, largest, written = state["values"], state["largest"], int(state["written"])
        rows = len(self._tree.values)
        # Older checkpoints have those of empty rows as well.
        if list(values.shape) not in ([rows], [min(rows, written)]):
            raise ValueError(f"priorities of {len(values)} rows, not {rows}")
        if largest.shape or not (torch.isfinite(values) & (values >= 0)).all() or not largest > 0:
            raise ValueError("priorities are not numbers above zero")
        device = self._tree.nodes.device
        self._tree.set(torch.arange(len(values), device=device), values.to(device))
        self._largest = largest.to(self._largest)
        self._written, self._loaded = written, True
