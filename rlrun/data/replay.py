"""The replay buffer: a ring of the newest steps of all environments, kept as tensors.

A row is one step of one environment. Rows are written in the order of time, the N environments of
one instant side by side, so that the next step of a row's environment is N rows further on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from rlrun.config.types import Count, Positive
from rlrun.data.rollout import Transitions
from rlrun.envs.problem import Problem
from rlrun.errors import UserError
from rlrun.hardware.memory import require_memory


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


class Rows(NamedTuple):
    """Columns of R rows.

    Attributes:
        obs: s, [R, D], in the smallest type that holds the environment's.
        action: a, [R] (int64) or [R, A].
        reward: r, [R].
        next_obs: the true successor s', [R, D], also where an episode ended.
        terminated: nothing follows s', [R] (bool).
        done: the episode ended there, for whatever reason, [R] (bool).
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    done: Tensor

    @classmethod
    def empty(cls, problem: Problem, size: int, device: torch.device | str) -> Self:
        """Make room for R rows of an environment."""
        obs = torch.empty(0, problem.obs_size, dtype=problem.obs_dtype)
        action = torch.empty(0, dtype=torch.int64)
        if not problem.discrete:
            action = torch.empty(0, *problem.action_shape)
        reward, flag = torch.empty(0), torch.empty(0, dtype=torch.bool)
        # On the CPU, zeros take no memory before they are written to.
        columns = [
            kind.new_zeros(size, *kind.shape[1:], device=device)
            for kind in (obs, action, reward, obs, flag, flag)
        ]
        return cls(*columns)

    @classmethod
    def of(cls, transitions: Transitions) -> Self:
        """Flatten T steps of N environments into T N rows."""
        assert isinstance(transitions.obs, Tensor)
        assert isinstance(transitions.next_obs, Tensor)
        columns = (
            transitions.obs,
            transitions.action,
            transitions.reward,
            transitions.next_obs,
            transitions.terminated,
            transitions.done,
        )
        return cls(*(column.flatten(0, 1) for column in columns))

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return sum(column[0].numel() * column.element_size() for column in self)


class Ring(NamedTuple):
    """What a step of a learner sees of a replay buffer.

    Attributes:
        rows: all C of them, [C, ...]; those that are not written yet are never drawn.
        written: rows so far, [] (int64): the next one goes to written mod C.
    """

    rows: Rows
    written: Tensor


class ReplayBatch(NamedTuple):
    """B rows to learn from, with what follows them: y = return + discount · V(next_obs).

    Attributes:
        obs: s_t, [B, D] (float32).
        action: a_t, [B] or [B, A].
        reward: Σ_k γ^k r_{t+k} of n steps, or fewer where the episode ends, [B].
        next_obs: s_{t+n}, [B, D] (float32).
        discount: γ^n, or 0 where nothing follows s_{t+n}, [B].
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    discount: Tensor


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
    ):
        """Make room.

        Args:
            problem: the environment's measures.
            capacity: rows wanted; rounded down to a multiple of N.
            num_envs: N.
            total_steps: environment steps of the run: more will not be written.
            device: where the learner is.
            anew: whether it is for a run that begins now; who looks at a policy fills none.

        Raises:
            UserError: it is too small for one step of all environments, or too large for the
                machine.
        """
        if capacity < num_envs:
            raise UserError(f"algo.replay.capacity={capacity} is less than {num_envs} environments")
        self.num_envs = num_envs
        self.capacity = capacity - capacity % num_envs
        self.row_bytes = Rows.empty(problem, 1, "cpu").row_bytes
        #: Bytes of all rows that this run will write.
        self.most_bytes = self.row_bytes * min(self.capacity, total_steps + num_envs)
        if anew:
            what = f"a replay buffer of {self.capacity:,} steps"
            # The CPU's is taken as it is written to, a GPU's at once.
            on_cpu = device.type == "cpu"
            needed = self.most_bytes if on_cpu else self.row_bytes * self.capacity
            require_memory(needed, what, device)
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


def take(ring: Ring, index: Tensor, *, gamma: float, steps: int, num_envs: int) -> ReplayBatch:
    """Return rows with what followed them in n steps.

    The sum ends where the episode does, and goes on from the newest row of an environment with what
    it has: both are targets of fewer steps. An episode that was cut by its time limit is
    bootstrapped from its true last observation, one that terminated is not.

    Args:
        ring: the rows.
        index: places of the first steps, [B].
        gamma: discount γ.
        steps: n.
        num_envs: N, the distance between two steps of one environment.
    """
    rows, capacity = ring.rows, len(ring.rows.reward)
    reward = rows.reward[index]
    factor = torch.full_like(reward, gamma)  # γ^k, where the last step taken is t + k − 1
    last = index
    for _ in range(steps - 1):
        age = (ring.written - 1 - last) % capacity
        goes_on = ~rows.done[last] & (age >= num_envs)
        last = torch.where(goes_on, (last + num_envs) % capacity, last)
        reward = reward + torch.where(goes_on, factor * rows.reward[last], 0.0)
        factor = torch.where(goes_on, gamma * factor, factor)
    return ReplayBatch(
        obs=rows.obs[index].float(),
        action=rows.action[index],
        reward=reward,
        next_obs=rows.next_obs[last].float(),
        discount=factor * (~rows.terminated[last]).float(),
    )
