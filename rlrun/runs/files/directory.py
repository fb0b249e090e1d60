"""A run's directory: made for one run alone, locked while it runs, with a record of its state."""

import fcntl
import json
import os
import socket
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import yaml

from rlrun import __version__
from rlrun.errors import UserError, warn

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "hydra-core", "omegaconf", "wandb")


def make_directory(parent: Path, run_dir: str | None, name: str) -> Path:
    """Make a directory that no other run has.

    Args:
        parent: where a new one goes.
        run_dir: the directory that the user asked for, or None for one named after the time.
        name: what the run is, at the end of the directory's name.

    Raises:
        UserError: the directory asked for exists, or none can be made there.
    """
    while True:
        directory = Path(run_dir or parent / f"{datetime.now():%H-%M-%S-%f}_{name}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError as error:
            if run_dir is None:
                continue  # another run began in this very microsecond
            is_run = (directory / "run.json").exists()
            remedy = f"continue it with `rlrun resume {run_dir}`" if is_run else "choose a new name"
            raise UserError(f"run_dir={run_dir} exists: {remedy}") from error
        except OSError as error:
            raise UserError(f"the run's directory cannot be made: {error}") from error
        return directory


def write_config(directory: Path, config: dict[str, Any], overrides: list[str]) -> None:
    """Write the resolved configuration, and the words that led to it."""
    for name, content in (("config.yaml", config), ("overrides.yaml", overrides)):
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        _replace(directory / name, text)


def write_record(directory: Path, record: dict[str, Any]) -> None:
    """Write ``run.json`` whole: a reader sees the old one or the new one."""
    _replace(directory / "run.json", json.dumps(record, indent=2) + "\n")


def provenance() -> dict[str, Any]:
    """Return what a reader needs to know where a run's numbers come from."""
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "git_commit": _git_commit(),
        "versions": {
            "rlrun": __version__,
            "python": sys.version.split()[0],
            **{package: metadata.version(package) for package in PACKAGES},
        },
    }


def lock(directory: Path) -> IO[str]:
    """Lock a run's directory for this process; the lock ends with it, however it ends.

    Returns:
        The open lock file, to be kept and closed.

    Raises:
        UserError: another process runs there, or the directory cannot be written to.
    """
    try:
        file = (directory / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{directory} cannot be written to: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(f"{directory} is in use by a process that is still running") from error
    except OSError as error:
        # Some clusters' file systems have no locks; that is no reason not to train there.
        warn(f"{directory} cannot be locked: {error}")
    return file


def _git_commit() -> str | None:
    """Return the commit of rlrun's own checkout, with "+changes" if it was edited since.

    None for an installed rlrun, also where it is installed inside another project's checkout.
    """
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # fails where git does not know this file
        changes = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave an empty file of that name
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
