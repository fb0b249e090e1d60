"""Runs as their directories have them: what a notebook looks at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlrun.config import schema
from rlrun.config.files import read_json, read_yaml
from rlrun.config.types import Finite, NonNegativeInt
from rlrun.errors import UserError, near_path
from rlrun.loggers.jsonl import read_metrics
from rlrun.runs.files.directory import find_runs, is_locked
from rlrun.runs.files.disk import require_own_files

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


@dataclass(kw_only=True)
class Record:
    """What run.json says of a run, as far as it is shown here."""

    status: Literal["running", "finished", "interrupted", "failed"]
    step: NonNegativeInt
    last_return: Finite | None
    best_return: Finite | None
    final_return: Finite | None
    error: str | None


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
    def record(self) -> dict[str, Any]:
        """All that run.json says: algorithm, environment, versions, git commit, command.

        Raises:
            UserError: it cannot be read.
        """
        return self._read("run.json", read_json)

    @cached_property
    def _checked(self) -> Record:
        keys = {"last_return": "return"}
        values = {name: self.record.get(keys.get(name, name)) for name in Record.__annotations__}
        return schema.convert(values, Record, f"{self.directory}: run.json")

    @cached_property
    def status(self) -> str:
        """How it ended: "finished", "interrupted", "failed", "killed"; or that it is "running"."""
        locked = is_locked(self.directory)  # before run.json is read, which says the end last
        status = self._checked.status
        return "killed" if status == "running" and not locked else status

    @property
    def error(self) -> str | None:
        """What ended a failed run."""
        return self._checked.error

    @property
    def step(self) -> int:
        """Environment steps done."""
        return self._checked.step

    @property
    def last_return(self) -> float | None:
        """Mean return of the last evaluation; None before the first one."""
        return self._checked.last_return

    @property
    def best_return(self) -> float | None:
        """Mean return of the best evaluation; None before the first one."""
        return self._checked.best_return

    @property
    def final_return(self) -> float | None:
        """The figure of the run: mean of the evaluations in the last tenth of its steps."""
        return self._checked.final_return

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every setting, as plain containers: ``run.config["algo"]["gamma"]``.

        Raises:
            UserError: it cannot be read.
        """
        config = self._read("config.yaml", read_yaml)
        return schema.convert(config, dict[str, Any], f"{self.directory}: config.yaml")

    @cached_property
    def metrics(self) -> dict[str, NDArray]:
        """Every number that was logged, by name, in columns of R rows: one for each ``step``.

        NaN stands where nothing was logged: `evaluations` has those of the evaluations alone.

        Raises:
            UserError: it cannot be read.
        """
        rows = self._read("metrics.jsonl", read_metrics)
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
        returns = metrics.get("eval/return", np.empty(0))
        rows = np.flatnonzero(np.isfinite(returns))
        return {
            name: metrics[key][rows] if len(rows) else np.empty(0)
            for name, key in EVALUATION.items()
        }

    def _read(self, name: str, read: Callable[[Path], T]) -> T:
        """Read a file of the directory."""
        require_own_files(self.directory)
        try:
            return read(self.directory / name)
        except (OSError, ValueError) as error:
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
            known = self._checked
            value = known.last_return if known.final_return is None else known.final_return
            reached = "" if value is None else f", return {value:,.1f}"
            return f"<run {self.directory}: {self.status}, {known.step:,} steps{reached}>"
        except UserError:
            return f"<run {self.directory}: unreadable>"


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
