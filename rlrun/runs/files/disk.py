"""Files of a run's directory: written whole, and never through a link that leads out of it.

A run's directory may come from somebody else: ``metrics.jsonl`` may be a link to a file of the
reader's own, and ``run.json`` a pipe that nobody writes to.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rlrun.errors import UserError

CHECKPOINTS, STEPS, BEST = "checkpoints", "step-*", "best"

# In a checkpoint, and beside all of them.
MANIFEST, REPLAY = "manifest.json", "replay"


def require_own_files(directory: Path) -> None:
    """Refuse a run's directory in which a link, a pipe or the like stands for a file of the run.

    What loggers keep in directories of their own is theirs: W&B makes links there.

    Args:
        directory: the run's; a process may be writing there.

    Raises:
        UserError: there is one, or the directory cannot be read.
    """
    try:
        _require_own(directory.iterdir())
        checkpoints = directory / CHECKPOINTS
        if checkpoints.is_dir():
            _require_own(checkpoints.glob(STEPS))
            _require_own(checkpoints.glob(f"{STEPS}/*"))
            _require_own(checkpoints.glob(REPLAY))
            _require_own(checkpoints.glob(f"{REPLAY}/*"))
            best_of(checkpoints)
    except OSError as error:
        raise UserError(f"{directory} cannot be read: {error}") from error


def _require_own(paths: Iterable[Path]) -> None:
    for path in sorted(paths):
        try:
            kind = path.lstat().st_mode
        except FileNotFoundError:  # by now: the run's process removed it
            continue
        if stat.S_ISLNK(kind):
            raise UserError(f"{path} is a link, and could lead out of the run's directory")
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise UserError(f"{path} is neither a file nor a directory")


def best_of(checkpoints: Path) -> Path | None:
    """Return the checkpoint that ``best`` stands for, or None if there is none.

    Args:
        checkpoints: the directory of a run's checkpoints.

    Raises:
        UserError: it leads to something other than a checkpoint beside it.
    """
    link = checkpoints / BEST
    if not link.is_symlink():
        return link if link.is_dir() else None  # what `scp -r` makes of a link
    target = os.readlink(link)
    if not re.fullmatch(r"step-\d+", target) or (checkpoints / target).is_symlink():
        raise UserError(f"{link} leads to {target!r}, which is no checkpoint beside it")
    return checkpoints / target if (checkpoints / target).is_dir() else None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file whole: a reader, also one after a power cut, sees the old one or the new one.

    Args:
        path: the file. One writer at a time.

    Yields:
        The new file, under another name until the block ends without an error.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        remove(temporary)  # what a killed process left, or a link that somebody placed
        with temporary.open("xb") as file:  # which follows no link
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Remove a file, a directory with all in it, or a link without what it leads to.

    Args:
        path: what may be there; what resists stays.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def sync(path: Path) -> None:
    """Wait until a file's contents, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
