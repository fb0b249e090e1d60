"""Runs rlrun as it was at some commit, for `same_numbers.py` and `speed_of_commits.py`."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# `rlrun.cli.main` was the function and is the module.
COMMAND = "from rlrun.cli import main; getattr(main, 'main', main)()"


def short_hash(commit: str) -> str:
    """Return the abbreviated hash of a commit that is given by any name."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", commit]
    return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def checked_out(commits: Sequence[str], scratch: Path) -> Iterator[list[Path]]:
    """Check commits out, each in a directory of its own below ``scratch``; remove them after."""
    checkouts = [Path(scratch, f"commit{number}") for number in range(len(commits))]
    worktree = ["git", "-C", str(ROOT), "worktree"]
    try:
        for checkout, commit in zip(checkouts, commits, strict=True):
            subprocess.run([*worktree, "add", "-q", "--detach", str(checkout), commit], check=True)
        yield checkouts
    finally:
        for checkout in filter(Path.exists, checkouts):
            subprocess.run([*worktree, "remove", "--force", str(checkout)], check=True)


def train(
    checkout: Path, words: Sequence[str], directory: Path, environment: Mapping[str, str]
) -> None:
    """Train with the code of a checkout.

    Args:
        checkout: directory of the code.
        words: of the command line, but for the run's directory.
        directory: of the run.
        environment: variables besides those of this process.

    Raises:
        RuntimeError: it failed; the message is the last line that it said.
    """
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words, f"run_dir={directory}"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{checkout.name} failed: {done.stderr.strip().splitlines()[-1]}")
