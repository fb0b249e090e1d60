"""Functions that Python runs or compiled code, whichever there is for the shapes at hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

from rlrun.hardware.program import Program, trace

# Steps that one CUDA graph takes: the cost of a launch is shared, the time to compile grows.
STEPS_PER_GRAPH = 16


@dataclass(frozen=True, eq=False)
class Expected:
    """Arguments that a function is going to be called with.

    Attributes:
        arguments: an example.
        rate: how many times it is computed for each environment step, on average; a call that
            takes K steps counts K times.
        together: K, times it is computed in a call.
    """

    arguments: tuple[Any, ...]
    rate: float
    together: int


class Compilable:
    """A pure function of trees of tensors: run by Python, or compiled for some shapes.

    Which of the two it is makes no difference beyond rounding. What it was not compiled for is left
    to Python.

    Attributes:
        expected: what to compile it for.
    """

    def __init__(self, function: Callable[..., Any]):
        """Take a function without side effects, of tensors whose values it does not look at."""
        self.function = function
        self.expected: list[Expected] = []
        self._every_shape = False
        self._codes: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._compile_now: Callable[[Compilable, Expected], None] | None = None

    def expect(
        self, *arguments: Any, rate: float, together: int = 1, every_shape: bool = False
    ) -> None:
        """Say what it will be called with, for the case that the run is compiled.

        Args:
            arguments: an example.
            rate: how many times it is computed for each environment step, on average.
            together: times it is computed in a call.
            every_shape: compile for each other shape, too, at its first call: there are few.
        """
        self.expected.append(Expected(arguments, rate, together))
        self._every_shape = every_shape

    def __call__(self, *arguments: Any) -> Any:
        """Compute it."""
        if not self._codes and self._compile_now is None:
            return self.eager(*arguments)
        shapes = self._shapes(arguments)
        if shapes not in self._codes and self._compile_now is not None:
            self._compile_now(self, Expected(arguments, rate=0.0, together=1))
        return self._codes.get(shapes, self.eager)(*arguments)

    def eager(self, *arguments: Any) -> Any:
        """Compute it in Python."""
        return self.function(*arguments)

    @property
    def is_compiled(self) -> bool:
        """Whether there is compiled code."""
        return bool(self._codes)

    def run_eagerly(self) -> None:
        """Leave everything to Python."""
        self._codes, self._compile_now = {}, None

    def program(self, expected: Expected) -> tuple[Program, TreeSpec]:
        """Trace it: what there is to compile, and how its results are arranged."""
        leaves, tree = tree_flatten(expected.arguments)
        return self._trace(lambda *leaves: self.function(*tree_unflatten(leaves, tree)), leaves)

    def use_code(self, expected: Expected, code: Callable[..., Any], results: TreeSpec) -> None:
        """Call compiled code from now on, where shapes are those of an example.

        Args:
            expected: the example.
            code: tuple of tensors -> list of tensors.
            results: how these are arranged.
        """

        def call(*arguments: Any) -> Any:
            # Compiled code relies on the strides of its examples.
            leaves = tuple(leaf.contiguous() for leaf in tree_flatten(arguments)[0])
            return tree_unflatten(code(leaves), results)

        self._codes[self._shapes(expected.arguments)] = call

    def use_graph(self, expected: Expected) -> None:
        """Replay a CUDA graph from now on, where shapes are those of an example."""
        code = self._codes[self._shapes(expected.arguments)] = cuda_graph(self.eager)
        code(*expected.arguments)

    def compile_at_need(self, compile_now: "Callable[[Compilable, Expected], None]") -> None:
        """Have other shapes compiled at their first call, if it expects them."""
        self._compile_now = compile_now if self._every_shape else None

    def _shapes(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple((tensor.shape, tensor.dtype) for tensor in tree_leaves(arguments))

    def _trace(
        self, function: Callable[..., Any], leaves: list[Tensor], **scan: int
    ) -> tuple[Program, TreeSpec]:
        trees: list[TreeSpec] = []

        def flat(*leaves: Tensor) -> list[Tensor]:
            values, tree = tree_flatten(function(*leaves))
            trees.append(tree)
            return values

        return trace(flat, leaves, **scan), trees[-1]


class Steps(Compilable):
    """Steps of a pure function, one after the other, in one call.

    The function is one step: (state, minibatch, constant) -> (state, metrics). A call takes (state,
    constant, minibatches [K, ...]) and returns the last state and the metrics, each [K].

    Compiled, the step is the body of a scan: it is compiled once, and for any K. A step of
    milliseconds is called K times instead, and writes to the state in place: a scan copies it.
    """

    def __init__(self, function: Callable[..., Any], *, in_place: bool = False):
        """Take one step, without side effects, of tensors whose values it does not look at.

        Args:
            function: the step.
            in_place: whether compiled code may write to the state that it is given.
        """
        super().__init__(function)
        self._in_place = in_place

    def eager(self, state: Any, constant: Any, batches: Any) -> tuple[Any, dict[str, Tensor]]:
        """Take the steps in Python."""
        history = []
        columns, tree = tree_flatten(batches)
        for k in range(len(columns[0])):
            batch = tree_unflatten([column[k] for column in columns], tree)
            state, metrics = self.function(state, batch, constant)
            history.append(metrics)
        return state, {name: torch.stack([m[name] for m in history]) for name in history[0]}

    def program(self, expected: Expected) -> tuple[Program, TreeSpec]:
        """Trace one step."""
        state, constant, batches = map(tree_flatten, expected.arguments)
        carried, scanned = len(state[0]), len(state[0]) + len(constant[0])

        def step(*leaves: Tensor) -> tuple[Any, dict[str, Tensor]]:
            return self.function(
                tree_unflatten(leaves[:carried], state[1]),
                tree_unflatten(leaves[scanned:], batches[1]),
                tree_unflatten(leaves[carried:scanned], constant[1]),
            )

        leaves = [*state[0], *constant[0], *(column[0] for column in batches[0])]
        if self._in_place:
            return self._trace(step, leaves, carried=carried)
        return self._trace(step, leaves, carried=carried, scanned=scanned)

    def use_code(self, expected: Expected, code: Callable[..., Any], results: TreeSpec) -> None:
        """Call compiled code (see :meth:`Compilable.use_code`)."""
        if not self._in_place:
            super().use_code(expected, code, results)
            return
        of_metrics = results.children()[1]
        carried = tuple(tree_leaves(expected.arguments[0]))

        def call(state: Any, constant: Any, batches: Any) -> tuple[Any, dict[str, Tensor]]:
            assert state is expected.arguments[0], "a state that is written to in place is one"
            given = (*carried, *tree_leaves(constant))
            history = [
                tree_unflatten(code((*given, *columns)), of_metrics)
                for columns in zip(*tree_leaves(batches), strict=True)
            ]
            return state, {name: torch.stack([m[name] for m in history]) for name in history[0]}

        self._codes[self._shapes(expected.arguments)] = call

    def use_graph(self, expected: Expected) -> None:
        """Replay a CUDA graph of several steps from now on."""
        counts = range(1, STEPS_PER_GRAPH + 1)
        size = max(n for n in counts if expected.together % n == 0)
        state, constant, batches = expected.arguments
        graph = cuda_graph(self.eager)

        def call(state: Any, constant: Any, batches: Any) -> tuple[Any, dict[str, Tensor]]:
            columns, tree = tree_flatten(batches)
            history = []
            for pieces in zip(*(column.split(size) for column in columns), strict=True):
                run = graph if len(pieces[0]) == size else self.eager
                state, metrics = run(state, constant, tree_unflatten(pieces, tree))
                history.append(metrics)
            return state, {name: torch.cat([m[name] for m in history]) for name in history[0]}

        self._codes[self._shapes(expected.arguments)] = call
        call(state, constant, tree_map(lambda column: torch.cat([column[:1]] * size), batches))

    def _shapes(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        state, constant, batches = arguments
        steps = ((column.shape[1:], column.dtype) for column in tree_leaves(batches))
        # A state that is written to in place is always the same.
        once = (constant,) if self._in_place else (state, constant)
        return (*super()._shapes(once), *steps)


def cuda_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of tensors of fixed shapes for a GPU; the first call does the work."""
    graph = torch.compile(function, fullgraph=True, dynamic=False, mode="reduce-overhead")

    def replay(*arguments: Any) -> Any:
        # CUDA graphs write their results to fixed memory, which the next replay overwrites.
        torch.compiler.cudagraph_mark_step_begin()
        return tree_map(torch.clone, graph(*arguments))

    return replay
