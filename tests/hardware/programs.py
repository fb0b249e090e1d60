"""Small functions to compile, which several tests share."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from rlrun.hardware.compilable import Compilable, Expected, Steps
from rlrun.hardware.compile import find_compiler
from rlrun.hardware.program import Program

needs_compiler = pytest.mark.skipif(
    find_compiler() is None, reason="needs a C++ compiler (g++ or clang++)"
)


class State(NamedTuple):
    """A sum [2], and how many were added []."""

    total: Tensor
    count: Tensor


class Batch(NamedTuple):
    """Numbers, [2]."""

    x: Tensor


def add(state: State, batch: Batch, rate: Tensor) -> tuple[State, dict[str, Tensor]]:
    """A step: adds a batch to the state."""
    total = state.total + rate * batch.x
    return State(total, state.count + 1), {"mean": total.mean()}


def nothing_added() -> State:
    return State(torch.zeros(2), torch.zeros(()))


def batches(count: int) -> Batch:
    return Batch(torch.arange(2.0 * count).view(count, 2))


RATE = torch.tensor(0.5)


def adding(**expected: Any) -> Steps:
    """Steps of `add`, with what they expect."""
    steps = Steps(add)
    steps.expect(nothing_added(), RATE, batches(1), **{"rate": 1.0, **expected})
    return steps


def scaled(factor: float, size: int = 2) -> Compilable:
    """A function of one tensor, [2]."""
    function = Compilable(lambda x: factor * x)
    function.expect(torch.zeros(size), rate=1.0)
    return function


def program_of(function: Compilable) -> Program:
    return function.program(function.expected[0])[0]


def expected(function: Compilable) -> Expected:
    return function.expected[0]
