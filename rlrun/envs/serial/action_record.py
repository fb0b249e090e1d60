"""The actions of running episodes, from which environments that cannot be copied are replayed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Steps that the record has room for at first; it grows to twice what it must keep.
SMALLEST_RECORD = 256


class ActionRecord:
    """The actions that N environments were given in their running episodes.

    One table of times and environments, as writing one row a step costs less than N rows. It
    goes back to the start of the oldest running episode; one that never ends is kept for ever.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike | None):
        """Make an empty record of episodes that begin now.

        Args:
            shape: of the actions of a step, (N, ...).
            dtype: of the actions.
        """
        self._shape, self._dtype = shape, dtype
        # The time, row of the table, at which every running episode began.
        self._starts = [0] * shape[0]
        self._make_room(0)

    def append(self, actions: NDArray, rows: NDArray[np.intp] | None) -> None:
        """Record the actions [N, ...] of a step.

        Args:
            actions: of all environments.
            rows: the environments that were given theirs; None: all.
        """
        if self._time == len(self._actions):
            oldest = min(self._starts)
            actions_kept, given_kept = self._actions[oldest:], self._given[oldest:]
            self._starts = [start - oldest for start in self._starts]
            self._make_room(len(actions_kept))
            self._actions[: self._time], self._given[: self._time] = actions_kept, given_kept
        self._actions[self._time] = actions
        if rows is not None:
            self._given[self._time] = False
            self._given[self._time, rows] = True
        self._time += 1

    def begin(self, index: int) -> None:
        """Forget the episode of environment ``index``: another one begins now."""
        self._starts[index] = self._time

    def episode(self, index: int) -> NDArray:
        """Return the actions of environment ``index`` in its running episode, a copy [T, ...]."""
        steps = slice(self._starts[index], self._time)
        return self._actions[steps, index][self._given[steps, index]]

    def load(self, episodes: Sequence[NDArray]) -> None:
        """Replace the record by the actions [T, ...] of each environment's running episode."""
        self._make_room(max(len(actions) for actions in episodes))
        self._starts = [self._time - len(actions) for actions in episodes]
        for index, actions in enumerate(episodes):
            self._actions[self._starts[index] : self._time, index] = actions

    def _make_room(self, time: int) -> None:
        """Make a new table with ``time`` rows to be filled in, and as many again free."""
        length = max(2 * time, SMALLEST_RECORD)
        self._time = time
        self._actions = np.empty((length, *self._shape), self._dtype)
        # [time, N], whether the environment was given the action or paused.
        self._given = np.ones((length, self._shape[0]), np.bool_)
