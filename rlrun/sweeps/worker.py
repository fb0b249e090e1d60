"""The process of one job: trains the run of a directory, from wherever it is.

Workers are forked from a process that has imported what a run needs, which takes seconds. Each
holds one end of a pipe, of which the pool has the other: when that process is gone, however it
ended, the run is saved and stops.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from rlrun.errors import Interrupted, RunFinished, RunInUse, UserError, report

# Another process trains this run: sysexits.h's "try again later".
IN_USE = 75

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "rlrun.runs.api",
        "rlrun.envs.gym_env",
        "rlrun.envs.mujoco.env",
        # What the first update and the first picture import.
        "torch._dynamo",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
    ]
)


def train(
    directory: Path, plugins: Sequence[str], gpu: str | None, log: Path, lifeline: Connection
) -> None:
    """Train a run, and end the process with an exit code: those of `rlrun`, or `IN_USE`.

    Args:
        directory: the run's.
        plugins: the user's packages that it may use.
        gpu: the only one to be seen; None: all.
        log: where what is said on stderr goes; what is said on stdout goes nowhere.
        lifeline: has an end when the pool has.
    """
    os.setsid()  # Ctrl-C in a terminal is for the pool, which passes it on
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    os.dup2(file, sys.stderr.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    threading.Thread(target=_stop_with_the_pool, args=(lifeline,), daemon=True).start()
    sys.exit(_train(directory, plugins))


def _stop_with_the_pool(lifeline: Connection) -> None:
    """Wait for the pool's end, then ask this process to stop."""
    lifeline.poll(None)
    os.kill(os.getpid(), signal.SIGTERM)


def _train(directory: Path, plugins: Sequence[str]) -> int:
    """Train a run; return the exit code."""
    from rlrun.runs.api import resume

    try:
        resume(directory, total_steps=None, plugins=plugins)
    except Interrupted as error:
        return 128 + error.signal
    except RunInUse:
        return IN_USE
    except RunFinished:  # by another pool, since this one looked at it
        return 0
    except Exception as error:
        report(error)
        return 2 if isinstance(error, UserError) else 1
    return 0
