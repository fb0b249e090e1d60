"""Compiling in several processes, of which some may end early."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from programs import adding, needs_compiler, program_of, scaled

from rlrun.hardware import build
from rlrun.hardware.build import estimate_seconds, seconds_to_build, share
from rlrun.hardware.program import Program, load_code


def programs(*operations: int) -> list[Program]:
    return [Program(source=str(n), operations=n, inputs=()) for n in operations]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    return tmp_path


def alive(pid: int) -> bool:
    """Whether a process is there, and not only its exit code."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for_the_end(pid: int) -> None:
    deadline = time.monotonic() + 30
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_programs_are_dealt_out_evenly():
    shares = share(programs(10, 200, 100, 90), 2)
    assert [[p.operations for p in one] for one in shares] == [[200, 10], [100, 90]]
    assert [len(one) for one in share(programs(1, 2, 3), 8)] == [1, 1, 1]
    assert share(programs(1, 2), 1) == [programs(2, 1)]
    assert share([], 2) == [[]]


def test_more_processes_wait_for_less():
    two = programs(150, 150)
    assert seconds_to_build([], 2) == 0
    assert seconds_to_build(two, 1) == pytest.approx(2 * estimate_seconds(two[0]))
    assert estimate_seconds(two[0]) < seconds_to_build(two, 2) < seconds_to_build(two, 1)


@needs_compiler
def test_each_process_makes_its_share(cache):
    functions = [scaled(2.0), scaled(3.0)]
    made = [program_of(function) for function in functions]
    here = []
    compile_program = build.compile_program

    def watched(program, path):
        here.append(program)
        compile_program(program, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "compile_program", watched)
        build.build(made, processes=2)
        assert len(here) == 1  # and the other one in the other process
        build.build(made, processes=2)
        assert len(here) == 1  # nothing is made twice
    for function, program in zip(functions, made, strict=True):
        x = torch.ones(2)
        assert torch.equal(load_code(program.path())((x,))[0], function.eager(x))


@needs_compiler
def test_what_a_process_leaves_undone_is_made_here(cache, monkeypatch):
    start, helpers = build.start, []

    def start_and_kill(programs):
        helpers.append(start(programs))
        os.killpg(helpers[0].pid, signal.SIGKILL)
        return helpers[0]

    monkeypatch.setattr(build, "start", start_and_kill)
    made = [program_of(scaled(2.0)), program_of(adding())]
    build.build(made, processes=2)
    assert len(helpers) == 1
    assert all(program.path().exists() for program in made)
    # Of any number of steps.
    run = load_code(made[1].path())
    for count in (1, 3):
        x = torch.ones(count, 2)
        total, steps, mean = run((torch.zeros(2), torch.zeros(()), torch.tensor(0.5), x))
        assert total.tolist() == [0.5 * count] * 2
        assert steps == count
        assert mean.shape == (count,)


def test_a_user_who_wants_to_stop_waits_for_nothing(cache, monkeypatch):
    start, helpers = build.start, []
    monkeypatch.setattr(build, "start", lambda own: helpers.append(start(own)) or helpers[-1])
    build.build(
        [program_of(scaled(2.0)), program_of(scaled(3.0))], processes=2, stopped=lambda: True
    )
    assert len(helpers) == 1
    assert helpers[0].returncode == -signal.SIGKILL
    assert not list(cache.rglob("*.code"))


def test_a_process_ends_with_the_one_that_started_it(cache):
    code = """
        import os, sys
        from rlrun.hardware.build import start
        from rlrun.hardware.program import Program
        helper = start([Program(source="x" * 200_000, operations=1, inputs=())] * 0)
        print(helper.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert finished.returncode == -signal.SIGKILL, finished.stderr
    wait_for_the_end(int(finished.stdout))
