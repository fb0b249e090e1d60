"""What many runs look like while they are trained: a live table in a terminal, else lines."""

import math
import time
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlrun.errors import printable
from rlrun.loggers.progress import FRAME_SECONDS, Speed, duration, number
from rlrun.runs.figures import with_spread
from rlrun.runs.files.standing import Standing
from rlrun.sweeps.plan import Job
from rlrun.sweeps.pool import Ending, Pool, stand

# Between two lines where there is no terminal.
LINE_SECONDS = 30.0


class RunTable:
    """A row for each run that is being trained, a line for the whole, and lines that stay."""

    def __init__(self, console: Console, name_of: Callable[[Job], str] = lambda job: job.name):
        """Show nothing yet.

        Args:
            console: where to draw.
            name_of: what stands at the beginning of a run's row.
        """
        self._console = console
        self._name_of = name_of
        self._speeds: dict[Job, Speed] = {}
        self._standings: dict[Job, Standing] = {}
        self._shown = -LINE_SECONDS
        self._whole = ""
        self._rows: list[Job] = []
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(console=console, auto_refresh=False, get_renderable=self._render)
            self._live.start(refresh=True)
            console.show_cursor(True)  # a process that is killed would leave none

    def update(self, jobs: Sequence[Job], whole: Callable[[dict[Job, Standing]], str]) -> None:
        """Show how far runs are, if the last time is long enough ago.

        Args:
            jobs: whose runs are being trained.
            whole: says how far the whole is, from how these runs stand.
        """
        now = time.monotonic()
        if now - self._shown < (LINE_SECONDS if self._live is None else FRAME_SECONDS):
            return
        self._shown = now
        self._rows = list(jobs)
        self._standings = {}
        for job in jobs:
            standing = stand(job)
            if standing is not None:
                self._standings[job] = standing
                self._speeds.setdefault(job, Speed()).measure(now, standing.step)
        self._whole = whole(self._standings)
        if self._live is not None:
            self._live.refresh()
        else:
            self.say(self._whole)

    def say(self, text: str) -> None:
        """Print a line that stays, above the table."""
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the table away: what became of each run stands above it."""
        if self._live is not None:
            self._rows, self._whole = [], ""
            self._live.stop()

    def _render(self) -> Group:
        table = Table(box=box.SIMPLE, expand=True, pad_edge=False)
        table.add_column("run", overflow="ellipsis", no_wrap=True, ratio=3)
        table.add_column("", ratio=2)
        for name in ("steps", "return", "best", "steps/s", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        for job in self._rows:
            table.add_row(printable(self._name_of(job)), *self._cells(job))
        return Group(*([table] if self._rows else []), Text(self._whole, no_wrap=True))

    def _cells(self, job: Job) -> list[str | ProgressBar]:
        standing = self._standings.get(job)
        if standing is None:
            return []
        total = standing.total_steps
        speed = self._speeds[job].steps_per_s
        percent = min(100, 100 * standing.step // total)
        best = standing.best_return
        return [
            ProgressBar(total, min(standing.step, total), complete_style="cyan"),
            f"{percent} %",
            last_return(standing),
            "" if best is None else number(best),
            f"{speed:,.0f}" if speed else "",
            duration(max(total - standing.step, 0) / speed) if speed else "",
        ]


class SweepDisplay:
    """Shows a pool at work; what becomes of a run, and a warning, is a line with the run's name."""

    def __init__(self, jobs: Sequence[Job], console: Console):
        """Show the display.

        Args:
            jobs: all of the sweep.
            console: where to draw.
        """
        self._jobs = list(jobs)
        standings = {job: stand(job) for job in jobs}
        self._standings = {job: one for job, one in standings.items() if one is not None}
        self._speed = Speed()
        self._table = RunTable(console)

    def update(self, pool: Pool) -> None:
        """Show how far the runs are."""

        def whole(standings: dict[Job, Standing]) -> str:
            self._standings |= standings
            return self._whole(pool)

        self._table.update([worker.job for worker in pool.workers], whole)

    def ended(self, job: Job, ending: Ending) -> None:
        """Say in a line what became of a job."""
        if ending.standing is not None:
            self._standings[job] = ending.standing
        if not ending.earlier:
            self._table.say(f"{job.name}: {describe(ending)}")

    def relay(self, job: Job, line: str) -> None:
        """Pass on what a worker says, with the name of its run."""
        self._table.say(f"{job.name}: {line}")

    def close(self) -> None:
        """Take the table away."""
        self._table.close()

    def _whole(self, pool: Pool) -> str:
        """Say in a line how far the whole is."""
        done = sum(standing.step for standing in self._standings.values())
        self._speed.measure(time.monotonic(), done)
        finished = sum(ending.status == "finished" for ending in pool.ended.values())
        failed = sum(ending.status == "failed" for ending in pool.ended.values())
        parts = [f"{finished} of {len(self._jobs)} runs finished", f"{len(pool.workers)} running"]
        if failed:
            parts.insert(1, f"{failed} failed")
        left = sum(
            max(standing.total_steps - standing.step, 0)
            for job, standing in self._standings.items()
            if job not in pool.ended
        )
        speed = self._speed.steps_per_s
        if speed:
            parts += [f"{speed:,.0f} steps/s", f"{duration(left / speed)} left"]
        return " · ".join(parts)


def last_return(standing: Standing) -> str:
    """Write the return of a run's last evaluation beside its spread; empty: there is none yet."""
    if standing.last_return is None:
        return ""
    deviation = math.nan if standing.return_std is None else standing.return_std
    return with_spread(standing.last_return, deviation)


def describe(ending: Ending) -> str:
    """Say what became of a job: "finished, return 498.2 ± 3.1 (final 500.0) after … in 1:02"."""
    standing, text = ending.standing, str(ending.status)
    if standing is not None and ending.status != "failed":
        if standing.last_return is not None:
            text += f", return {last_return(standing)}"
        if standing.final_return not in (None, standing.last_return):
            text += f" (final {number(standing.final_return)})"
        text += f" after {standing.step:,} steps in {duration(standing.time_s)}"
    return f"{text}: {ending.reason}" if ending.reason else text
