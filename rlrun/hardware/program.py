"""What there is to compile: a pure function as a graph of operations, and its compiled code.

A function is traced without being run. The graph says all that decides its compiled code, so that
the code can be kept under a name made of the graph, and be found again without asking the compiler.

Torch's compiler takes seconds to import, which is left to the functions that need it.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlrun.hardware import once, products
from rlrun.hardware.cpu import processor
from rlrun.hardware.rewriting import ProductRewriting
from rlrun.hardware.spec import cache_directory

# Steps of the example that a scan is compiled with; the code takes any number of them.
EXAMPLE_STEPS = 4

# Counts up when other code is made of the same program.
FORMAT = 1

# What torch saves in place of the function, which compiled code does not call.
FORWARD = "forward"

# Of torch's compiler, when code is made and when it is loaded.
SETTINGS = {
    # A C++ wrapper around the kernels saves the Python one's share of each call.
    "cpp_wrapper": True,
    # /proc/cpuinfo says which vector instructions there are: torch would compile five small
    # programs to see that for itself.
    "cpp.vec_isa_ok": True,
    # Compiling all of torch's headers pays for itself from the third program on only.
    "cpp_cache_precompile_headers": False,
}


@dataclass(frozen=True)
class Input:
    """A tensor of a program: what its code depends on, and not its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str

    def example(self, *leading: int) -> Tensor:
        """Return a tensor of this kind, with more axes in front, which nobody is to read.

        Not zeros: writing them takes the memory, which may be that of a replay buffer.
        """
        return torch.empty((*leading, *self.shape), dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class Program:
    """A pure function of a list of tensors, which may be one step of a scan.

    Attributes:
        source: of a Python function ``forward(self, *tensors)``, one operation a line.
        operations: how many torch dispatches for a call (for a step) without a compiler.
        inputs: of that function.
        carried: so many of the first inputs are a state, which it returns first.
        scanned: inputs from this one on have one value a step, over which it is scanned; None: it
            is called once, and what it carries is written to in place.
    """

    source: str
    operations: int
    inputs: tuple[Input, ...]
    carried: int = 0
    scanned: int | None = None

    def path(self) -> Path:
        """Return where this program's code is kept: a name that no other's code has."""
        parts = (FORMAT, torch.__version__, torch.get_num_threads(), processor(), self)
        name = hashlib.sha256(repr(parts).encode()).hexdigest()
        return cache_directory() / "rlrun" / f"{name}.code"

    def forward(self) -> Callable[..., Sequence[Tensor]]:
        """Return the function of the source."""
        names: dict[str, Any] = {"torch": torch, "device": torch.device, "inf": inf, "nan": nan}
        exec(self.source, names)
        return names["forward"]

    def example(self) -> tuple[Tensor, ...]:
        """Return inputs to compile with."""
        unscanned = len(self.inputs) if self.scanned is None else self.scanned
        stacked = [tensor.example(EXAMPLE_STEPS) for tensor in self.inputs[unscanned:]]
        for tensor in stacked:
            torch._dynamo.mark_dynamic(tensor, 0)
        return (*(tensor.example() for tensor in self.inputs[:unscanned]), *stacked)


def call_once(
    forward: Callable[..., Any], carried: int = 0
) -> Callable[[Sequence[Tensor]], tuple[Tensor, ...]]:
    """Return a program's function as one of a list of tensors, of which it changes the state.

    Args:
        forward: the function.
        carried: how many of the first tensors are the state.
    """

    def call(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        results = forward(None, *tensors)
        for tensor, value in zip(tensors[:carried], results[:carried], strict=True):
            tensor.copy_(value)
        return tuple(results[carried:])

    return call


def call_each(
    forward: Callable[..., Any], carried: int, scanned: int
) -> Callable[[Sequence[Tensor]], tuple[Tensor, ...]]:
    """Return the scan of a program's function: the last state, and what each step returns."""
    from torch._higher_order_ops import scan

    def call(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        constant = tensors[carried:scanned]

        def step(state: Any, batch: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
            results = forward(None, *state, *constant, *batch)
            return tuple(results[:carried]), tuple(results[carried:])

        state, stacked = scan(step, tuple(tensors[:carried]), tuple(tensors[scanned:]), dim=0)
        return (*state, *stacked)

    return call


def trace(
    function: Callable[..., Sequence[Tensor]],
    tensors: Sequence[Tensor],
    *,
    carried: int = 0,
    scanned: int | None = None,
) -> Program:
    """Return what a function does to tensors like these, without doing it.

    Args:
        function: tensors -> tensors, without side effects and without a look at their values.
        tensors: of the shapes and types to come, with one step's values of what is scanned.
        carried: see :class:`Program`.
        scanned: see :class:`Program`.

    Raises:
        Exception: of torch, where the function is not of that kind.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    def distinct(*tensors: Tensor) -> list[Tensor]:
        # A scan wants new tensors from each step.
        results, seen = [], {id(tensor) for tensor in tensors}
        for result in function(*tensors):
            results.append(result.clone() if id(result) in seen else result)
            seen.add(id(result))
        return results

    inputs = kinds(tensors)
    with torch.no_grad():
        # Of tensors of its own: one that an example has in two places would be taken for one input.
        graph = make_fx(distinct, tracing_mode="fake")(*(kind.example() for kind in inputs)).graph
    if any(node.op == "get_attr" for node in graph.nodes):
        raise TypeError("a tensor is made from numbers: take it from another one's new_full, say")
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
        # What autograd keeps is detached, which changes no value.
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)
    calls = [node for node in graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    for node in reversed(calls):
        # Checks of shapes are among them, whose results are no tensors.
        if not node.users and not node.target._schema.is_mutable:
            graph.erase_node(node)
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and not all(isinstance(size, int) for size in value.shape):
            raise TypeError("the size of a tensor depends on values: take masked means, say")
    once.numbers_once(graph)
    dtype = products.type_of_products()
    if dtype is not None:
        ProductRewriting(graph, dtype).run()
    return Program(
        source=graph.python_code("self").src,
        operations=len(calls),
        inputs=inputs,
        carried=carried,
        scanned=scanned,
    )


def kinds(tensors: Sequence[Tensor]) -> tuple[Input, ...]:
    """Return what compiled code depends on in these tensors."""
    return tuple(Input(tuple(t.shape), t.dtype, str(t.device)) for t in tensors)


def settings() -> AbstractContextManager[None]:
    """Return the context in which torch compiles, or loads, as it is to."""
    import torch._inductor.config

    return torch._inductor.config.patch(SETTINGS)


def compile_program(program: Program, path: Path) -> None:
    """Compile a program for the CPU, and keep its code.

    Args:
        program: what to compile.
        path: where to keep the code; a file there appears whole or not at all.

    Raises:
        Exception: of torch: the compiler failed.
    """
    # Whoever calls the code looks at the shapes.
    options: dict[str, Any] = {"guard_filter_fn": lambda guards: [False] * len(guards)}
    path.parent.mkdir(parents=True, exist_ok=True)
    once.teach_the_compiler()
    products.teach_the_compiler()
    forward = program.forward()
    if program.scanned is None:
        function = call_once(forward, program.carried)
    else:
        function = call_each(forward, program.carried, program.scanned)
    compiler: Any = torch.compile(function, fullgraph=True, dynamic=False, options=options)
    with torch.no_grad(), settings():
        compiled = compiler.aot_compile(((program.example(),), {}))
    compiled.save_compiled_function(str(path), {FORWARD: forward})


def load_code(path: Path) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
    """Load a program's code.

    Raises:
        Exception: of many kinds, where the file is damaged.
    """
    with path.open("rb") as file, settings():
        return torch.compiler.load_compiled_function(file, external_data={FORWARD: None})
