import math
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import CPU

from rlrun.config.schema import convert
from rlrun.errors import UserError
from rlrun.hardware.cpu import available_cores
from rlrun.hardware.spec import (
    SECONDS_SAVED_PER_UPDATE,
    SECONDS_TO_COMPILE,
    Hardware,
    find_compiler,
)

AUTO = replace(CPU, compile="auto")
TWO_THREADS = replace(CPU, threads=2)
# Updates after which compiling has paid for itself.
BREAK_EVEN = round(SECONDS_TO_COMPILE / SECONDS_SAVED_PER_UPDATE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 0}, "hardware.threads must be at least 1, got 0"),
        ({"threads": 1e9}, "hardware.threads must be at most 1024, got 1000000000"),
        ({"learner_threads": 0}, "hardware.learner_threads must be at least 1, got 0"),
        ({"learner_threads": 100_000}, "hardware.learner_threads must be at most 1024, got 100000"),
        ({"device": "gpu"}, "hardware.device must be cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "cuda:9999999"}, "hardware.device must be cpu, cuda or cuda:N, got 'cuda:99"),
    ],
)
def test_what_no_machine_has_is_refused(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        convert(vars(CPU) | changes, Hardware, "hardware")


# ---------------------------------------------------------------------- compiling


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The only directory in PATH, which is empty; nor does CXX name a compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path


def install(programs: Path, name: str) -> str:
    program = programs / name
    program.touch(mode=0o755)
    return str(program)


def test_a_compiler_is_found_where_torch_looks_for_it(programs, monkeypatch):
    assert find_compiler() is None
    for name in ("clang++", "g++"):  # g++ comes first, if both are there
        path = install(programs, name)
        assert find_compiler() == path
    monkeypatch.setenv("CXX", "my-compiler")
    assert find_compiler() == "my-compiler"


def test_long_runs_are_compiled_and_short_ones_are_not(programs):
    install(programs, "g++")
    assert not AUTO.should_compile(BREAK_EVEN - 1)
    assert AUTO.should_compile(BREAK_EVEN + 1)
    # A million steps of Hopper, and the ten thousand of a first try, at 10 epochs of 64 rows.
    assert AUTO.should_compile(1_000_000 * 10 // 64)
    assert not AUTO.should_compile(10_000 * 10 // 64)


def test_without_a_compiler_no_run_is_compiled_on_the_cpu(programs):
    assert not AUTO.should_compile(100 * BREAK_EVEN)
    # Triton, which compiles for GPUs, needs none.
    assert replace(AUTO, device="cuda").should_compile(100 * BREAK_EVEN)


@pytest.mark.parametrize("updates", [0, 100 * BREAK_EVEN])
@pytest.mark.parametrize(("compile", "expected"), [("on", True), ("off", False)])
@pytest.mark.parametrize("compiler", [True, False])
def test_the_user_has_the_last_word_on_compiling(programs, compiler, compile, updates, expected):
    if compiler:
        install(programs, "g++")
    assert replace(CPU, compile=compile).should_compile(updates) is expected


# ---------------------------------------------------------------------- devices and cores


def test_the_cpu_is_always_there():
    assert CPU.torch_device() == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
def test_without_a_gpu_its_device_is_refused(device):
    with pytest.raises(UserError, match="no CUDA GPU found here; use hardware=cpu"):
        replace(CPU, device=device).torch_device()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_beyond_the_last_one_is_refused():
    count = torch.cuda.device_count()
    assert replace(CPU, device="cuda").torch_device().type == "cuda"
    with pytest.raises(UserError, match=rf"cuda:{count}: this machine has {count} GPU\(s\)"):
        replace(CPU, device=f"cuda:{count}").torch_device()


def test_physics_has_the_threads_that_it_is_given_or_all_cores():
    assert replace(CPU, threads=3).physics_threads == 3
    assert replace(CPU, threads=None).physics_threads == available_cores()


# ---------------------------------------------------------------------- two at a time


def meet(own: threading.Event, others: threading.Event) -> bool:
    """Say that one is there; whether the other comes, too."""
    own.set()
    return others.wait(timeout=5)


def test_two_functions_run_at_the_same_time():
    one, other = threading.Event(), threading.Event()
    met = TWO_THREADS.run_both(lambda: meet(one, other), lambda: meet(other, one), compiled=True)
    assert met == (True, True)


@pytest.mark.parametrize(
    ("hardware", "compiled"),
    [(CPU, True), (replace(TWO_THREADS, device="cuda"), True), (TWO_THREADS, False)],
    ids=["one_thread", "gpu", "eager"],
)
def test_with_one_thread_on_a_gpu_or_eagerly_they_run_in_turn(hardware, compiled):
    calls = []
    hardware.run_both(
        lambda: calls.append(("first", threading.get_ident())),
        lambda: calls.append(("second", threading.get_ident())),
        compiled=compiled,
    )
    here = threading.get_ident()
    assert calls == [("first", here), ("second", here)]


def test_both_ways_give_the_same_results():
    def first():
        return math.fsum(range(1000))

    def second():
        return torch.arange(1000).sum()

    for hardware in (CPU, TWO_THREADS):
        assert hardware.run_both(first, second, compiled=True) == (499500, 499500)


@pytest.mark.parametrize("hardware", [CPU, TWO_THREADS], ids=["in_turn", "together"])
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_either_is_raised(hardware, failing):
    def fail():
        raise ArithmeticError("lost")

    functions = [lambda: 1, lambda: 2]
    functions[failing] = fail
    with pytest.raises(ArithmeticError, match="lost"):
        hardware.run_both(*functions, compiled=True)
    # The next time is unharmed.
    assert hardware.run_both(lambda: 1, lambda: 2, compiled=True) == (1, 2)


class Shift:
    def __init__(self, amount: float):
        self.amount = amount

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.amount


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler (g++ or clang++)")
def test_a_process_can_compile_more_variants_than_torch_allows(pytestconfig, monkeypatch):
    # A sweep over `algo.clip`, say: torch's own limit is eight.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pytestconfig.cache.mkdir("inductor")))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    for amount in range(9):
        compiled = replace(CPU, compile="on").compiled(Shift(amount + 0.5).__call__)
        assert compiled(torch.zeros(2)).tolist() == [amount + 0.5] * 2
