"""What was written in evaluations: ``samples.jsonl`` in a run's directory, for people to read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Samples:
    """Appends rows, one JSON object a line; those of a resumed run follow what it goes on from."""

    def __init__(self, path: Path, step: int):
        """Begin, or go on.

        Args:
            path: of the file, which the first row makes.
            step: environment step of the last evaluation; rows of later ones, which a run left that
                was killed, are dropped: they are written again.
        """
        self._path = path
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            path.write_text("".join(f"{line}\n" for line in kept))

    def append(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Write what was said at an environment step, if there is anything."""
        if rows:
            lines = [json.dumps({"step": step, **row}, ensure_ascii=False) for row in rows]
            with self._path.open("a") as file:
                file.write("".join(f"{line}\n" for line in lines))


def _step_of(line: str) -> float:
    """Return the step of a row; infinity for one that was cut off in the middle."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
