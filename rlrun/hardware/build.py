"""Compiling several programs at the same time: some here, some in processes of their own.

Torch compiles one program at a time in a process. Code passes from one process to the other in
files; whatever a process has not made by its end, perhaps since it was killed, is made here.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import rlrun
from rlrun.hardware.program import Program, compile_program

# Measured on an idle core: a program's share, an operation's, and the start of another process.
SECONDS_PER_PROGRAM = 4.0
SECONDS_PER_OPERATION = 0.055
SECONDS_TO_START = 3.0

# Between two looks at the other processes and at whether the user wants to stop.
POLL_SECONDS = 0.1


def estimate_seconds(program: Program) -> float:
    """Return about how long a program takes to compile."""
    return SECONDS_PER_PROGRAM + SECONDS_PER_OPERATION * program.operations


def share(programs: Sequence[Program], processes: int) -> list[list[Program]]:
    """Deal programs out, so that all processes are done at about the same time.

    Args:
        programs: to be compiled.
        processes: at most so many, of which the first one is there already.

    Returns:
        For each process its programs.
    """
    shares: list[list[Program]] = [[] for _ in range(max(1, min(processes, len(programs))))]
    for program in sorted(programs, key=estimate_seconds, reverse=True):
        min(shares, key=lambda one: sum(map(estimate_seconds, one))).append(program)
    return shares


def seconds_to_build(programs: Sequence[Program], processes: int) -> float:
    """Return about how long it takes to compile programs."""
    shares = share(programs, processes)
    seconds = [sum(map(estimate_seconds, one)) for one in shares]
    return max([*seconds[:1], *(SECONDS_TO_START + each for each in seconds[1:])], default=0.0)


def build(
    programs: Sequence[Program], *, processes: int, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Compile programs into the cache.

    Args:
        programs: those that are there already are left alone.
        processes: how many may work at the same time.
        stopped: whether to leave the rest undone.

    Raises:
        Exception: of torch: the compiler failed.
    """
    missing = [program for program in dict.fromkeys(programs) if not program.path().exists()]
    own, *others = share(missing, processes)
    helpers = [start(theirs) for theirs in others]
    try:
        for program in own:
            if not stopped():
                compile_program(program, program.path())
        while any(helper.poll() is None for helper in helpers) and not stopped():
            for helper in helpers:
                try:
                    helper.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
    finally:
        for helper in helpers:
            stop(helper)
    for program in missing:
        if not program.path().exists() and not stopped():
            compile_program(program, program.path())


def start(programs: Sequence[Program]) -> "subprocess.Popen[bytes]":
    """Start a process that compiles programs."""
    paths = [str(Path(rlrun.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    helper = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(torch.get_num_threads())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        # Ctrl-C in a terminal is not for it, and one signal ends it together with its compiler.
        start_new_session=True,
    )
    assert helper.stdin is not None
    try:
        helper.stdin.write(pickle.dumps(list(programs)))
        helper.stdin.flush()  # and stays open: its end says that this process is no more
    except BrokenPipeError:
        pass  # it died at once
    return helper


def stop(helper: "subprocess.Popen[bytes]") -> None:
    """End a process and what it has started, if it has not ended by itself."""
    if helper.poll() is None:
        os.killpg(helper.pid, signal.SIGKILL)
        helper.wait()
    assert helper.stdin is not None
    helper.stdin.close()


def end_with_the_parent() -> None:
    """Wait for the end of stdin, and end the process group: nobody waits for its work."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Compile the programs on stdin."""
    with open(0, "rb", closefd=False) as stdin:
        programs = pickle.load(stdin)
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    torch.set_num_threads(int(sys.argv[1]))
    for program in programs:
        compile_program(program, program.path())


if __name__ == "__main__":
    main()
