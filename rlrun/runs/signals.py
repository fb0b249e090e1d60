"""Ctrl-C and its kin as a wish that is granted at the end of an iteration."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# What a person, or a scheduler that has waited long enough, sends again to end the run at once.
URGENT = (signal.SIGINT, signal.SIGTERM)

# A terminal that is closed sends SIGHUP, and its shell sends another. Slurm sends SIGUSR1 some time
# before a job's limit (`--signal=USR1@300`), and SIGTERM at the limit.
HANDLED = (*URGENT, signal.SIGHUP, signal.SIGUSR1)


class StopFlag:
    """While entered, a signal sets a flag; a second urgent one ends the process at once.

    Attributes:
        signal: the signal that asked the run to stop, the urgent one of several, or None.
    """

    def __init__(self):
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopFlag":
        """Take the signals over; in another thread than the main one Python gives none away."""
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in HANDLED:
            # A shell script's background job ignores Ctrl-C, and nohup's job SIGHUP; they go on
            # doing so. A handler that Python does not know (None) could not be put back.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in URGENT and self.signal in URGENT:
            # At once, and without cleaning up: what is on the disk is whole at every moment.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if self.signal is None or number in URGENT:
            self.signal = number
        previous = self._previous[number]
        if callable(previous) and previous is not signal.default_int_handler:
            previous(number, frame)  # a scheduler's handler, for instance submitit's
