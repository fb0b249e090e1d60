"""Whether a run is compiled, and what it says of that."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from programs import RATE, adding, batches, needs_compiler, nothing_added, program_of, scaled
from tiny import CPU

from rlrun.errors import UserError
from rlrun.hardware import compile as compile_
from rlrun.hardware.compilable import Compilable
from rlrun.hardware.compile import FEW_COMPUTATIONS, Compilation, duration, find_compiler

AUTO, ON = replace(CPU, compile="auto"), replace(CPU, compile="on")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The only directory in PATH, which is empty; nor does CXX name a compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def install(programs: Path, name: str) -> str:
    program = programs / name
    program.touch(mode=0o755)
    return str(program)


def long_chain(x: torch.Tensor) -> torch.Tensor:
    """A hundred operations."""
    for _ in range(100):
        x = x + 1.0
    return x


def chain(rate: float) -> Compilable:
    function = Compilable(long_chain)
    function.expect(torch.zeros(2), rate=rate)
    return function


def test_a_compiler_is_found_where_torch_looks_for_it(programs, monkeypatch):
    assert find_compiler() is None
    for name in ("clang++", "g++"):  # g++ comes first, if both are there
        path = install(programs, name)
        assert find_compiler() == path
    monkeypatch.setenv("CXX", "my-compiler")
    assert find_compiler() == "my-compiler"


def decided(steps: int, *functions: Compilable, hardware=AUTO) -> Compilation:
    return Compilation(functions, hardware, total_steps=steps)


def test_a_run_is_compiled_if_that_saves_more_than_it_takes(programs):
    install(programs, "g++")
    # 0.7 ms an update without a compiler: 10,000 of them take 7 s, 100,000 over a minute.
    compilation = decided(10_000, chain(rate=1.0))
    assert not compilation.wanted
    assert compilation.reason == "not compiled: 10,000 updates, which would save about 6 s only"
    compilation = decided(200_000, chain(rate=0.5))
    assert compilation.wanted
    assert compilation.reason == (
        "compiled: 100,000 updates, about 65 s saved; not in the cache yet"
    )
    assert decided(FEW_COMPUTATIONS - 1, chain(rate=1.0)).reason == (
        f"not compiled: {FEW_COMPUTATIONS - 1} updates only"
    )


def test_code_in_the_cache_pays_sooner(programs):
    install(programs, "g++")
    function = chain(rate=1.0)
    assert not decided(10_000, function).wanted
    path = program_of(function).path()
    path.parent.mkdir(parents=True)
    path.touch()
    compilation = decided(10_000, function)
    assert compilation.wanted
    assert compilation.reason == "compiled: 10,000 updates, about 6 s saved; code from the cache"


def test_many_short_functions_do_not_pay(programs):
    install(programs, "g++")
    # The way to compiled code takes as long as the operations that it saves.
    assert not decided(1_000_000, scaled(2.0)).wanted


def test_without_a_compiler_no_run_is_compiled_on_the_cpu(programs):
    compilation = decided(10**6, chain(rate=1.0))
    assert not compilation.wanted
    assert compilation.reason == "not compiled: there is no C++ compiler (g++ or clang++)"
    with pytest.raises(UserError, match=r"hardware.compile=on: there is no C\+\+ compiler"):
        decided(10**6, chain(rate=1.0), hardware=ON)
    # Triton, which compiles for GPUs, needs none.
    assert decided(10**6, chain(rate=1.0), hardware=replace(AUTO, device="cuda")).wanted


def test_the_user_has_the_last_word(programs):
    install(programs, "g++")
    for steps in (1, 10**9):
        assert decided(steps, chain(rate=1.0), hardware=ON).wanted
        compilation = decided(steps, chain(rate=1.0), hardware=CPU)
        assert not compilation.wanted
        assert compilation.reason is None


def test_where_nothing_can_be_compiled_nobody_waits(programs):
    compilation = decided(10**9, Compilable(long_chain), hardware=ON)
    assert not compilation.wanted
    assert compilation.reason == "hardware.compile=on: nothing of this algorithm can be compiled"
    assert decided(10**9, Compilable(long_chain)).reason is None


@pytest.mark.parametrize("before", [True, False])
def test_a_resumed_run_is_compiled_if_it_was(programs, before):
    function = chain(rate=1.0)
    for hardware in (AUTO, ON, CPU):
        compilation = Compilation([function], hardware, total_steps=1, decided=before)
        assert compilation.wanted is before


def test_times_are_said_as_people_say_them():
    assert [duration(s) for s in (-1, 0.4, 89, 240, 7200)] == ["0 s", "0 s", "89 s", "4 min", "2 h"]


# ---------------------------------------------------------------------- with a compiler


@needs_compiler
def test_compiled_steps_equal_those_in_python(compiler):
    steps = adding()
    expected = steps(nothing_added(), RATE, batches(5))
    waited = []
    compilation = decided(1, steps, hardware=ON)
    compilation.run(waiting=lambda text: waited.append(text) or compile_.nullcontext())
    assert waited == ["compiling the update"]
    assert steps.is_compiled
    state, metrics = steps(nothing_added(), RATE, batches(5))
    torch.testing.assert_close(state, expected[0])
    torch.testing.assert_close(metrics, expected[1])


@needs_compiler
def test_damaged_code_is_made_anew(compiler):
    function = scaled(5.0)
    path = program_of(function).path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"damaged")
    decided(1, function, hardware=ON).run()
    assert path.read_bytes() != b"damaged"
    assert function(torch.ones(2)).tolist() == [5.0, 5.0]


@needs_compiler
def test_other_shapes_are_compiled_when_they_come(compiler):
    function = Compilable(lambda x: 7.0 * x)
    function.expect(torch.zeros(2), rate=1.0, every_shape=True)
    waited = []
    decided(1, function, hardware=ON).run(
        waiting=lambda text: waited.append(text) or compile_.nullcontext()
    )
    function.eager = None  # nothing is left to Python
    for size in (2, 3, 3):
        assert function(torch.ones(size)).tolist() == [7.0] * size
    assert waited == ["compiling the update", "compiling the update for another length"]


def test_after_a_failure_all_is_left_to_python(programs, monkeypatch):
    program = install(programs, "g++")
    Path(program).write_text("#!/bin/sh\nexit 1\n")
    function = chain(rate=1.0)
    compilation = decided(1, function, hardware=ON)
    with pytest.raises(Exception, match=r".+"):
        compilation.run()
    assert not function.is_compiled
    assert torch.equal(function(torch.zeros(2)), torch.full((2,), 100.0))
