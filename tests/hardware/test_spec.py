import ctypes
import math
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import CPU

from rlrun.config.schema import convert
from rlrun.errors import UserError
from rlrun.hardware import spec
from rlrun.hardware.cpu import available_cores, has_bfloat16_products
from rlrun.hardware.spec import Hardware

TWO_THREADS = replace(CPU, threads=2)


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


def test_threads_that_would_wait_for_others_are_remarked_upon(monkeypatch):
    monkeypatch.setattr(spec, "available_cores", lambda: 2)
    for free, threads, remarked in ((1.6, 2, False), (1.4, 2, True), (0.1, 1, False)):
        monkeypatch.setattr(spec, "free_cores", lambda free=free: free)
        said = replace(CPU, threads=None, learner_threads=threads).remarks()
        assert len(said) == remarked
        assert all("leave about 1.4 cores free: the 2 threads" in line for line in said)


def test_more_threads_than_cores_are_remarked_upon(monkeypatch):
    monkeypatch.setattr(spec, "free_cores", lambda: math.inf)
    cores = available_cores()
    assert replace(CPU, threads=None, learner_threads=cores).remarks() == []
    assert replace(CPU, threads=cores + 1, learner_threads=cores + 2).remarks() == [
        f"hardware.threads={cores + 1}, but this process may use {cores} core{'s' * (cores > 1)}",
        f"hardware.learner_threads={cores + 2}, but this process may use {cores} "
        f"core{'s' * (cores > 1)}",
    ]


# ---------------------------------------------------------------------- two at a time


def meet(own: threading.Event, others: threading.Event) -> bool:
    """Say that one is there; whether the other comes, too."""
    own.set()
    return others.wait(timeout=5)


def test_two_functions_run_at_the_same_time():
    one, other = threading.Event(), threading.Event()
    met = TWO_THREADS.side_by_side()(
        lambda: meet(one, other), lambda: meet(other, one), compiled=True
    )
    assert met == (True, True)


def openmp() -> ctypes.CDLL:
    """The library that gives torch's operations their threads."""
    files = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
    found = [file for file in files if re.search(r"lib(g|i)?omp[^/]*\.so", file)]
    return ctypes.CDLL(found[0])


def test_each_of_two_learners_has_the_threads_that_it_was_given():
    # A new thread's operations take all cores, but for what torch says to that very thread.
    torch.set_num_threads(1)
    threads = openmp().omp_get_max_threads
    assert TWO_THREADS.side_by_side()(threads, threads, compiled=True) == (1, 1)


@pytest.mark.parametrize(
    ("hardware", "compiled"),
    [(CPU, True), (replace(TWO_THREADS, device="cuda"), True), (TWO_THREADS, False)],
    ids=["one_thread", "gpu", "eager"],
)
def test_with_one_thread_on_a_gpu_or_eagerly_they_run_in_turn(hardware, compiled):
    calls = []
    hardware.side_by_side()(
        lambda: calls.append(("first", threading.get_ident())),
        lambda: calls.append(("second", threading.get_ident())),
        compiled=compiled,
    )
    here = threading.get_ident()
    # On a GPU, the second has only launched its work when the first begins.
    assert calls == [("second", here), ("first", here)]


def test_both_ways_give_the_same_results():
    def first():
        return math.fsum(range(1000))

    def second():
        return torch.arange(1000).sum()

    for hardware in (CPU, TWO_THREADS):
        assert hardware.side_by_side()(first, second, compiled=True) == (499500, 499500)


@pytest.mark.parametrize("hardware", [CPU, TWO_THREADS], ids=["in_turn", "together"])
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_either_is_raised(hardware, failing):
    def fail():
        raise ArithmeticError("lost")

    functions = [lambda: 1, lambda: 2]
    functions[failing] = fail
    call = hardware.side_by_side()
    with pytest.raises(ArithmeticError, match="lost"):
        call(*functions, compiled=True)
    # The next time is unharmed.
    assert call(lambda: 1, lambda: 2, compiled=True) == (1, 2)


@pytest.mark.parametrize(
    ("threads", "learner_threads", "learners", "apart"),
    [(2, 1, 2, True), (2, 1, 1, True), (2, 2, 1, False), (4, 2, 1, True), (4, 2, 2, True),
     (2, 2, 2, False), (1, 1, 1, False)],
)  # fmt: skip
def test_two_functions_go_apart_where_there_are_cores_for_both(
    threads, learner_threads, learners, apart
):
    hardware = replace(CPU, threads=threads, learner_threads=learner_threads, compile="on")
    calls = []

    def call(name):
        calls.append((name, threading.get_ident()))

    hardware.side_by_side(learners=learners)(
        lambda: call("first"), lambda: call("second"), compiled=True
    )
    assert (len({ident for _, ident in calls}) == 2) is apart


def test_threads_of_an_operation(monkeypatch):
    monkeypatch.setattr(spec, "available_cores", lambda: 8)
    free = replace(CPU, threads=None, learner_threads=None)
    assert 1 <= free.operation_threads <= 4
    assert replace(free, device="cuda").operation_threads == 1
    # Who asks for a run of one thread gets one; of many, no more than there is work for.
    for threads, expected in ((1, 1), (2, 2), (16, 4)):
        assert replace(free, threads=threads).operation_threads == expected
    monkeypatch.setattr(spec, "available_cores", lambda: 2)
    assert replace(free, threads=16).operation_threads == 2
    assert replace(free, learner_threads=3).operation_threads == 3


def test_products_are_as_exact_as_they_are_asked_for():
    try:
        for products in ("medium", "highest"):
            replace(CPU, products=products).prepare()
            assert torch.get_float32_matmul_precision() == products
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("products", "device", "flags", "remarked"),
    [
        ("highest", "cpu", "", False),
        ("high", "cpu", "flags : avx512_bf16", True),  # TF32 is a GPU's
        ("medium", "cpu", "flags : fma avx512f", True),
        ("medium", "cpu", "flags : fma amx_bf16 amx_int8", False),
        ("medium", "cpu", "Features : asimd bf16", False),
        ("medium", "cuda", "", False),
    ],
)
def test_products_that_the_processor_lacks_are_remarked_upon(
    products, device, flags, remarked, tmp_path, monkeypatch
):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\n{flags}\n")
    answer = has_bfloat16_products(tmp_path)
    monkeypatch.setattr(spec, "has_bfloat16_products", lambda: answer)
    said = replace(CPU, device=device, products=products, compile="auto").remarks()
    remark = f"hardware.products={products}: this processor has no such products, which stay in"
    assert said == ([f"{remark} float32"] if remarked else [])
    eager = replace(CPU, device=device, products=products, compile="off").remarks()
    if device == "cpu" and products != "highest" and not remarked:
        assert eager == [
            f"hardware.products={products} is for compiled updates: with hardware.compile=off they "
            "stay in float32"
        ]
    else:
        assert eager == said
