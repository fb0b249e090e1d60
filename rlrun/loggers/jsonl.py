"""The record that every run keeps: ``metrics.jsonl``, one JSON object a line."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlrun.errors import UserError


class JsonlLogger:
    """Appends one line for every `log`: ``{"step": 2048, "update": 320, "time_s": 0.4, ...}``.

    JSON has no NaN and no infinity: both are written as null.

    Each line is one ``write`` to a file opened for appending, so the operating system has it when
    `log` returns and a killed process loses none of it.
    """

    def __init__(self, path: Path, offset: int | None):
        """Create the file, or continue it.

        Args:
            path: the file.
            offset: bytes to keep of the file that is there, from `state_dict`: what was logged
                after the checkpoint is logged again by the resumed run. None keeps nothing.

        Raises:
            OSError: the file cannot be made, or is no file.
        """
        # In somebody else's run it could be a link to any file, or a pipe without a reader.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        self._file = os.open(path, flags, 0o666)
        # Truncating to more than the file has would fill it with zeros.
        self._offset = min(offset or 0, os.fstat(self._file).st_size)
        os.ftruncate(self._file, self._offset)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Append one line.

        Raises:
            OSError: the line could not be written whole, for instance on a full disk.
        """
        row = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        line = (json.dumps({"step": step, **row}) + "\n").encode()
        if os.write(self._file, line) != len(line):
            raise OSError("metrics.jsonl: a line was written in part; is the disk full?")
        self._offset += len(line)

    def checkpoint(self, path: Path, aliases: list[str]) -> None:
        """Nothing: checkpoints are beside this file."""

    def picture(self, name: str, path: Path) -> None:
        """Nothing: pictures are beside this file."""

    def samples(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Nothing: ``samples.jsonl`` has them."""

    def close(self, status: str, figures: dict[str, float]) -> None:
        """Close the file."""
        os.close(self._file)

    def state_dict(self) -> dict[str, Any]:
        """The number of bytes written, after making sure that they would survive a power cut."""
        os.fsync(self._file)
        return {"offset": self._offset}


def require_offset(states: dict[str, dict[str, Any]]) -> None:
    """Refuse the states of loggers that do not say where ``metrics.jsonl`` goes on.

    Args:
        states: of a checkpoint's loggers, by name.

    Raises:
        KeyError, TypeError, ValueError: they do not.
    """
    offset = states["jsonl"]["offset"]
    if not isinstance(offset, int) or offset < 0:
        raise ValueError(f"metrics.jsonl cannot go on at byte {offset!r}")


def require_rows(path: Path, states: dict[str, dict[str, Any]]) -> None:
    """Refuse a ``metrics.jsonl`` that cannot be read as far as a run goes on from it.

    Args:
        path: the file; one that is not there is begun anew.
        states: of the loggers of the checkpoint that the run goes on from.

    Raises:
        UserError: a line is damaged; nothing has been changed.
    """
    try:
        read_metrics(path, states["jsonl"]["offset"])
    except FileNotFoundError:
        return
    except (OSError, ValueError) as damaged:
        raise UserError(str(damaged)) from damaged


def read_metrics(path: Path, size: int | None = None) -> list[dict[str, float]]:
    """Read a ``metrics.jsonl``, also that of a run which is writing it.

    Args:
        path: the file.
        size: bytes that are read; None: all.

    Returns:
        One dict a line; null is read as NaN. A last line without its newline is left out.

    Raises:
        OSError: there is no such file.
        ValueError: another line is no row of numbers with a step; the message has its number.
    """
    *lines, _torn = path.read_bytes()[:size].split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            _require_row(row)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        rows.append({name: math.nan if value is None else value for name, value in row.items()})
    return rows


def _require_row(row: Any) -> None:
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise ValueError("no JSON object with a step")
    for name, value in row.items():
        if not isinstance(value, int | float | None):
            raise ValueError(f"{name} is no number")
