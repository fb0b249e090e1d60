"""What `rlrun eval` shows on a terminal while it plays and films."""

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from rlrun.loggers.progress import FRAME_SECONDS, StandardError


class EvaluationDisplay:
    """A bar of the episodes that have ended, and how far the film is; gone at the end.

    It is on stderr, redrawn by the calls that bring news. Where there is no terminal, the beginning
    of a film is a line, and nothing else.
    """

    def __init__(self, episodes: int, console: Console | None = None):
        """Show nothing yet.

        Args:
            episodes: how many are played.
            console: where to draw; None: on stderr.
        """
        self._console = console or StandardError()
        self._episodes = episodes
        self._over = 0
        self._frames = 0
        self._shown = 0.0
        self._live: Live | None = None

    def __enter__(self) -> "EvaluationDisplay":
        """Begin to show it."""
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                get_renderable=self._render,
            )
            self._live.start(refresh=True)
            self._console.show_cursor(True)  # a process that is killed would leave none
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take it away."""
        if self._live is not None:
            self._live.stop()

    def played(self, over: int) -> None:
        """Take note of how many episodes have ended."""
        self._over = over
        self._refresh()

    def filmed(self, frames: int) -> None:
        """Take note of how many frames the film has."""
        if self._live is None and self._frames == 0:
            which = f"first of {self._episodes:,} episodes" if self._episodes > 1 else "episode"
            line = f"filming the {which}"
            self._console.print(line, markup=False, highlight=False)
        self._frames = frames
        self._refresh()

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._live is not None and now - self._shown >= FRAME_SECONDS:
            self._shown = now
            self._live.refresh()

    def _render(self) -> Table:
        line = Table.grid(padding=(0, 2, 0, 0), expand=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        text = f"{self._over:,} of {self._episodes:,} episodes"
        if self._frames:
            text += f" · {self._frames:,} frames filmed"
        line.add_row(ProgressBar(self._episodes, self._over, complete_style="cyan"), text)
        return line
