"""Functions as graphs: what decides their names, and what is refused."""

import pytest
import torch
from programs import adding, program_of, scaled

from rlrun.hardware.program import call_each, call_once, trace


def test_the_name_is_made_of_the_graph(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    path = program_of(scaled(2.0)).path()
    assert path.is_relative_to(tmp_path)
    assert program_of(scaled(2.0)).path() == path  # another function, but the same graph
    others = [scaled(3.0), scaled(2.0, size=3), adding()]
    assert len({path, *(program_of(other).path() for other in others)}) == 4
    monkeypatch.setattr(torch, "__version__", "2.0")
    assert program_of(scaled(2.0)).path() != path


def test_operations_are_counted():
    assert program_of(scaled(2.0)).operations == 1
    # Of one step: rate x, its sum with the total, the count, the mean.
    assert program_of(adding()).operations == 4


def test_tracing_computes_nothing():
    x = torch.ones(2)
    trace(lambda x: [x.mul_(2)], [x])
    assert torch.equal(x, torch.ones(2))


def test_a_result_that_is_an_argument_is_a_copy():
    program = trace(lambda x: [x, 2 * x], [torch.ones(2)])
    x = torch.ones(2)
    same, twice = call_once(program.forward())((x,))
    assert torch.equal(same, x)
    assert torch.equal(twice, 2 * x)
    assert same.data_ptr() != x.data_ptr()


def test_an_example_may_have_one_tensor_in_two_places():
    same = torch.zeros(2)
    program = trace(lambda x, y: [x - y], [same, same])
    x, y = torch.ones(2), torch.full((2,), 3.0)
    assert call_once(program.forward())((x, y))[0].tolist() == [-2.0, -2.0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: [x if x.sum() > 0 else -x],
        lambda x: [x[x > 0]],
        lambda x: [x * float(x.sum())],
        lambda x: [x * torch.tensor([1.0, 2.0])],
    ],
    ids=["branch", "selection", "number", "constant"],
)
def test_what_depends_on_values_cannot_be_traced(function):
    with pytest.raises(Exception, match=r".+"):
        trace(function, [torch.ones(2)])


def test_a_scan_takes_one_step_after_the_other():
    program = program_of(adding())
    run = call_each(program.forward(), program.carried, program.scanned)
    x = torch.arange(6.0).view(3, 2)
    total, count, mean = run((torch.zeros(2), torch.zeros(()), torch.tensor(0.5), x))
    assert total.tolist() == [3.0, 4.5]
    assert count == 3
    assert mean.tolist() == [0.25, 1.5, 3.75]
