"""What a run leaves for people: metrics, loggers, curves and ``run.json``."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rlrun import loops
from rlrun.config.experiment import Experiment
from rlrun.envs.tabular import read_grid
from rlrun.errors import CheckpointNotWritten, DirectoryLost, warn
from rlrun.loggers.interface import Loggers, RunInfo
from rlrun.loggers.jsonl import JsonlLogger, read_metrics
from rlrun.loggers.progress import Progress, StandardError
from rlrun.runs.counters import Counters
from rlrun.runs.figures import evaluations, final_return
from rlrun.runs.files import directory as run_directory
from rlrun.runs.files.samples import Samples
from rlrun.runs.reports.curves import draw_curves
from rlrun.runs.reports.prediction import ERROR, draw_prediction
from rlrun.runs.reports.table import draw_table

# What may be drawn of a run: <name>.png in its directory.
PICTURES = ("curves", "prediction", "table")

# Largest share of a run's time that goes into curves.png, and what is expected of the first time,
# when matplotlib is imported: a short run is drawn at its end alone.
DRAWING_SHARE = 0.02
FIRST_DRAWING_S = 0.5


class Record:
    """Writes into a run's directory what happens to it.

    Attributes:
        directory: the run's directory.
        facts: what ``run.json`` says besides the run's state.
        progress: the display on the terminal.
        loggers: metrics.jsonl, the display, and those that the user asked for.
    """

    def __init__(
        self,
        directory: Path,
        experiment: Experiment,
        counters: Counters,
        facts: dict[str, Any],
        logger_states: dict[str, dict[str, Any]],
    ):
        """Begin or continue the record.

        Args:
            directory: the run's directory, locked by this process.
            experiment: what is run.
            counters: how far it is, live.
            facts: what ``run.json`` says besides the run's state.
            logger_states: what the loggers were at the checkpoint; empty for a new run.

        Raises:
            UserError: the run's ``metrics.jsonl`` is damaged before the checkpoint.
        """
        self.directory = directory
        self.facts = facts
        self._experiment = experiment
        self._counters = counters
        self._drawn, self._drawing_s = time.perf_counter(), FIRST_DRAWING_S
        self._evaluations: list[tuple[int, float]] = []
        # First of all, so that a run can be resumed from its first moment.
        self.write("running")
        offset = logger_states["jsonl"]["offset"] if logger_states else None
        path = directory / "metrics.jsonl"
        jsonl = JsonlLogger(path, offset)
        # Those before a resumed run's point.
        self._evaluations += evaluations(read_metrics(path))
        # Held open, so that no other directory can get its number.
        self._opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._samples = Samples(directory / "samples.jsonl", counters.evaluated)
        self.progress = Progress(
            experiment.total_steps, counters.step, StandardError(), unit=step_unit(experiment)
        )
        self.loggers = Loggers({"jsonl": jsonl, "progress": self.progress}, logger_states)

    def open_loggers(self) -> None:
        """Open the loggers that the user asked for.

        Raises:
            UserError: one of them cannot work as it was asked for.
        """
        experiment = self._experiment
        if not experiment.loggers:
            return
        info = run_info(experiment, self.directory, self.facts)
        # A server out of reach can take minutes to say so.
        with self.progress.status(f"opening {', '.join(experiment.loggers)}"):
            self.loggers.open(experiment.loggers, info)

    def log(self, values: dict[str, float]) -> None:
        """Give numbers to the loggers, with the three axes: step, update and time.

        Raises:
            DirectoryLost: the run's directory is not there any more.
        """
        self.require_directory()
        counters = self._counters
        axes = {"update": counters.update, "time_s": counters.time_s}
        row = {**axes, **values}
        self._evaluations += evaluations([{"step": counters.step, **row}])
        self.loggers.log(row, counters.step)

    def show(self, samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep what was written in an evaluation; a file that fails does not stop the run."""
        self.loggers.samples(samples, self._counters.step)
        try:
            self._samples.append(samples, self._counters.step)
        except OSError as error:
            warn(f"samples.jsonl lacks step {self._counters.step:,}: {error}")

    def write(self, status: str, error: str | None = None) -> None:
        """Write ``run.json``, which `rlrun list` shows.

        Raises:
            CheckpointNotWritten: the disk is full, say; it is as it was.
        """
        content = summary(
            self._experiment,
            self._counters,
            self.facts,
            status,
            error,
            final_return=self.final_return,
        )
        try:
            run_directory.write_record(self.directory, content)
        except OSError as full:
            raise CheckpointNotWritten(f"run.json could not be written: {full}") from full

    def require_directory(self) -> None:
        """Stop a run whose files nobody would find.

        Raises:
            DirectoryLost: the run's directory is not there any more.
        """
        if not self._is_there():
            raise DirectoryLost(
                f"{self.directory} was deleted or moved while the run was in it; the run has ended "
                "and nothing more of it is saved"
            )

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._opened), os.stat(self.directory))
        except OSError:
            return False

    @property
    def final_return(self) -> float:
        """The figure of the run, as far as there is one: else NaN."""
        counters = self._counters
        last = counters.step if counters.converged else self._experiment.total_steps
        return final_return(self._evaluations, last)

    def figures(self) -> dict[str, float]:
        """Return what the run comes to, for the loggers' summaries."""
        figures = {
            "best_return": self._counters.best_return,
            "final_return": self.final_return,
            "time_s": self._counters.time_s,
        }
        if "compile_s" in self.facts:
            figures["compile_s"] = self.facts["compile_s"]
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    def draw_if_due(self) -> None:
        """Draw the learning curves, unless drawing would take more than its share of the time."""
        start = time.perf_counter()
        if start - self._drawn > self._drawing_s / DRAWING_SHARE:
            self.draw()
            self._drawn = time.perf_counter()
            self._drawing_s = self._drawn - start

    def draw(self) -> None:
        """Draw the learning curves so far; a picture that fails does not stop the run."""
        try:
            rows = read_metrics(self.directory / "metrics.jsonl")
            if rows:
                unit = step_unit(self._experiment)
                draw_curves(
                    rows,
                    self.directory / "curves.png",
                    title=title(self._experiment),
                    steps="environment steps" if unit == "steps" else unit,
                )
            if any(ERROR in row for row in rows):
                path = self.directory / "prediction.png"
                draw_prediction(rows, path, title(self._experiment))
        except Exception as error:
            warn(f"curves.png was not drawn: {type(error).__name__}: {error}")

    def draw_table(self, value: NDArray, action_value: NDArray) -> None:
        """Draw V [S] and Q [S, A]; a picture that fails does not stop the run."""
        path = self.directory / "table.png"
        try:
            grid = read_grid(self._experiment.env, len(value))
            draw_table(value, action_value, path, grid=grid, title=title(self._experiment))
        except Exception as error:
            warn(f"table.png was not drawn: {type(error).__name__}: {error}")

    def close(self, status: str, error: str | None) -> None:
        """End the record; what fails on the way must not hide how the run ended.

        Args:
            status: ``finished``, ``interrupted`` or ``failed``.
            error: what ended the run, or None.
        """
        if self._is_there():
            try:
                self.write(status, error)
            except CheckpointNotWritten as full:
                warn(f"run.json does not say '{status}': {full}")
            self.draw()
            for name in PICTURES:
                if (path := self.directory / f"{name}.png").exists():
                    self.loggers.picture(name, path)
        self.loggers.close(status, self.figures())
        os.close(self._opened)


def summary(
    experiment: Experiment,
    counters: Counters,
    facts: dict[str, Any],
    status: str,
    error: str | None = None,
    *,
    final_return: float = math.nan,
) -> dict[str, Any]:
    """Return the content of ``run.json``.

    Args:
        experiment: what is run.
        counters: how far it is.
        facts: where its numbers come from.
        status: ``running``, ``finished``, ``interrupted`` or ``failed``.
        error: what ended it, or None.
        final_return: the figure of the run, as far as there is one; else NaN.
    """
    return {
        "status": status,
        "label": experiment.label,
        "sweep": experiment.sweep,
        **experiment.identity,
        "total_steps": experiment.total_steps,
        "step": counters.step,
        "return": finite_or_none(counters.last_return),
        "return_std": finite_or_none(counters.last_std),
        "best_return": finite_or_none(counters.best_return),
        "final_return": finite_or_none(final_return),
        "time_s": round(counters.time_s, 2),
        "error": error,
        **facts,
    }


def run_info(experiment: Experiment, directory: Path, facts: dict[str, Any]) -> RunInfo:
    """Return what a logger is told of a run.

    Args:
        experiment: what is run.
        directory: its directory.
        facts: where its numbers come from (`provenance`).
    """
    code = {key: facts[key] for key in ("git_commit", "versions")}
    name, label, end = experiment.name, experiment.label, f"_s{experiment.seed}"
    if experiment.sweep is not None and directory.name.endswith(end):
        # What the sweep has called it says what is swept: ppo_hopper_clip=0.1_s0.
        name, label = directory.name, directory.name.removesuffix(end)
    return RunInfo(
        directory=directory,
        name=name,
        facts={**experiment.identity, **code},
        config=experiment.config,
        group=experiment.group or label,
        tags=experiment.tags,
        sweep=experiment.sweep,
    )


def title(experiment: Experiment) -> str:
    """Return what the run is in a reader's words: ``ppo · Hopper-v5 · gae · mlp · seed 0``."""
    names = {**experiment.identity, "seed": f"seed {experiment.seed}"}
    return " · ".join(name for key, name in names.items() if key not in ("env", "hardware"))


def step_unit(experiment: Experiment) -> str:
    """Return what one calls the steps of a run, of which planners take none in an environment."""
    return "sweeps" if experiment.algo.loop is loops.planning else "steps"


def finite_or_none(value: float) -> float | None:
    """Return a number that JSON knows."""
    return value if math.isfinite(value) else None
