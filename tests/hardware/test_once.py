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


@pytest.mark.parametrize("function", [lambda x: [x.exp()], lambda x: [0.9**x], lambda x: [2 * x]])
def test_vectors_and_what_is_fast_are_left_alone(function):
    assert "rlrun.once" not in trace(function, EXAMPLE[:1]).source
    assert "rlrun.once" not in trace(lambda x: [2 * x], EXAMPLE[1:2]).source


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
