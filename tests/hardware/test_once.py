"""Numbers that compiled code computes once: the same numbers, and outside of the loops."""

import re

import pytest
import torch
from programs import needs_compiler

from rlrun.hardware.program import call_once, compile_program, load_code, trace


def corrected(moments, steps, log_alpha):
    """What Adam and a temperature have: a vector, and numbers that take long to compute."""
    return [moments / (1 - 0.9**steps), moments * log_alpha.exp()]


EXAMPLE = (torch.linspace(-1, 1, 1000), torch.tensor(3.0), torch.tensor([0.5]))


def test_what_is_traced_has_the_same_results():
    program = trace(corrected, EXAMPLE)
    assert program.source.count("rlrun.once") == 2
    for result, expected in zip(
        call_once(program.forward())(EXAMPLE), corrected(*EXAMPLE), strict=True
    ):
        assert torch.equal(result, expected)


@pytest.mark.parametrize("function", [lambda x: [x.exp()], lambda x: [0.9**x]])
def test_vectors_are_left_alone(function):
    assert "rlrun.once" not in trace(function, EXAMPLE[:1]).source


def test_what_is_fast_is_left_alone():
    assert "rlrun.once" not in trace(lambda x: [2 * x], EXAMPLE[1:2]).source


@needs_compiler
def test_a_scan_computes_them_in_each_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    def decay(steps, moments):
        return [steps + 1, moments / (1 - 0.9**steps)]

    program = trace(decay, (torch.tensor(1.0), EXAMPLE[0]), carried=1, scanned=1)
    assert "rlrun.once" in program.source
    path = tmp_path / "decay.code"
    compile_program(program, path)
    last, results = load_code(path)((torch.tensor(1.0), EXAMPLE[0].expand(3, -1).contiguous()))
    assert last == 4
    for step, result in enumerate(results, start=1):
        torch.testing.assert_close(result, EXAMPLE[0] / (1 - 0.9**step))


@needs_compiler
def test_compiled_code_computes_them_outside_of_its_loops(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    program = trace(corrected, EXAMPLE)
    path = tmp_path / "corrected.code"
    compile_program(program, path)
    results = load_code(path)(EXAMPLE)
    for result, expected in zip(results, corrected(*EXAMPLE), strict=True):
        torch.testing.assert_close(result, expected)
    code = "".join(file.read_text() for file in tmp_path.rglob("*.cpp"))
    loops = re.findall(r"for\(int64_t x0.*?store\(", code, flags=re.DOTALL)
    assert loops
    assert not any("pow(" in loop or "exp(" in loop for loop in loops)
    assert "pow(" in code  # and somewhere they are
