"""Functions run by Python or by compiled code, whichever there is for the shapes at hand."""

import pytest
import torch
from programs import RATE, Batch, State, add, adding, batches, expected, nothing_added, scaled
from torch.utils._pytree import tree_flatten

from rlrun.hardware import compilable
from rlrun.hardware.compilable import Compilable, Expected, Steps


def code_of(function: Compilable, example: Expected) -> list[int]:
    """Give a function code for an example, which does the same in Python; when it was called."""
    calls: list[int] = []

    def code(tensors):
        calls.append(len(tensors))
        return list(tree_flatten(function.eager(*rebuilt(tensors)))[0])

    def rebuilt(tensors):
        if isinstance(function, Steps):
            return State(*tensors[:2]), tensors[2], Batch(tensors[3])
        return tensors

    function.use_code(example, code, function.program(example)[1])
    return calls


def test_without_code_python_computes_it():
    function = scaled(2.0)
    assert not function.is_compiled
    assert function(torch.ones(2)).tolist() == [2.0, 2.0]


def test_code_is_called_where_the_shapes_are_its_own():
    function = scaled(2.0)
    calls = code_of(function, expected(function))
    assert function.is_compiled
    assert function(torch.ones(2)).tolist() == [2.0, 2.0]
    assert calls == [1]
    for other in (torch.ones(3), torch.ones(2, 1), torch.ones(2, dtype=torch.float64)):
        assert torch.equal(function(other), 2.0 * other)
    assert calls == [1]
    function.run_eagerly()
    assert not function.is_compiled
    function(torch.ones(2))
    assert calls == [1]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_steps_are_compiled_for_any_number_of_them(count):
    steps = adding()
    calls = code_of(steps, expected(steps))
    state, metrics = steps(nothing_added(), RATE, batches(count))
    assert calls == [4]
    assert state.count == count
    assert metrics["mean"].shape == (count,)
    plain = adding()(nothing_added(), RATE, batches(count))
    assert torch.equal(state.total, plain[0].total)
    assert torch.equal(metrics["mean"], plain[1]["mean"])


def test_other_shapes_are_compiled_at_need_if_they_are_expected():
    asked = []

    def compile_now(function, example):
        asked.append(example.arguments[0].shape)
        code_of(function, example)

    for every_shape, wanted in ((False, []), (True, [(3,), (4,)])):
        asked.clear()
        function = Compilable(lambda x: 2.0 * x)
        function.expect(torch.zeros(2), rate=1.0, every_shape=every_shape)
        function.compile_at_need(compile_now)
        for size in (3, 3, 4):
            assert function(torch.ones(size)).tolist() == [2.0] * size
        assert asked == [torch.Size(size) for size in wanted]


# ---------------------------------------------------------------------- graphs


@pytest.fixture
def graphs(monkeypatch):
    """The number of steps of each graph's calls; a graph is its function."""
    calls: list[int] = []

    def graph(function):
        def replay(state, constant, batches):
            calls.append(len(batches.x))
            return function(state, constant, batches)

        return replay

    monkeypatch.setattr(compilable, "cuda_graph", graph)
    return calls


@pytest.mark.parametrize(
    ("together", "size"),
    # 18 are two graphs of 9, 34 are 17 of 2; no number from 2 to 16 divides 17.
    [(1, 1), (4, 4), (11, 11), (16, 16), (17, 1), (18, 9), (32, 16), (34, 2), (320, 16)],
)
def test_steps_are_divided_evenly_among_graphs(graphs, together, size):
    steps = adding(together=together)
    steps.use_graph(expected(steps))
    assert graphs == [size]  # captured
    graphs.clear()
    state, metrics = steps(nothing_added(), RATE, batches(together))
    assert graphs == [size] * (together // size)
    plain = Steps(add)(nothing_added(), RATE, batches(together))
    assert torch.equal(state.total, plain[0].total)
    assert torch.equal(metrics["mean"], plain[1]["mean"])


def test_steps_that_are_too_few_for_a_graph_are_taken_without(graphs):
    steps = adding(together=4)
    steps.use_graph(expected(steps))
    graphs.clear()
    state, metrics = steps(nothing_added(), RATE, batches(11))
    assert graphs == [4, 4]
    assert state.count == 11
    assert metrics["mean"].shape == (11,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graphs_results_stay_what_they_are():
    function = compilable.cuda_graph(lambda x: 2.0 * x)
    first, second = (function(torch.full((2,), value, device="cuda")) for value in (1.0, 2.0))
    assert first.tolist() == [2.0, 2.0]
    assert second.tolist() == [4.0, 4.0]
