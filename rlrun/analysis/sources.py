"""What `rlrun compare` is given: directories of runs and of sweeps, patterns, archives, W&B."""

import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlrun.analysis import wandb_runs
from rlrun.analysis.stored_runs import StoredRun, from_json, read_run
from rlrun.config import schema
from rlrun.config.files import read_json
from rlrun.errors import UserError, near_path
from rlrun.runs.files.directory import find_runs

ARCHIVE = ".json"  # ends the name of one

# Bytes of an archive; a run of 20 evaluations takes some four thousand.
MOST_BYTES = 2**28


def read_runs(words: Sequence[str]) -> list[StoredRun]:
    """Read the runs that words of a command line name, each once.

    Args:
        words: directories, patterns (``outputs/*/*_ppo_*``), archives, and
            ``wandb:entity/project?group=…``.

    Raises:
        UserError: a word names no run, or a run cannot be read.
    """
    runs: dict[tuple[str, str | None, int], StoredRun] = {}
    for word in words:
        from_wandb = word.startswith(wandb_runs.PREFIX)
        for run in wandb_runs.read(word) if from_wandb else read_path(word):
            # The same run can be under two words, and in an archive beside its directory.
            runs.setdefault((run.source, run.started, run.step), run)
    if not runs:
        raise UserError(f"no runs among {' '.join(words)}")
    return list(runs.values())


def read_path(word: str) -> Iterator[StoredRun]:
    """Yield the runs of a directory, a pattern or an archive.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    path = Path(word)
    if path.is_dir():
        paths = list(find_runs(path))
        if not paths:
            raise UserError(f"no runs under '{word}'")
    elif path.is_file():
        # The shell puts a sweep's other files (sweep.jsonl) in the place of a pattern, too.
        paths = [path] if path.suffix == ARCHIVE else []
    else:
        paths = list(matching(word))
        if not paths:
            raise UserError(f"no runs at '{word}'{near_path(path)}")
    for path in paths:
        if path.is_dir():
            yield read_run(path)
        else:
            yield from read_archive(path)


def matching(pattern: str) -> Iterator[Path]:
    """Yield the runs and archives that match a pattern of the shell's, in the order of names."""
    for name in sorted(glob.glob(pattern, recursive=True)):
        if Path(name).is_dir():
            yield from find_runs(Path(name))
        elif Path(name).suffix == ARCHIVE:
            yield Path(name)


def read_archive(path: Path) -> list[StoredRun]:
    """Read the runs of an archive, which `rlrun compare … --json` wrote.

    Raises:
        UserError: it is something else, or damaged.
    """
    try:
        content = read_json(path, most_bytes=MOST_BYTES)
        if "runs" not in content:
            raise UserError("there are no runs in it")
        runs = schema.convert(content["runs"], list[Any], "runs")
        return [from_json(run, f"runs[{number}]") for number, run in enumerate(runs)]
    except (OSError, ValueError, UserError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is neither a run's directory nor an archive: {reason}") from error


def archive_text(runs: Sequence[StoredRun], **others: Any) -> str:
    """Write an archive: JSON with a line for each run.

    Args:
        runs: what it holds whole.
        others: what else stands in it, by name.
    """
    parts = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in others.items()]
    lines = ",\n".join(f"  {json.dumps(run.to_json())}" for run in runs)
    return "{\n" + ",\n".join([*parts, f' "runs": [\n{lines}\n ]']) + "\n}\n"
