"""What runs in a verifier's process: it verifies what it is sent, one response after the other.

Free of torch, which would take a second and a hundred megabytes.
"""

import math
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from rlrun.config.plugins import import_plugin
from rlrun.envs.workers.process import STOPPING, end_with


class Verified(NamedTuple):
    """What a verifier said of a response.

    Attributes:
        score: in [0, 1]; None: it found no answer.
        problem: why there is no score, where the verifier failed; empty otherwise.
    """

    score: float | None
    problem: str = ""


def main(connection_fd: int, parent: int) -> None:
    """Work until the run's process lets go of the connection, or is gone.

    Args:
        connection_fd: this process's end of a two-way connection.
        parent: the run's process id.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # blocked while the process started
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    with Connection(connection_fd) as connection, suppress(EOFError, ConnectionError):
        plugin = connection.recv()
        if plugin is not None:
            import_plugin(plugin)
        verify = connection.recv()
        connection.send(os.getpid())  # it is at work
        while True:
            for response, answer in connection.recv():
                connection.send(verified(verify, response, answer))


def verified(verify: Callable[[str, Any], Any], response: str, answer: Any) -> Verified:
    """Call a verifier; one that raises, or returns what is no score, costs this response alone.

    Args:
        verify: response, answer -> score.
        response: as it was written.
        answer: as the task has it.
    """
    try:
        score = verify(response, answer)
    except Exception as error:
        reason = " ".join(str(error).split())
        return Verified(None, f"raised {type(error).__name__}: {reason}")
    if score is None:
        return Verified(None)
    if isinstance(score, str | bytes):  # "0.5", say: perhaps the answer that it has found
        return Verified(None, f"returned the text {score!r}")
    try:
        number = float(score)
    except Exception:  # of whatever class: it is an object of the user's
        return Verified(None, f"returned what is no number: {type(score).__name__}")
    if not (math.isfinite(number) and 0 <= number <= 1):
        return Verified(None, f"returned {score!r}, which is not in [0, 1]")
    return Verified(number)
