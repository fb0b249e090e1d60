"""The record of evaluations after training: ``evaluations.jsonl`` in a run's directory.

A line is an evaluation, a JSON object: {"checkpoint": "step-000000204800", "step": 204800,
"seed": 0, "episodes": 100, "return": …, "return_std": …, "return_min": …, "return_max": …,
"length": …, "time": …, "git_commit": …}.
"""

import json
import os
from pathlib import Path
from typing import Any

from rlrun.errors import warn
from rlrun.runs.files.directory import provenance

EVALUATIONS = "evaluations.jsonl"


def note_evaluation(directory: Path, figures: dict[str, Any]) -> None:
    """Append an evaluation; a run that cannot be written to is no obstacle.

    Args:
        directory: the run's.
        figures: of the evaluation.
    """
    code = provenance()
    entry = {**figures, "time": code["started"], "git_commit": code["git_commit"]}
    # As for metrics.jsonl, it could be a link to any file, or a pipe without a reader.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.open(directory / EVALUATIONS, flags, 0o666)
        try:
            os.write(file, (json.dumps(entry) + "\n").encode())  # in one piece
        finally:
            os.close(file)
    except OSError as error:
        warn(f"the evaluation is not noted in {directory}: {error.strerror}")
