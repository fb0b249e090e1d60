"""Runs as their directories have them: what a notebook looks at."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlrun.config import schema
from rlrun.config.files import read_yaml
from rlrun.errors import UserError, near_path
from rlrun.loggers.jsonl import read_metrics
from rlrun.runs.figures import with_spread
from rlrun.runs.files.directory import find_runs
from rlrun.runs.files.disk import require_own_files
from rlrun.runs.files.standing import Standing, read_standing

if TYPE_CHECKING:
    from rlrun.runs.trained import TrainedPolicy

T = TypeVar("T")

# What an evaluation says, and the metric that says it.
EVALUATION = {
    "step": "step",
    "time_s": "time_s",
    "return": "eval/return",
    "return_std": "eval/return_std",
    "length": "eval/length",
}


@dataclass(frozen=True)
class SavedRun:
    """A run, finished or not, as its directory had it when it was first asked.

    Reading it runs nothing and imports nothing of what the directory says, and nothing of torch.

    Attributes:
        directory: the run's directory.
        plugins: the user's packages that it may use.
    """

    directory: Path
    plugins: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the directory."""
        return self.directory.name

    @cached_property
    def _standing_and_record(self) -> tuple[Standing, dict[str, Any]]:
        return self._read(read_standing)

    @property
    def record(self) -> dict[str, Any]:
        """All that run.json says: algorithm, environment, versions, git commit, command.

        Raises:
            UserError: it cannot be read.
        """
        return self._standing_and_record[1]

    @property
    def standing(self) -> Standing:
        """How far it is: status, steps, returns, seconds.

        Raises:
            UserError: run.json cannot be read.
        """
        return self._standing_and_record[0]

    @property
    def status(self) -> str:
        """How it ended: "finished", "interrupted", "failed", "killed"; or "planned", "running"."""
        return self.standing.status

    @property
    def step(self) -> int:
        """Environment steps done."""
        return self.standing.step

    @property
    def last_return(self) -> float | None:
        """Mean return of the last evaluation; None before the first one."""
        return self.standing.last_return

    @property
    def best_return(self) -> float | None:
        """Mean return of the best evaluation; None before the first one."""
        return self.standing.best_return

    @property
    def final_return(self) -> float | None:
        """The figure of the run: mean of the evaluations in the last tenth of its steps."""
        return self.standing.final_return

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every setting, as plain containers: ``run.config["algo"]["gamma"]``.

        Raises:
            UserError: it cannot be read.
        """
        config = self._read(lambda directory: read_yaml(directory / "config.yaml"))
        return schema.convert(config, dict[str, Any], f"{self.directory}: config.yaml")

    @cached_property
    def metrics(self) -> dict[str, NDArray]:
        """Every number that was logged, by name, in columns of R rows: one for each ``step``.

        NaN stands where nothing was logged: `evaluations` has those of the evaluations alone.

        Raises:
            UserError: it cannot be read.
        """
        rows = self._read(lambda directory: read_metrics(directory / "metrics.jsonl"))
        by_step: dict[float, dict[str, float]] = {}
        for row in rows:  # an iteration's, and that of the evaluation after it
            by_step.setdefault(row["step"], {}).update(row)
        names = dict.fromkeys(name for row in rows for name in row)
        return {
            name: np.array([row.get(name, np.nan) for row in by_step.values()]) for name in names
        }

    @property
    def evaluations(self) -> dict[str, NDArray]:
        """The evaluations, in columns: step, time_s, return, return_std, length; [E] each."""
        metrics = self.metrics
        nothing = np.full(len(metrics.get("step", ())), np.nan)
        rows = np.isfinite(metrics.get("eval/return", nothing))
        return {name: metrics.get(key, nothing)[rows] for name, key in EVALUATION.items()}

    def _read(self, read: Callable[[Path], T]) -> T:
        """Read something of the directory."""
        require_own_files(self.directory)
        try:
            return read(self.directory)
        except (OSError, ValueError, UserError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{self.directory} cannot be read: {reason}") from error

    def load(
        self, checkpoint: str = "last", *, plugins: Sequence[str] = (), seed: int = 0
    ) -> "TrainedPolicy":
        """Read its policy (see ``rlrun.load``)."""
        from rlrun.runs.trained import load_policy

        allowed = [*self.plugins, *plugins]
        return load_policy(self.directory, checkpoint=checkpoint, plugins=allowed, seed=seed)

    def __repr__(self) -> str:
        """Show it in one line."""
        try:
            standing = self.standing
        except UserError:
            return f"<run {self.directory}: unreadable>"
        final, last, deviation = standing.final_return, standing.last_return, standing.return_std
        reached = "" if final is None else f", return {with_spread(final, math.nan)}"
        if last is not None:
            spread = math.nan if deviation is None else deviation
            reached += f", last evaluation {with_spread(last, spread)}"
        return f"<run {self.directory}: {standing.status}, {standing.step:,} steps{reached}>"


def saved_runs(root: str | Path = "outputs") -> list[SavedRun]:
    """Find the runs under a directory, in the order of their names.

    Args:
        root: the directory.

    Raises:
        UserError: there is no such directory.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"no directory '{root}' of runs{near_path(root)}")
    return [SavedRun(directory) for directory in find_runs(root)]
