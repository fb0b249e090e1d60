"""What runs in a worker process: it steps its share of the environments for a run.

Free of torch, which every worker would take a second and a hundred megabytes for.
"""

import faulthandler
import mmap
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlrun.config.plugins import import_plugin
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.errors import EnvironmentFailure, UserError

# What asks a run to stop can reach its whole process group; what is to be done is the run's choice.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

# Seconds between two looks at whether the run's process is there, and those that a worker without
# it has to close its environments.
LOOK_S = 1.0
GRACE_S = 5.0


class Kind(NamedTuple):
    """What a worker's environments are: its first answer."""

    name: str
    observation_space: gym.Space
    action_space: gym.Space
    metadata: dict[str, Any]


class Mistake(NamedTuple):
    """In place of an answer: the environments cannot be made as they were asked for."""

    message: str


class Failure(NamedTuple):
    """In place of an answer: an environment failed."""

    number: int
    seed: int | None
    message: str
    details: str


class NotedEnv(gym.Wrapper):
    """Notes each call of an environment where the run's process can read it, come what may."""

    def __init__(self, env: gym.Env, index: int, calls: NDArray[np.int64]):
        """Wrap environment ``index``."""
        super().__init__(env)
        self._index = index
        self._calls = calls

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        note(self._calls, self._index)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Advance by one step."""
        note(self._calls, self._index)
        return self.env.step(action)


def note(calls: NDArray[np.int64], index: int) -> None:
    """Note that an environment is called now.

    Args:
        calls: [2], in memory that the run's process shares: the environment, and how many calls
            there were.
        index: of the environment.
    """
    calls[0] = index
    calls[1] += 1


def main(connection_fd: int, calls_fd: int, parent: int) -> None:
    """Work until the run's process lets go of the connection, or is gone.

    Args:
        connection_fd: the worker's end of a two-way connection.
        calls_fd: a file of 16 bytes, for `note`.
        parent: the run's process id.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # blocked while the process started
    faulthandler.enable()
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    calls: NDArray[np.int64] = np.frombuffer(mmap.mmap(calls_fd, 16), np.int64)
    with Connection(connection_fd) as connection, suppress(EOFError, ConnectionError):
        serve(connection, calls)


def end_with(parent: int) -> None:
    """End this process, whatever it is doing, when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    time.sleep(GRACE_S)
    os._exit(1)


def serve(connection: Connection, calls: NDArray[np.int64]) -> None:
    """Make the environments, and answer what is asked of them.

    Args:
        connection: brings the plugins to import; what makes an environment, and which of them are
            this worker's; and then functions of a `SerialVectorEnv`, with their arguments.
        calls: see `note`.

    Raises:
        EOFError, ConnectionError: the run's process has closed the connection.
    """
    plugins = connection.recv()
    try:
        import_plugins(plugins)
        # Read only now, as it may name classes of the plugins.
        make_env, rows = connection.recv()
        env = make_share(make_env, rows, calls)
    except UserError as error:
        connection.send(Mistake(f"{error} (in a worker process)"))
        return
    with closing(env):
        connection.send(
            Kind(env.name, env.single_observation_space, env.single_action_space, env.metadata)
        )
        while True:
            method, arguments, keywords = connection.recv()
            try:
                answer = method(env, *arguments, **keywords)
            except EnvironmentFailure as failure:
                cause = failure.__cause__
                lines = [] if cause is None else traceback.format_exception(cause)
                answer = Failure(failure.index, failure.seed, str(failure), "".join(lines))
            try:
                connection.send(answer)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                # Observations are arrays, so that it is one of the infos.
                numbers = f"environments {rows[0]} to {rows[-1]}"
                message = f"{numbers}: an info cannot be sent from their worker process: {error}"
                connection.send(Failure(rows[0], None, message, ""))


def import_plugins(plugins: Sequence[str]) -> None:
    """Import the user's packages, as the run's process has done.

    Raises:
        UserError: one cannot be imported here.
    """
    for plugin in plugins:
        try:
            import_plugin(plugin)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"env.workers: {plugin} cannot be imported: {type(error).__name__}: {reason}"
            ) from error


def make_share(
    make_env: Callable[[], gym.Env], rows: Sequence[int], calls: NDArray[np.int64]
) -> SerialVectorEnv:
    """Make some of the environments.

    Args:
        make_env: makes one.
        rows: their numbers, in order.
        calls: see `note`.

    Raises:
        UserError: they cannot be made.
    """
    if rows[0] > 0:
        warnings.simplefilter("ignore")  # the first worker gives them

    def make_noted(index: int) -> gym.Env:
        note(calls, index)
        return NotedEnv(make_env(), index, calls)

    return SerialVectorEnv([partial(make_noted, index) for index in rows], first_index=rows[0])


def replay(env: SerialVectorEnv, saved_envs: Sequence[dict[str, Any]]) -> tuple[Any, dict]:
    """Make saved episodes again.

    Returns:
        The latest observations, [n, ...], and what ``env.replay`` returns.
    """
    restarted = env.replay(saved_envs)
    return env.observations(), restarted
