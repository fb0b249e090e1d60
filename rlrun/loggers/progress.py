"""The live display of a run in the terminal, or plain lines where there is no terminal."""

import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from rlrun.errors import silence

FRAME_SECONDS = 0.25  # between two drawings of the live display
LINE_SECONDS = 10.0  # between two lines where there is no terminal
SPEED_SECONDS = 10.0  # time constant over which steps/s is averaged


class StandardError(Console):
    """A console that outlives its reader: a closed terminal or pipe must not end the run."""

    def __init__(self) -> None:
        """Write to stderr, so that stdout is the command's answer alone."""
        super().__init__(stderr=True)

    def on_broken_pipe(self) -> None:
        """Fall silent, where rich would end the process."""
        self.quiet = True
        silence(sys.stderr)


class Speed:
    """Steps per second, averaged with weights that decay by 1/e every `SPEED_SECONDS`."""

    def __init__(self) -> None:
        """Begin without a measurement."""
        self._steps = 0.0
        self._seconds = 0.0
        self._last: tuple[float, int] | None = None

    def measure(self, now: float, step: int) -> None:
        """Take in that ``step`` was reached at the time ``now``, in seconds."""
        if self._last is not None:
            seconds, steps = now - self._last[0], step - self._last[1]
            decay = math.exp(-seconds / SPEED_SECONDS)
            self._steps = decay * self._steps + steps
            self._seconds = decay * self._seconds + seconds
        self._last = (now, step)

    def skip(self) -> None:
        """Leave out the time up to the next measurement."""
        self._last = None

    @property
    def steps_per_s(self) -> float | None:
        """None until two measurements were taken at different steps."""
        return self._steps / self._seconds if self._steps else None


class Progress:
    """How far a run is: a bar, steps/s, time left, training return and evaluation return.

    On a terminal two lines are redrawn in place, at most four times a second and only by the calls
    that bring news; a thread draws during `status` alone. Elsewhere (a file, a pipe, CI) plain
    lines are printed: one every ten seconds and one for every evaluation.

    Python's own prints appear above the display while it is there.
    """

    def __init__(self, total_steps: int, start_step: int, console: Console, unit: str = "steps"):
        """Show the display.

        Args:
            total_steps: environment steps at which the run ends.
            start_step: environment steps that a resumed run begins with.
            console: where to draw.
            unit: what the steps are called.
        """
        self._total_steps = total_steps
        self._step = start_step
        self._console = console
        self._unit = unit
        self._shown = time.monotonic()
        self._speed = Speed()
        self._train_return = math.nan
        self._eval_return = math.nan
        self._status: tuple[Spinner, str, float] | None = None
        self._ended: str | None = None
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(console=console, auto_refresh=False, get_renderable=self._render)
            self._live.start(refresh=True)
            # A run that is killed would leave the terminal without a cursor.
            console.show_cursor(True)
        else:
            self._print(self._steps_text())

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Show what was measured after ``step`` environment steps."""
        now = time.monotonic()
        self._step = step
        self._speed.measure(now, step)
        self._train_return = latest(metrics, "train/return", self._train_return)
        self._eval_return = latest(metrics, "eval/return", self._eval_return)
        if self._live is not None:
            if now - self._shown >= FRAME_SECONDS:
                self._shown = now
                self._live.refresh()
        elif "eval/return" in metrics or now - self._shown >= LINE_SECONDS:
            self._shown = now
            self._print(f"{self._steps_text()} · {self._measures_text()}")

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Show what a phase that takes a while is doing, and for how long it has been.

        The time in here counts neither for steps/s nor for the time left: it is meant for phases
        that happen once, such as compiling.

        Args:
            text: the phase, in the present participle: ``compiling the update``.
        """
        started = time.monotonic()
        if self._live is None:
            self._print(f"{text} ...")
        else:
            self._status = (Spinner("dots", style="cyan"), text, started)
            done = threading.Event()
            drawing = threading.Thread(target=self._draw_until, args=(done,), daemon=True)
            drawing.start()
        try:
            yield
        finally:
            if self._live is None:
                self._print(f"... took {duration(time.monotonic() - started)}")
            else:
                done.set()
                drawing.join()
                self._status = None
                self._live.refresh()
            self._speed.skip()

    def message(self, text: str) -> None:
        """Print lines that stay, above the display."""
        self._print(text)

    def checkpoint(self, path: Path, aliases: list[str]) -> None:
        """Nothing: a checkpoint a minute is not news."""

    def picture(self, name: str, path: Path) -> None:
        """Nothing: a terminal shows none."""

    def samples(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Nothing: `rlrun eval RUN --samples` shows some."""

    def close(self, status: str, figures: dict[str, float]) -> None:
        """Leave the last state on the screen, with ``status`` and the time it took.

        The time is the run's own (``time_s``): that of all its processes, without compiling.
        """
        self._ended = f"{status} after {duration(figures.get('time_s', 0.0))}"
        if "compile_s" in figures:
            self._ended += f", compiling ({duration(figures['compile_s'])}) apart"
        if self._live is None:
            self._print(f"{self._steps_text()} · {self._measures_text()}")
        else:
            self._live.stop()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a resumed run begins a display of its own."""
        return {}

    def _draw_until(self, done: threading.Event) -> None:
        assert self._live is not None
        while not done.wait(FRAME_SECONDS):
            self._live.refresh()

    def _render(self) -> Group:
        first = Table.grid(padding=(0, 2, 0, 0), expand=True)
        first.add_column(ratio=1)
        first.add_column(no_wrap=True)
        bar = ProgressBar(self._total_steps, self._step, complete_style="cyan")
        first.add_row(bar, self._steps_text())
        if self._status is None:
            second = Text(self._measures_text(), no_wrap=True, overflow="ellipsis")
            second.highlight_regex(r"[\d.,:-]*\d", "bold")
            return Group(first, second)
        spinner, text, started = self._status
        spinner.update(text=f"{text}  {duration(time.monotonic() - started)}")
        return Group(first, spinner)

    def _steps_text(self) -> str:
        # The last iteration may go beyond the total.
        percent = min(100, 100 * self._step // max(self._total_steps, 1))
        total = f"{self._total_steps:,}"
        # Of constant width, so that the bar does not jitter.
        return f"{percent:3} %  {self._step:{len(total)},} of {total} {self._unit}"

    def _measures_text(self) -> str:
        speed = self._speed.steps_per_s
        if self._ended is not None:
            parts = [self._ended]
        elif speed is not None:
            left = duration(max(0, self._total_steps - self._step) / speed)
            parts = [f"{speed:,.0f} {self._unit}/s", f"{left} left"]
        else:
            parts = ["starting"]
        if not math.isnan(self._train_return):
            parts.append(f"return {number(self._train_return)}")
        if not math.isnan(self._eval_return):
            parts.append(f"evaluation {number(self._eval_return)}")
        return " · ".join(parts)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def latest(metrics: dict[str, float], name: str, before: float) -> float:
    """The metric's value, or ``before`` where there is none: no episode ended, none was run."""
    value = metrics.get(name, math.nan)
    return before if math.isnan(value) else value


def number(value: float) -> str:
    """Four significant digits or all before the point: 2,345 or 98.72 or -0.1234."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 4)}f}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: 0:07, 12:34 or 3:25:01."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_seconds:02}" if hours else f"{minutes}:{whole_seconds:02}"


def standard_output() -> Console:
    """Return a console that keeps every word of a table when the output is a pipe or file."""
    return Console(width=_width(), markup=False, emoji=False)  # a path is not [bold]


class LastingOutput(Console):
    """The same, which outlives its reader: a closed pipe must not fail what has been done."""

    def __init__(self) -> None:
        """Write to stdout."""
        super().__init__(width=_width(), markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Fall silent, where rich would end the process."""
        self.quiet = True
        silence(sys.stdout)


def _width() -> int | None:
    return None if sys.stdout.isatty() else 10_000
