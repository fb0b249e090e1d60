"""A run of `rlrun list`: what run.json says, and the last rows of metrics.jsonl."""

import math
import os
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval

from rlrun.config import schema
from rlrun.config.files import open_regular, parse_json, read_json
from rlrun.config.types import Count, Finite, NonNegativeInt
from rlrun.errors import UserError, printable
from rlrun.runs.figures import with_spread
from rlrun.runs.files.directory import is_locked

# What stands of a run by name, beside what its directory is called.
NAMES = ("algo", "env_id", "advantage", "model")

# Characters of such a name that are shown: another run's row is as wide as the widest.
LONGEST_NAME = 30

# Bytes at the end of metrics.jsonl that hold its last lines, of some hundred bytes each.
TAIL = 16_384

# Of a run: less than a century.
Seconds = Annotated[float, Interval(ge=0, le=3e9)]


@dataclass(kw_only=True)
class Summary:
    """What run.json says of how a run goes.

    Attributes:
        status: how it ended, or that it has not.
        step: environment steps done.
        total_steps: environment steps at which it ends.
        last_return: of the last evaluation.
        return_std: standard deviation over its episodes.
        best_return: of the best one.
        final_return: mean of those in the last tenth of the steps.
        time_s: seconds that it took.
    """

    status: Literal["running", "killed", "finished", "interrupted", "failed"]
    step: NonNegativeInt
    total_steps: Count
    last_return: Finite | None
    return_std: Finite | None
    best_return: Finite | None
    final_return: Finite | None
    time_s: Seconds


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run of the list.

    Attributes:
        directory: the run's.
        name: the directory's, from where the list begins.
        record: run.json; empty where it cannot be read.
        summary: how it goes; None: rlrun did not write this.
    """

    directory: Path
    name: str
    record: dict[str, Any]
    summary: Summary | None

    @property
    def cells(self) -> list[str]:
        """Status, steps, returns and time in a reader's words."""
        summary = self.summary
        if summary is None:
            return ["unreadable"]
        return [
            summary.status,
            *(printable(str(self.record.get(name, "")))[:LONGEST_NAME] for name in NAMES),
            f"{summary.step:,}/{summary.total_steps:,}",
            show(summary.last_return, summary.return_std),
            show(summary.best_return),
            show(summary.final_return),
            str(timedelta(seconds=round(summary.time_s))),
        ]

    def as_json(self) -> dict[str, Any]:
        """All that is known of it, by name."""
        if self.summary is None:
            return {"run": self.name, "status": "unreadable"}
        figures = asdict(self.summary)
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
    locked = is_locked(directory)  # before run.json is read, which says last how the run ended
    try:
        record = read_json(directory / "run.json")
        keys = {"last_return": "return"}
        values = {name: record.get(keys.get(name, name)) for name in Summary.__annotations__}
        summary = schema.convert(values, Summary, "run.json")
        catch_up(summary, directory / "metrics.jsonl")
    except (OSError, ValueError, UserError):  # not written by rlrun
        return Listed(directory=directory, name=name, record={}, summary=None)
    if summary.status == "running" and not locked:
        summary.status = record["status"] = "killed"
    return Listed(directory=directory, name=name, record=record, summary=summary)


@dataclass(kw_only=True)
class Row:
    """What a row of metrics.jsonl says of how a run goes: a part of what is in `Summary`."""

    step: NonNegativeInt
    time_s: Seconds
    last_return: Finite | None
    return_std: Finite | None


def catch_up(summary: Summary, path: Path) -> None:
    """Brings a summary up to the last rows of metrics.jsonl.

    They are newer than run.json, which is written only now and then.

    Raises:
        ValueError: it is no file.
    """
    try:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            values = parse_json(line)
            evaluated = {"last_return": "eval/return", "return_std": "eval/return_std"}
            given = {"step": values["step"], "time_s": values["time_s"]}
            given |= {name: values.get(key) for name, key in evaluated.items()}
            row = schema.convert(given, Row, "row")
        except (ValueError, KeyError, TypeError, UserError):
            continue  # the line is not whole: the file is being written, or the process was killed
        if row.step < summary.step:
            continue
        summary.step, summary.time_s = row.step, max(summary.time_s, row.time_s)
        if row.last_return is not None:
            summary.last_return, summary.return_std = row.last_return, row.return_std
            best = -math.inf if summary.best_return is None else summary.best_return
            summary.best_return = max(best, row.last_return)


def show(value: float | None, deviation: float | None = None) -> str:
    """Write a return, and how far its episodes lie apart; nothing for one that there is not."""
    if value is None:
        return ""
    if abs(value) >= 1e9:
        return f"{value:.3g}"
    return f"{value:,.1f}" if deviation is None else with_spread(value, deviation)
