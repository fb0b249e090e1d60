"""A replay buffer on disk: files that are only ever added, so that a checkpoint costs what is new.

A segment holds the rows that were written between two checkpoints, in
``checkpoints/replay/rows-<first>-<end>.safetensors``. It is never written to again; a checkpoint's
manifest lists those that its buffer is made of, with their checksums, and one that no checkpoint
lists is removed.
"""

import hashlib
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from rlrun.config.files import open_regular, read_json
from rlrun.data.replay import ReplayBuffer, Rows
from rlrun.errors import CheckpointNotWritten, UserError
from rlrun.runs.files.checkpoint import MANIFEST
from rlrun.runs.files.disk import remove, replacing

# Beside the checkpoints.
REPLAY = "replay"

NAME = re.compile(r"rows-(\d{12})-(\d{12})\.safetensors")


@dataclass(frozen=True)
class Segment:
    """A file of rows.

    Attributes:
        file: its name.
        sha256: checksum of what is in it.
    """

    file: str
    sha256: str

    @property
    def span(self) -> tuple[int, int]:
        """Number of its first row since the run's beginning, and of the first one after it.

        Raises:
            ValueError: it is no such name.
        """
        match = NAME.fullmatch(self.file)
        if match is None:
            raise ValueError(f"{self.file!r} is no segment of a replay buffer")
        return int(match[1]), int(match[2])


class Spill:
    """Keeps a replay buffer's rows beside the checkpoints.

    Args:
        buffer: the run's.
        checkpoints: the directory of its checkpoints.
    """

    def __init__(self, buffer: ReplayBuffer, checkpoints: Path):
        self._buffer = buffer
        self._checkpoints = checkpoints
        self._segments: list[Segment] = []
        self._written = buffer.count

    def require_room(self) -> None:
        """Refuse a run whose buffer does not fit on the disk.

        Raises:
            UserError: there is not enough room.
        """
        place = next(path for path in self._checkpoints.parents if path.exists())
        free, needed = shutil.disk_usage(place).free, self._buffer.most_bytes
        if needed > free:
            raise UserError(
                f"the replay buffer takes {needed / 2**20:,.0f} MiB in checkpoints, and the disk "
                f"of {place} has {free / 2**20:,.0f}: a smaller algo.replay.capacity, or "
                "checkpoint.replay=false, after which a resumed run fills a new one"
            )

    def save(self) -> list[dict[str, str]]:
        """Write the rows that are new, and return what the checkpoint's manifest is to list.

        Raises:
            CheckpointNotWritten: the disk is full, say.
        """
        end = self._buffer.count
        oldest = end - len(self._buffer)
        first = max(self._written, oldest)
        if first < end:
            self._segments.append(self._write(first, end))
            self._written = end
        self._segments = [segment for segment in self._segments if segment.span[1] > oldest]
        return [asdict(segment) for segment in self._segments]

    def _write(self, first: int, end: int) -> Segment:
        columns = self._buffer.read(first)._asdict()
        data = safetensors.torch.save({name: c.contiguous() for name, c in columns.items()})
        path = self._checkpoints / REPLAY / f"rows-{first:012d}-{end:012d}.safetensors"
        try:
            # The run's own directory is not made again: somebody has deleted it.
            for directory in (self._checkpoints, path.parent):
                directory.mkdir(exist_ok=True)
            with replacing(path) as file:
                file.write(data)
        except OSError as error:
            raise CheckpointNotWritten(f"{path} could not be written: {error}") from error
        return Segment(path.name, hashlib.sha256(data).hexdigest())

    def restore(self, listed: Any) -> None:
        """Fill the buffer with what a checkpoint lists.

        Args:
            listed: from its manifest.

        Raises:
            ValueError, KeyError, TypeError: a segment is missing, damaged, or not the next one.
        """
        self._segments = [Segment(str(one["file"]), str(one["sha256"])) for one in listed]
        spans = [segment.span for segment in self._segments]
        if not spans or spans[-1][1] != self._buffer.count:
            raise ValueError(f"its replay buffer does not end at row {self._buffer.count:,}")
        if any(one[1] != following[0] for one, following in pairwise(spans)):
            raise ValueError("rows of its replay buffer are missing")
        pieces = [Rows(**self._read(segment)) for segment in self._segments]
        rows = Rows(*(torch.cat(column) for column in zip(*pieces, strict=True)))
        kept = min(len(rows.reward), self._buffer.capacity)
        self._buffer.refill(Rows(*(column[-kept:] for column in rows)))

    def _read(self, segment: Segment) -> dict[str, torch.Tensor]:
        path = self._checkpoints / REPLAY / segment.file
        try:
            with open_regular(path) as file:
                data = file.read()
        except OSError as error:
            raise ValueError(str(error)) from error
        if hashlib.sha256(data).hexdigest() != segment.sha256:
            raise ValueError(f"{path} does not match its checksum")
        try:
            return safetensors.torch.load(data)
        except Exception as error:  # whatever a damaged file makes of its reader
            raise ValueError(f"{path}: {error}") from error

    def prune(self, kept: Iterable[Path]) -> None:
        """Remove the segments that no checkpoint lists.

        Args:
            kept: the directories of all checkpoints.
        """
        names = {segment.file for segment in self._segments}
        for checkpoint in kept:
            try:
                listed = read_json(checkpoint / MANIFEST).get(REPLAY, [])
                names |= {str(one["file"]) for one in listed}
            except (OSError, ValueError, TypeError, KeyError):
                continue  # a damaged checkpoint, which nobody goes on from
        for path in (self._checkpoints / REPLAY).glob("*rows-*"):
            if path.name not in names:
                remove(path)
