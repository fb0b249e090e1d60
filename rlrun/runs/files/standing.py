"""How far a run is, read from its directory while it runs or afterwards."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval

from rlrun.config import schema
from rlrun.config.files import open_regular, parse_json, read_json
from rlrun.config.types import Count, Finite, NonNegativeInt
from rlrun.errors import UserError
from rlrun.runs.files.directory import is_locked

# Bytes at the end of metrics.jsonl that hold its last lines, of some hundred bytes each.
TAIL = 16_384

# Of a run: less than a century.
Seconds = Annotated[float, Interval(ge=0, le=3e9)]


@dataclass(kw_only=True)
class Standing:
    """What run.json and metrics.jsonl say of how a run goes.

    Attributes:
        status: how it ended; planned: it has not begun; killed: its process is gone without a word.
        step: environment steps done.
        total_steps: environment steps at which it ends.
        last_return: of the last evaluation.
        return_std: standard deviation over its episodes.
        best_return: of the best one.
        final_return: mean of those in the last tenth of the steps.
        time_s: seconds that it took.
        error: what ended it.
    """

    status: Literal["planned", "running", "finished", "interrupted", "failed", "killed"]
    step: NonNegativeInt
    total_steps: Count
    last_return: Finite | None
    return_std: Finite | None
    best_return: Finite | None
    final_return: Finite | None
    time_s: Seconds
    error: str | None


@dataclass(kw_only=True)
class Row:
    """What a row of metrics.jsonl says of how a run goes: a part of what is in `Standing`."""

    step: NonNegativeInt
    time_s: Seconds
    last_return: Finite | None
    return_std: Finite | None


def read_standing(directory: Path) -> tuple[Standing, dict[str, Any]]:
    """Read how far a run is, and all of its run.json.

    Args:
        directory: the run's, perhaps of somebody else.

    Raises:
        OSError, ValueError, UserError: it was not written by rlrun.
    """
    locked = is_locked(directory)  # before run.json is read, which says last how the run ended
    record = read_json(directory / "run.json")
    keys = {"last_return": "return"}
    values = {name: record.get(keys.get(name, name)) for name in Standing.__annotations__}
    standing = schema.convert(values, Standing, "run.json")
    if standing.status == "running" and not locked:
        standing.status = "killed"
    catch_up(standing, directory / "metrics.jsonl")
    return standing, record


def catch_up(standing: Standing, path: Path) -> None:
    """Bring a run's standing up to the last rows of metrics.jsonl.

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
        if row.step < standing.step:
            continue
        standing.step, standing.time_s = row.step, max(standing.time_s, row.time_s)
        if row.last_return is not None:
            standing.last_return, standing.return_std = row.last_return, row.return_std
            best = -math.inf if standing.best_return is None else standing.best_return
            standing.best_return = max(best, row.last_return)
