"""A run of `rlrun list`, and how it is written."""

from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rlrun.errors import UserError, printable
from rlrun.runs.figures import with_spread
from rlrun.runs.files.standing import Standing, read_standing

# What stands of a run by name, beside what its directory is called.
NAMES = ("algo", "env_id", "advantage", "model")

# Characters of such a name that are shown: another run's row is as wide as the widest.
LONGEST_NAME = 30


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run of the list.

    Attributes:
        directory: the run's.
        name: the directory's, from where the list begins.
        record: run.json; empty where it cannot be read.
        standing: how it goes; None: rlrun did not write this.
    """

    directory: Path
    name: str
    record: dict[str, Any]
    standing: Standing | None

    @property
    def cells(self) -> list[str]:
        """Status, steps, returns and time in a reader's words."""
        standing = self.standing
        if standing is None:
            return ["unreadable"]
        last_is_best = standing.best_return == standing.last_return
        return [
            standing.status,
            *(printable(str(self.record.get(name, "")))[:LONGEST_NAME] for name in NAMES),
            f"{standing.step:,}/{standing.total_steps:,}",
            show(standing.last_return, standing.return_std),
            # Of an earlier evaluation nothing but its mean was kept.
            show(standing.best_return, standing.return_std if last_is_best else None),
            show(standing.final_return),
            str(timedelta(seconds=round(standing.time_s))),
        ]

    def as_json(self) -> dict[str, Any]:
        """All that is known of it, by name."""
        if self.standing is None:
            return {"run": self.name, "status": "unreadable"}
        figures = asdict(self.standing)
        names = ("algo", "env", "env_id", "advantage", "collector", "model", "seed", "started")
        return {
            "run": self.name,
            "status": figures.pop("status"),
            **{name: self.record.get(name) for name in names},
            "return": figures.pop("last_return"),
            **figures,
        }


def describe(directory: Path, root: Path) -> Listed:
    """Read how a run goes from the files in its directory."""
    name = str(directory.relative_to(root))
    try:
        standing, record = read_standing(directory)
    except (OSError, ValueError, UserError):  # not written by rlrun
        return Listed(directory=directory, name=name, record={}, standing=None)
    record = {**record, "status": standing.status}
    return Listed(directory=directory, name=name, record=record, standing=standing)


def show(value: float | None, deviation: float | None = None) -> str:
    """Write a return, and how far its episodes lie apart; nothing for one that there is not."""
    if value is None:
        return ""
    if abs(value) >= 1e9:
        return f"{value:.3g}"
    return f"{value:,.1f}" if deviation is None else with_spread(value, deviation)
