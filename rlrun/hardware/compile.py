"""Whether a run is compiled, and compiling it: written once for all that learns."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.utils._pytree import TreeSpec

from rlrun.errors import UserError
from rlrun.hardware.build import build, seconds_to_build
from rlrun.hardware.compilable import Compilable, Expected
from rlrun.hardware.cpu import available_cores
from rlrun.hardware.program import Program, load_code
from rlrun.hardware.spec import Hardware

# Measured on two cores, for PPO's and A2C's networks of 64-64 units: what an operation on small
# tensors costs Python, most of it on the way to the kernel; and what a call of compiled code does.
SECONDS_PER_OPERATION = 7e-6
SECONDS_PER_CALL = 5e-5

# To load code that is in the cache.
SECONDS_TO_LOAD = 1.5

# Fewer computations than that are not worth the half second that tracing them takes.
FEW_COMPUTATIONS = 1_000


@dataclass(frozen=True)
class Part:
    """A function, what it is expected to be called with, and the program that this makes."""

    function: Compilable
    expected: Expected
    program: Program
    results: TreeSpec


class Compilation:
    """What there is to compile in a run.

    Attributes:
        wanted: whether it is to be compiled.
        reason: of that, in one line; None where there is nothing to say.
        updates: optimiser steps of the run, about.
    """

    def __init__(
        self,
        functions: Sequence[Compilable],
        hardware: Hardware,
        *,
        total_steps: int,
        decided: bool | None = None,
    ):
        """Decide whether to compile.

        Args:
            functions: of all learners.
            hardware: where they run.
            total_steps: environment steps of the run.
            decided: what was decided when the run began; None: it begins now.

        Raises:
            UserError: ``hardware.compile=on``, and there is no compiler.
        """
        self._functions = functions
        self._hardware = hardware
        self._on_cpu = torch.device(hardware.device).type == "cpu"
        self._parts: list[Part] | None = None
        self.computations = {
            expected: round(expected.rate * total_steps)
            for function in functions
            for expected in function.expected
        }
        self.updates = max(self.computations.values(), default=0)
        self.reason: str | None = None
        if decided is None:
            self.wanted = self._decide()
        else:
            self.wanted = decided
            self.reason = "compiled, as when it began" if decided else None

    def _decide(self) -> bool:
        """Decide for a new run, and say why."""
        asked = self._hardware.compile
        if asked == "off":
            return False
        if not self.computations:
            if asked == "on":
                self.reason = "hardware.compile=on: nothing of this algorithm can be compiled"
            return False
        if self._on_cpu and find_compiler() is None:
            if asked == "on":
                raise UserError("hardware.compile=on: there is no C++ compiler (g++ or clang++)")
            self.reason = "not compiled: there is no C++ compiler (g++ or clang++)"
            return False
        if asked == "on":
            self.reason = f"compiled, as asked for; {self._where_from()}"
            return True
        updates = f"{self.updates:,} updates"
        if max(self.computations.values()) < FEW_COMPUTATIONS:
            self.reason = f"not compiled: {updates} only"
            return False
        saved = self.seconds_saved()
        if saved <= self.seconds_to_compile():
            self.reason = f"not compiled: {updates}, which would save about {duration(saved)} only"
            return False
        self.reason = f"compiled: {updates}, about {duration(saved)} saved; {self._where_from()}"
        return True

    def _where_from(self) -> str:
        if not self._on_cpu:
            return "for the GPU"
        return "code from the cache" if not self._missing() else "not in the cache yet"

    def seconds_saved(self) -> float:
        """Return about how long the run is shorter for being compiled, without compiling."""
        return sum(
            self.computations[part.expected]
            * (
                SECONDS_PER_OPERATION * part.program.operations
                - SECONDS_PER_CALL / part.expected.together
            )
            for part in self.parts
        )

    def seconds_to_compile(self) -> float:
        """Return about how long compiling takes."""
        missing = self._missing() if self._on_cpu else [part.program for part in self.parts]
        return SECONDS_TO_LOAD + seconds_to_build(missing, available_cores())

    @property
    def parts(self) -> list[Part]:
        """What is to be compiled."""
        if self._parts is None:
            self._parts = [
                Part(function, expected, *function.program(expected))
                for function in self._functions
                for expected in function.expected
            ]
        return self._parts

    def _missing(self) -> list[Program]:
        return [part.program for part in self.parts if not part.program.path().exists()]

    def run(
        self,
        stopped: Callable[[], bool] = lambda: False,
        waiting: Callable[[str], AbstractContextManager[None]] = lambda text: nullcontext(),
    ) -> None:
        """Compile, if that is wanted; what is in the cache is only loaded.

        Args:
            stopped: whether the user wants to stop.
            waiting: what is waited for -> context that says so while it lasts.

        Raises:
            Exception: of torch: the compiler failed. Then all is left to Python.
        """
        if not self.wanted:
            return
        try:
            with waiting("compiling the update"):
                self._compile(self.parts, stopped)
        except BaseException:
            self.run_eagerly()
            raise

        def compile_now(function: Compilable, expected: Expected) -> None:
            with waiting("compiling the update for another length"):
                self._compile([Part(function, expected, *function.program(expected))], stopped)

        if self._on_cpu:
            for function in self._functions:
                function.compile_at_need(compile_now)

    def run_eagerly(self) -> None:
        """Leave everything to Python."""
        for function in self._functions:
            function.run_eagerly()

    def _compile(self, parts: Sequence[Part], stopped: Callable[[], bool]) -> None:
        if not self._on_cpu:
            for part in parts:
                part.function.use_graph(part.expected)
            return
        build([part.program for part in parts], processes=available_cores(), stopped=stopped)
        if stopped():
            return
        for part in parts:
            part.function.use_code(part.expected, read(part.program), part.results)


def read(program: Program) -> Callable[..., object]:
    """Load a program's code from the cache, where it was a moment ago."""
    try:
        return load_code(program.path())
    except Exception:  # a damaged file raises whatever its bytes happen to mean
        program.path().unlink(missing_ok=True)
        build([program], processes=1)
        return load_code(program.path())


def find_compiler() -> str | None:
    """Return the C++ compiler that torch.compile would call, or None."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def duration(seconds: float) -> str:
    """Return a time as people say it: 40 s, 4 min, 2 h."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
