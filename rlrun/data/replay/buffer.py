"""The replay buffer: a ring of the newest steps of all environments, kept as tensors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlrun.config.types import Count, Positive
from rlrun.data.replay.rows import Ring, Rows
from rlrun.data.rollout import Transitions
from rlrun.envs.problem import Problem
from rlrun.errors import UserError
from rlrun.hardware.memory import memory_suffices, require_memory


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How a method learns from what it has seen; ``conf/algo/sac.yaml`` explains the settings.

    Attributes:
        capacity: newest environment steps that are kept.
        batch_size: B, steps of one update.
        warmup_steps: environment steps with random actions, before the first update.
        updates_per_step: updates for each environment step.
        n_step: n, steps of reward in a target.
    """

    capacity: Count
    batch_size: Count
    warmup_steps: Count
    updates_per_step: Positive
    n_step: Count


class ReplayBuffer:
    """The newest C steps.

    Attributes:
        capacity: C, rows that it holds at most: a multiple of N.
        num_envs: N.
        count: rows written since the run began.
        ring: the rows, on the learner's device.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        capacity: int,
        num_envs: int,
        total_steps: int,
        device: torch.device,
        anew: bool = True,
        besides: int = 0,
    ):
        """Make room.

        Args:
            problem: the environment's measures.
            capacity: rows wanted; rounded down to a multiple of N.
            num_envs: N.
            total_steps: environment steps of the run: more will not be written.
            device: where the learner is.
            anew: whether it is for a run that begins now; who looks at a policy fills none.
            besides: bytes that are kept of each row elsewhere, of its priority, say.

        Raises:
            UserError: it is too small for one step of all environments, or too large for the
                machine.
        """
        if capacity < num_envs:
            raise UserError(f"algo.replay.capacity={capacity} is less than {num_envs} environments")
        self.num_envs = num_envs
        self.capacity = capacity - capacity % num_envs
        self.row_bytes = Rows.empty(problem, 1, "cpu").row_bytes + besides
        #: Bytes of all rows that this run will write.
        self.most_bytes = self.row_bytes * min(self.capacity, total_steps + num_envs)
        what = f"a replay buffer of {self.capacity:,} steps"
        if anew:
            # The CPU's is taken as it is written to, a GPU's at once.
            on_cpu = device.type == "cpu"
            needed = self.most_bytes if on_cpu else self.row_bytes * self.capacity
            require_memory(needed, what, device)
        with memory_suffices(f"{what} (algo.replay.capacity)"):
            rows = Rows.empty(problem, self.capacity, device)
        self.ring = Ring(rows, torch.zeros((), dtype=torch.int64, device=device))
        self._choices = problem.choices
        self.count = 0
        self._oldest = 0
        self._saved = 0
        self._cut: list[int] = []

    def __len__(self) -> int:
        """Return how many rows there are to draw from."""
        return min(self.count - self._oldest, self.capacity)

    def append(self, transitions: Transitions) -> None:
        """Keep what environments did, in place of the oldest rows if there is no room."""
        self.write(Rows.of(transitions))

    def write(self, rows: Rows) -> None:
        """Keep the next rows [R, ...], R ≤ C."""
        start, size = self.count % self.capacity, len(rows.reward)
        first = min(size, self.capacity - start)
        for column, values in zip(self.ring.rows, rows, strict=True):
            column[start : start + first] = values[:first]
            column[: size - first] = values[first:]
        self.count += size
        self.ring.written.fill_(self.count)

    def read(self, since: int, until: int | None = None) -> Rows:
        """Return a copy of the rows from a number on, oldest first, [R, ...] on the CPU.

        Args:
            since: number of the first one, counted from the run's beginning. Those that are no
                longer there are left out.
            until: number of the first one that is not wanted; None: all that there are.
        """
        since, end = max(since, self.count - len(self)), self.count if until is None else until
        index = torch.arange(since, end, device=self.ring.written.device) % self.capacity
        return Rows(*(column[index].cpu() for column in self.ring.rows))

    def uniform(self, updates: int, batch_size: int, generator: torch.Generator) -> Tensor:
        """Draw rows with equal probability, with replacement.

        Args:
            updates: K.
            batch_size: B.
            generator: source of the numbers (CPU).

        Returns:
            Places in the ring, [K, B] (int64), on its device.
        """
        newest_first = torch.randint(len(self), (updates, batch_size), generator=generator)
        index = (self.count - 1 - newest_first) % self.capacity
        return index.to(self.ring.written.device)

    def state_dict(self) -> dict[str, Any]:
        """Return how much was written, and the numbers of the rows that were cut after that.

        The rows are saved apart, and once (``runs/files/segments.py``): without what `cut` changes.
        """
        stored = len(self)
        cut = [number for number in self._cut if number >= self.count - stored]
        return {"count": self.count, "stored": stored, "cut": cut}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting, without a row so far.

        Raises:
            ValueError: there cannot have been so many rows, or not those that were cut.
        """
        count, saved = int(state["count"]), int(state["stored"])
        if not 0 <= saved <= min(count, self.capacity):
            raise ValueError(f"{saved:,} of {count:,} rows in {self.capacity:,} places")
        # Runs of commits before d5be36b have not noted them.
        self._cut = [int(number) for number in state.get("cut", ())]
        if not all(count - saved <= number < count for number in self._cut):
            raise ValueError(f"cut rows {self._cut} of {count - saved:,} to {count:,}")
        self.count, self._oldest, self._saved = count, count, saved
        self.ring.written.fill_(count)

    def refill(self, pieces: Iterable[tuple[int, Rows]]) -> None:
        """Take the rows back that there were when the state was saved.

        Args:
            pieces: one after the other, each with the number of its first row; rows that are older
                are passed over.

        Raises:
            ValueError: rows are missing, or not of this buffer's kind.
        """
        end, first = self.count, self.count - self._saved
        self.count = self._oldest = first
        for number, rows in pieces:
            self._require_kind(rows)
            kept = Rows(*(column[max(self.count - number, 0) :] for column in rows))
            if number > self.count or self.count + len(kept.reward) > end:
                raise ValueError(f"rows from {number:,} on where {self.count:,} is next")
            self.write(kept)
        if self.count != end:
            raise ValueError(f"rows {self.count:,} to {end:,} are missing")
        self._end_episodes(self._cut)

    def _require_kind(self, rows: Rows) -> None:
        """Refuse rows that are not of this buffer's kind."""
        for name, column, values in zip(Rows._fields, self.ring.rows, rows, strict=True):
            kind = (values.dtype, values.shape[1:], len(values))
            if kind != (column.dtype, column.shape[1:], len(rows.reward)):
                raise ValueError(f"{name} is {values.dtype} {list(values.shape)}")
        actions = rows.action
        if self._choices is not None and ((actions < 0) | (actions >= self._choices)).any():
            raise ValueError(f"an action is none of {self._choices}")

    def cut(self, environments: Iterable[int]) -> None:
        """Take note that episodes did not go on: they could not be put back where they were.

        Args:
            environments: their numbers.
        """
        if len(self):
            newest = [self.count - self.num_envs + number for number in environments]
            self._end_episodes(newest)
            self._cut += newest

    def _end_episodes(self, numbers: Iterable[int]) -> None:
        """Let episodes end in rows with these numbers."""
        for number in numbers:
            self.ring.rows.done[number % self.capacity] = True
