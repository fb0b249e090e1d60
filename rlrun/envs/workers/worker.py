"""A worker process, as the run's process sees it."""

import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlrun.envs.workers.process import STOPPING, Failure, Mistake
from rlrun.errors import UserError, WorkerFailure

# A new Python, and no fork, which torch's threads do not survive; not one of multiprocessing's
# either, which imports the user's main module again and may not be started by a daemon.
START = (
    "import sys; connection, calls, parent, *sys.path = sys.argv[1:]; "
    "from rlrun.envs.workers.process import main; main(int(connection), int(calls), int(parent))"
)

# Seconds that a process may take to end which has closed its end of the connection.
LONGEST_END_S = 5.0


class Worker:
    """One worker process.

    Attributes:
        rows: the environments that it steps.
        connection: to it.
    """

    def __init__(self, make_env: Callable[[], gym.Env], rows: range, plugins: Sequence[str]):
        """Start it; its first answer is a `Kind`.

        Args:
            make_env: makes one environment; is sent there.
            rows: which of them it is to step.
            plugins: the user's packages to import first.

        Raises:
            OSError: there can be no more processes.
        """
        self.rows = rows
        self.connection, theirs = multiprocessing.Pipe()
        with theirs, tempfile.TemporaryFile() as shared:
            shared.truncate(16)
            # Which environment it called last, and how many calls there were.
            self._calls: NDArray[np.int64] = np.frombuffer(mmap.mmap(shared.fileno(), 16), np.int64)
            files = (theirs.fileno(), shared.fileno())
            numbers = map(str, (*files, os.getpid()))
            # Ctrl-C in a terminal is for the run alone, from the process's first moment.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            try:
                # -P: the working directory is not on the path, unless it is on ours.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", START, *numbers, *sys.path],
                    pass_fds=files,
                    stdin=subprocess.DEVNULL,
                )
            except OSError:
                self.connection.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with suppress(ConnectionError):
            self.connection.send(list(plugins))
            self.connection.send((make_env, rows))

    @property
    def calls(self) -> int:
        """How many calls of environments there were."""
        return int(self._calls[1])

    @property
    def last_called(self) -> int:
        """The environment that was called last."""
        return int(self._calls[0]) if self.calls else self.rows[0]

    def ask(self, method: Callable, *arguments: Any, **keywords: Any) -> None:
        """Have a method of `SerialVectorEnv` called with these arguments."""
        with suppress(ConnectionError):  # a process that is gone is noticed where it should answer
            self.connection.send((method, arguments, keywords))

    def answer(self) -> Any:
        """Take the answer that has arrived.

        Raises:
            UserError: the environments cannot be made, or what they say cannot be sent.
            WorkerFailure: an environment failed.
            EOFError, OSError: the process is gone.
        """
        match self.connection.recv():
            case Mistake(message):
                raise UserError(message)
            case Failure() as failure:
                raise WorkerFailure(*failure)
            case answer:
                return answer

    def how_it_ended(self) -> str:
        """Say how a process ended that does not answer any more."""
        self.join(LONGEST_END_S)
        code = self._process.returncode
        if code >= 0:
            return f"exited with code {code}"
        hint = ", for want of memory perhaps" if -code == signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-code).name}{hint}"

    def let_go(self) -> None:
        """Ask it to close its environments and to end."""
        self.connection.close()

    def join(self, timeout: float) -> None:
        """Wait for its end, and kill it after these seconds."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
