"""Runs as their files say them: what they were, and their evaluations; free of torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlrun.config import schema
from rlrun.config.files import open_regular, parse_json, read_json, read_yaml
from rlrun.config.types import Count, NonNegative, NonNegativeInt
from rlrun.errors import UserError
from rlrun.runs.figures import final_return
from rlrun.runs.files.directory import is_locked

# The groups of which a run says its choice.
CHOICES = ("algo", "env", "advantage", "collector", "model", "hardware")

# Bytes of a line of metrics.jsonl; a row of rlrun's has some hundred.
LONGEST_LINE = 2**16

Status = Literal["finished", "planned", "running", "killed", "interrupted", "failed"]


@dataclass(frozen=True, eq=False)
class Evaluations:
    """A run's evaluations in their order.

    Attributes:
        steps: environment steps, [P].
        seconds: of the run until then, [P]; NaN where nobody wrote it down.
        returns: mean return over the episodes of each, [P]; NaN where it was not finite.
        spreads: standard deviation over the episodes of each, [P]; NaN as with the seconds.
    """

    steps: NDArray[np.float64]
    seconds: NDArray[np.float64]
    returns: NDArray[np.float64]
    spreads: NDArray[np.float64]

    def __len__(self) -> int:
        """How many there are, P."""
        return len(self.steps)

    def first(self, count: int) -> "Evaluations":
        """Return as many of them from the beginning."""
        return Evaluations(
            **{field.name: getattr(self, field.name)[:count] for field in fields(self)}
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredRun:
    """A run as its files say it.

    Attributes:
        source: where it was read: a directory, or the address of a W&B run.
        status: how it ended, or that it has not.
        error: what ended it, or None.
        choices: the choice of each group: {"algo": "ppo", "env": "hopper", "advantage": "gae", …}.
        env_id: the environment's id.
        seed: the run's seed.
        total_steps: environment steps at which it ends.
        step: environment steps done.
        time_s: seconds that it took.
        compile_s: seconds of compiling before; None: nothing was compiled.
        started: when, in ISO 8601; None: nobody wrote it down.
        host: the machine's name; None as with `started`.
        cpu: its processor; None as with `started`.
        commit: git commit of rlrun's code; None for an installed one.
        versions: of packages, by name.
        overrides: the command line's words.
        tuned_on: seeds on which its values were chosen.
        settings: values of its config by their paths: {"algo.gamma": 0.99, …}.
        evaluations: in their order.
    """

    source: str
    status: Status
    error: str | None = None
    choices: dict[str, str]
    env_id: str
    seed: NonNegativeInt
    total_steps: Count
    step: NonNegativeInt
    time_s: NonNegative
    compile_s: NonNegative | None = None
    started: str | None = None
    host: str | None = None
    cpu: str | None = None
    commit: str | None = None
    versions: dict[str, str]
    overrides: list[str]
    tuned_on: list[int]
    settings: Mapping[str, Any]
    evaluations: Evaluations

    @property
    def last_step(self) -> int:
        """Environment steps at which it ends: fewer than asked for where it converged."""
        return min(self.step, self.total_steps) if self.status == "finished" else self.total_steps

    @property
    def final_return(self) -> float:
        """The figure of the run: NaN as long as it has none."""
        curve = self.evaluations
        return final_return(zip(curve.steps, curve.returns, strict=True), self.last_step)

    @property
    def lost_its_end(self) -> bool:
        """Whether it finished, and the evaluation at its end is not among those that are there.

        The last line of its metrics.jsonl was torn or cut off: there is no other trace of that.
        """
        at = self.evaluations.steps
        return self.status == "finished" and (len(at) == 0 or at[-1] < self.step)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it, in which nothing is NaN or infinite."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["settings"] = {key: without_infinity(v) for key, v in self.settings.items()}
        content["evaluations"] = {
            name: [value if math.isfinite(value) else None for value in column.tolist()]
            for name, column in asdict(self.evaluations).items()
        }
        return content


def read_run(directory: Path) -> StoredRun:
    """Read a run's directory, which may be somebody else's: nothing of it is imported or resolved.

    Args:
        directory: with run.json, config.yaml, overrides.yaml, and metrics.jsonl as far as there is
            one.

    Raises:
        UserError: a file of it is damaged; the line says which.
    """
    locked = is_locked(directory)  # before run.json is read, which says last how the run ended
    try:
        record = read_json(directory / "run.json")
        config = schema.convert(read_yaml(directory / "config.yaml"), dict[str, Any], "config.yaml")
        overrides = read_yaml(directory / "overrides.yaml")
        killed = record.get("status") == "running" and not locked
        known = {field.name for field in fields(StoredRun)}
        values = {key: value for key, value in record.items() if key in known}
        return from_values(
            {
                **values,
                "source": str(directory),
                "status": "killed" if killed else record.get("status"),
                "choices": {name: record[name] for name in CHOICES if name in record},
                "commit": record.get("git_commit"),
                "versions": record.get("versions", {}),
                "tuned_on": config.get("tuned_on", []),
                "overrides": overrides,
                "settings": flatten(config),
                "evaluations": read_evaluations(directory / "metrics.jsonl"),
            },
            "run.json",
        )
    except (OSError, ValueError, UserError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{directory} is not a run that can be read: {reason}") from error


def from_json(content: Any, place: str) -> StoredRun:
    """Read back what `StoredRun.to_json` wrote, from somebody's file.

    Args:
        content: what JSON says.
        place: where it stands, for messages.

    Raises:
        UserError: it is something else.
    """
    values = schema.convert(content, dict[str, Any], place)
    columns = schema.convert(
        values.get("evaluations"), dict[str, list[float | None]], f"{place}.evaluations"
    )
    settings = schema.convert(values.get("settings"), dict[str, Any], f"{place}.settings")
    names = [field.name for field in fields(Evaluations)]
    if sorted(columns) != sorted(names) or len({len(column) for column in columns.values()}) != 1:
        raise UserError(f"{place}.evaluations: expected {', '.join(names)}, of equal lengths")
    arrays = {name: np.array(column, np.float64) for name, column in columns.items()}
    return from_values(
        {
            **values,
            "settings": {key: with_infinity(value) for key, value in settings.items()},
            "evaluations": Evaluations(**arrays),
        },
        place,
    )


def from_values(values: Mapping[str, Any], place: str) -> StoredRun:
    """Check the values of a run.

    Args:
        values: by the names of `StoredRun`.
        place: where they stand, for messages.

    Raises:
        UserError: one is missing, unknown, of another type, or out of its range.
    """
    run: StoredRun = schema.convert(values, StoredRun, place)
    if missing := {"algo", "env"} - set(run.choices):
        raise UserError(f"{place}: {min(missing)} is missing")
    if np.any(np.diff(run.evaluations.steps) < 0):
        raise UserError(f"{place}: the evaluations' steps go backwards")
    return run


def read_evaluations(path: Path) -> Evaluations:
    """Read the evaluations of a ``metrics.jsonl``, also that of a run which is writing it.

    Of the other rows no more is looked at than that they are whole: most of a file's bytes are
    theirs.

    Args:
        path: the file; one that is not there (the run has just begun) has no evaluations.

    Raises:
        OSError: it cannot be read.
        ValueError: a line that is not the last is no row; the message has its number.
    """
    rows: list[list[float]] = []
    try:
        with open_regular(path) as file:
            lines = iter(partial(file.readline, LONGEST_LINE), b"")
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n") and len(line) < LONGEST_LINE:
                    break  # torn: the run is writing it, or was killed meanwhile
                if b'"eval/return"' in line or not looks_whole(line):
                    try:
                        rows += evaluation_of(line)
                    except (ValueError, TypeError, OverflowError) as error:
                        raise ValueError(f"{path.name}, line {number}: {error}") from error
    except FileNotFoundError:
        pass
    return Evaluations(*np.array(rows, np.float64).reshape(-1, len(fields(Evaluations))).T)


def looks_whole(line: bytes) -> bool:
    """Tell whether a line of ``metrics.jsonl`` begins and ends as a row, and is no two of them."""
    return line.startswith(b'{"step": ') and line.endswith(b"}\n") and line.count(b"{") == 1


def evaluation_of(line: bytes) -> list[list[float]]:
    """Return a row's evaluation, as `Evaluations` has it, in a list of one; of another row, none.

    Raises:
        ValueError, TypeError, OverflowError: it is no row of numbers with a step.
    """
    row = parse_json(line)
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise ValueError("no JSON object with a step")
    names = ("step", "time_s", "eval/return", "eval/return_std")
    numbers = [math.nan if row.get(name) is None else float(row[name]) for name in names]
    return [numbers] if "eval/return" in row else []


def flatten(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their paths: {"algo.gamma": 0.99, …}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        place = schema.join(path, str(key))
        if isinstance(value, dict) and value:
            flat |= flatten(value, place)
        else:
            flat[place] = value
    return flat


# How YAML, and so a run's own config, writes what JSON has no number for.
INFINITIES = {".inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}


def without_infinity(value: Any) -> Any:
    """Return a setting's value with text for the numbers that JSON does not have."""
    if isinstance(value, list):
        return [without_infinity(member) for member in value]
    if isinstance(value, dict):
        return {key: without_infinity(member) for key, member in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return value


def with_infinity(value: Any) -> Any:
    """Return what `without_infinity` was given."""
    if isinstance(value, list):
        return [with_infinity(member) for member in value]
    if isinstance(value, dict):
        return {key: with_infinity(member) for key, member in value.items()}
    return INFINITIES.get(value, value) if isinstance(value, str) else value
