"""How far a run is, and where its time goes."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from rlrun.metrics import is_maximum


@dataclass
class Counters:
    """How far a run is.

    Attributes:
        step: environment steps, over all environments.
        update: optimiser steps.
        time_s: seconds spent so far, in this process and in those before it, without compiling.
        evaluated: environment step of the last evaluation, or -1.
        last_return: return of the last evaluation.
        best_return: the best of them.
        best_step: environment step of the evaluation that reached it first, or -1.
    """

    step: int = 0
    update: int = 0
    time_s: float = 0.0
    evaluated: int = -1
    last_return: float = math.nan
    best_return: float = -math.inf
    best_step: int = -1

    def state_dict(self) -> dict:
        """Return the numbers."""
        return asdict(self)

    def load_state_dict(self, state: dict) -> None:
        """Continue counting."""
        for name, value in state.items():
            setattr(self, name, value)


class Stopwatch:
    """Keeps ``counters.time_s``, and the seconds of each phase of an iteration."""

    def __init__(self, counters: Counters):
        """Begin to count now."""
        self._counters = counters
        self._phases: dict[str, float] = {}
        self._ticked = time.perf_counter()

    def tick(self) -> None:
        """Bring ``counters.time_s`` up to date."""
        now = time.perf_counter()
        self._counters.time_s += now - self._ticked
        self._ticked = now

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the seconds spent inside to a phase."""
        start = time.perf_counter()
        yield
        self._phases[phase] = self._phases.get(phase, 0.0) + time.perf_counter() - start

    def drain(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call."""
        phases, self._phases = self._phases, {}
        return phases


class Ledger:
    """What iterations have said since the last row of metrics.

    Sums, or maxima where those are asked for (:mod:`rlrun.metrics`), stay tensors, so that nothing
    waits for a GPU between rows.

    Attributes:
        steps: environment steps since then.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.steps = 0
        self._totals: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._episodes: list[tuple[float, int]] = []

    def add(
        self, metrics: dict[str, Tensor], episodes: Sequence[tuple[float, int]], steps: int
    ) -> None:
        """Note one iteration.

        Args:
            metrics: its numbers, each [].
            episodes: (undiscounted return, length) of those that ended in it.
            steps: environment steps of it.
        """
        self.steps += steps
        self._episodes += episodes
        for name, value in metrics.items():
            value = value.detach().float()
            join = torch.maximum if is_maximum(name) else torch.add
            total = self._totals.get(name)
            self._totals[name] = value.clone() if total is None else join(total, value)
            self._counts[name] = self._counts.get(name, 0) + 1

    def values(self) -> dict[str, float]:
        """Return each number's mean (or maximum) over the iterations that had it."""
        values = {
            name: total.item() / (1 if is_maximum(name) else self._counts[name])
            for name, total in self._totals.items()
        }
        if self._episodes:
            returns, lengths = zip(*self._episodes, strict=True)
            values["train/return"] = sum(returns) / len(returns)
            values["train/length"] = sum(lengths) / len(lengths)
        values["train/episodes"] = len(self._episodes)
        return values

    def clear(self) -> None:
        """Begin the next row."""
        self.steps, self._totals, self._counts, self._episodes = 0, {}, {}, []

    def state_dict(self) -> dict:
        """Return what the next row will be made of."""
        return {
            "steps": self.steps,
            "totals": {name: total.cpu() for name, total in self._totals.items()},
            "counts": dict(self._counts),
            "episodes": list(self._episodes),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self.steps, self._totals, self._counts = state["steps"], state["totals"], state["counts"]
        self._episodes = [(value, length) for value, length in state["episodes"]]
