"""A run's directory: made for one run alone, locked while it runs, with a record of its state."""

import errno
import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import yaml

from rlrun import __version__
from rlrun.config.files import open_regular
from rlrun.errors import RunInUse, UserError, warn
from rlrun.hardware.cpu import processor
from rlrun.runs.files.disk import remove, replacing, sync

LOCK = ".lock"

# What rlrun makes directories for, and the file that makes a directory one of them. A sweep holds
# runs, and a plan of them; a study trials, and what they are to find out.
Kind = Literal["run", "sweep", "study"]
FILES: dict[Kind, str] = {"run": "run.json", "sweep": "sweep.json", "study": "study.json"}

# How the name of a directory begins that is not yet a run's. A process that was killed may leave
# one; it is nothing to anybody.
UNFINISHED = ".unfinished-"

# What flock says on a file system without locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "hydra-core", "omegaconf", "wandb")


@contextmanager
def new_directory(
    parent: Path,
    run_dir: str | None,
    name: str,
    *,
    config: dict[str, Any],
    overrides: list[str],
    record: dict[str, Any],
) -> Iterator[Path]:
    """Make a directory that no other run has, and lock it.

    It gets its name when it holds the files that a run is resumed from: whenever the process is
    killed, there is a run to resume, or the name is free.

    Args:
        parent: where a new one goes.
        run_dir: the directory that the user asked for, or None for one named after the time.
        name: what the run is, at the end of the directory's name.
        config: the resolved configuration.
        overrides: the words that led to it.
        record: the first content of ``run.json``.

    Yields:
        The directory, locked until the block ends.

    Raises:
        UserError: the directory asked for exists, or none can be made there; nothing is left.
    """
    place = parent if run_dir is None else Path(run_dir).parent
    temporary = place / f"{UNFINISHED}{secrets.token_hex(8)}"
    try:
        with _explained():
            if run_dir is not None:
                if not run_dir:
                    raise UserError("run_dir is empty: leave it out, or give a name")
                _require_free(Path(run_dir))
            temporary.mkdir(parents=True)
            write_config(temporary, config, overrides)
            write_record(temporary, record)
        with lock(temporary):
            with _explained():
                directory = _publish(temporary, parent, run_dir, name)
            yield directory
    finally:
        remove(temporary)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"the run's directory cannot be made: {error}") from error


def _publish(temporary: Path, parent: Path, run_dir: str | None, name: str) -> Path:
    """Give a directory its name, which no other run has."""
    while True:
        directory = Path(run_dir or parent / f"{datetime.now():%H-%M-%S-%f}_{name}")
        try:
            temporary.rename(directory)  # onto nothing, or onto an empty directory
        except OSError:
            if not _is_taken(directory):
                raise
            if run_dir is not None:
                _require_free(directory)
            continue  # another run began in this very microsecond
        sync(directory.parent)
        return directory


def _is_taken(directory: Path) -> bool:
    """Tell whether a name stands for something that a new run would have to replace."""
    if directory.is_dir() and not directory.is_symlink():
        return any(directory.iterdir())
    return os.path.lexists(directory)


def _require_free(directory: Path) -> None:
    """Refuse a name that the user asked for, and that is taken."""
    if _is_taken(directory):
        is_run = (directory / "run.json").exists()
        remedy = f"continue it with `rlrun resume {directory}`" if is_run else "choose a new name"
        raise UserError(f"run_dir={directory} exists: {remedy}")


def write_config(directory: Path, config: dict[str, Any], overrides: list[str]) -> None:
    """Write the resolved configuration, and the words that led to it."""
    for name, content in (("config.yaml", config), ("overrides.yaml", overrides)):
        with replacing(directory / name) as file:
            yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True, encoding="utf-8")


def write_record(directory: Path, record: dict[str, Any]) -> None:
    """Write ``run.json`` whole: a reader sees the old one or the new one."""
    with replacing(directory / "run.json") as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())


def find_runs(root: Path) -> Iterator[Path]:
    """Yield the directories under the root that hold a run, in the order of their names."""
    for directory, subdirectories, files in os.walk(root):
        subdirectories[:] = sorted(n for n in subdirectories if not n.startswith(UNFINISHED))
        if "run.json" in files:
            subdirectories.clear()  # nothing inside a run is a run
            yield Path(directory)


def provenance() -> dict[str, Any]:
    """Return what a reader needs to know where a run's numbers come from."""
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": socket.gethostname(),
        "cpu": processor(),
        "pid": os.getpid(),
        "git_commit": _git_commit(),
        "versions": {
            "rlrun": __version__,
            "python": sys.version.split()[0],
            **{package: metadata.version(package) for package in PACKAGES},
        },
    }


def kind_of(directory: Path) -> Kind | None:
    """Say what a directory is that of; None: of nothing that rlrun has made."""
    return next((kind for kind, name in FILES.items() if os.path.lexists(directory / name)), None)


def is_sweep(directory: Path) -> bool:
    """Say whether a directory is that of a sweep."""
    return kind_of(directory) == "sweep"


def require_own(directory: Path, kind: Kind) -> None:
    """Refuse to make something in a directory that has something else: nobody would find it there.

    Args:
        directory: which may be there or not.
        kind: what is to be made, or to be gone on with.

    Raises:
        UserError: it is another kind's.
    """
    there = kind_of(directory)
    if there not in (None, kind):
        raise UserError(f"{directory} is the directory of a {there}: a {kind} needs another one")


def lock(directory: Path) -> AbstractContextManager:
    """Lock a run's directory for this process; the lock ends with it, however it ends.

    Returns:
        The lock, which is held until its block or the process ends.

    Raises:
        RunInUse: another process runs there.
        UserError: the directory cannot be written to.
    """
    import filelock  # takes 0.2 s, which `rlrun list` need not wait for

    # Without flock, filelock's other way is a file that outlives a killed process. Were the file
    # removed with the lock, two processes could lock two files of this name.
    file = filelock.FileLock(directory / LOCK, fallback_to_soft=False, preserve_lock_file=True)
    try:
        # `is_locked` takes the lock for a moment, too.
        return file.acquire(timeout=0.5)
    except filelock.Timeout as error:
        raise RunInUse(f"{directory} is in use by a process that is still running") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise UserError(f"{directory} cannot be written to: {error}") from error
        # Some clusters' file systems have no locks; that is no reason not to train there.
        warn(f"the run's directory cannot be locked: {error}")
        return nullcontext()


@contextmanager
def shared(directory: Path) -> Iterator[None]:
    """Keep other processes waiting that write to a directory of several: a sweep's, a study's.

    Args:
        directory: it is made if it is not there.

    Raises:
        OSError: nothing can be written there.
    """
    import filelock  # as in `locked`

    directory.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(directory / LOCK, preserve_lock_file=True):
        yield


def is_locked(directory: Path) -> bool:
    """Tell whether a process runs in a run's directory: it holds the lock as long as it lives.

    Written by hand, since filelock can only tell by locking: that takes the right to write, makes
    the file where there is none, and excludes other readers.
    """
    try:
        with open_regular(directory / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, ValueError):
        return False
    except OSError:  # no locks on this file system, or no permission: nobody can tell
        return True
    return False


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
