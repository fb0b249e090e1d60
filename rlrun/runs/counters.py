"""How far a run is, and where its time goes."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass


@dataclass
class Counters:
    """How far a run is.

    Attributes:
        step: environment steps, over all environments.
        update: optimiser steps.
        time_s: seconds spent so far, in this process and in those before it, without compiling.
        evaluated: environment step of the last evaluation, or -1.
        last_return: mean return of the last evaluation's episodes.
        last_std: their standard deviation.
        best_return: the best of them.
        best_step: environment step of the evaluation that reached it first, or -1.
        converged: whether more steps would change nothing.
    """

    step: int = 0
    update: int = 0
    time_s: float = 0.0
    evaluated: int = -1
    last_return: float = math.nan
    last_std: float = math.nan
    best_return: float = -math.inf
    best_step: int = -1
    converged: bool = False

    def state_dict(self) -> dict:
        """Return the numbers."""
        return asdict(self)

    def load_state_dict(self, state: dict) -> None:
        """Continue counting.

        Raises:
            KeyError, TypeError, ValueError: it is the state of something else.
        """
        state = {"last_std": math.nan, **state}  # earlier versions did not keep it
        for name, value in asdict(self).items():
            setattr(self, name, type(value)(state[name]))


class Stopwatch:
    """Keeps ``counters.time_s``, and the seconds of each phase of an iteration."""

    def __init__(self, counters: Counters):
        """Begin to count now."""
        self._counters = counters
        self._phases: dict[str, float] = {}
        self._paused = 0.0
        self._ticked = time.perf_counter()

    def tick(self) -> None:
        """Bring ``counters.time_s`` up to date."""
        now = time.perf_counter()
        self._counters.time_s += now - self._ticked
        self._ticked = now

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the seconds spent inside to a phase."""
        start = time.perf_counter() - self._paused
        yield
        elapsed = time.perf_counter() - self._paused - start
        self._phases[phase] = self._phases.get(phase, 0.0) + elapsed

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out what is waited for once, such as compiling."""
        self.tick()
        start = time.perf_counter()
        yield
        self._ticked = time.perf_counter()
        self._paused += self._ticked - start

    def drain(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call."""
        phases, self._phases = self._phases, {}
        return phases
