"""A replay buffer on disk: files that are only ever added, so that a checkpoint costs what is new.

A segment holds the rows that were written between two checkpoints, in
``checkpoints/replay/rows-<first>-<end>.safetensors``. It is never written to again; a checkpoint's
manifest lists those that its buffer is made of, with their checksums, and one that no checkpoint
lists is removed. Of many small ones, neighbours are written again as one.
"""

import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors.torch
from rich.filesize import decimal

from rlrun.config.files import open_regular, read_json
from rlrun.data.replay.buffer import ReplayBuffer
from rlrun.data.replay.rows import Rows
from rlrun.errors import CheckpointNotWritten, UserError
from rlrun.runs.files.disk import MANIFEST, REPLAY, remove, replacing

NAME = re.compile(r"rows-(\d{12})-(\d{12})\.safetensors")

# Of so many, a manifest has a few kilobytes.
MOST_SEGMENTS = 64


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

    @property
    def size(self) -> int:
        """How many rows it has."""
        first, end = self.span
        return end - first


def listed_segments(manifest: dict[str, Any]) -> list[Segment]:
    """Return the segments that a checkpoint's manifest lists.

    Raises:
        ValueError, LookupError, TypeError: it lists something else.
    """
    return [Segment(str(one["file"]), str(one["sha256"])) for one in manifest.get(REPLAY, [])]


def read_segment(checkpoints: Path, segment: Segment) -> bytes:
    """Read a segment's file.

    Raises:
        ValueError: it is missing, damaged, or no segment.
    """
    _ = segment.span  # a name that leads nowhere else
    path = checkpoints / REPLAY / segment.file
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        raise ValueError(str(error)) from error
    if hashlib.sha256(data).hexdigest() != segment.sha256:
        raise ValueError(f"{path} does not match its checksum")
    return data


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

    def require_room(self) -> str:
        """Refuse a run whose buffer does not fit on the disk, beside what is there of it.

        Returns:
            What to add to a line that says how much room it takes: mostly nothing.

        Raises:
            UserError: there is not enough room.
        """
        place = next(path for path in self._checkpoints.parents if path.exists())
        there = sum(path.stat().st_size for path in (self._checkpoints / REPLAY).glob("rows-*"))
        most = self._buffer.most_bytes
        free, needed = shutil.disk_usage(place).free, max(0, most - there)
        if needed > free:
            raise UserError(
                f"the replay buffer takes {decimal(needed)} in checkpoints, and the disk of "
                f"{place} has {decimal(free)}: a smaller algo.replay.capacity, or "
                "checkpoint.replay=false, after which a resumed run fills a new one"
            )
        return f" (only {decimal(free)} are free there now)" if needed + most > free else ""

    def save(self) -> list[dict[str, str]]:
        """Write the rows that are new, and return what the checkpoint's manifest is to list.

        Raises:
            CheckpointNotWritten: the disk is full, say.
        """
        end = self._buffer.count
        oldest = end - len(self._buffer)
        if not all((self._checkpoints / REPLAY / one.file).exists() for one in self._segments):
            self._segments, self._written = [], oldest  # somebody has deleted them
        first = max(self._written, oldest)
        if first < end:
            self._segments.append(self._write(first, end))
            self._written = end
        self._segments = [segment for segment in self._segments if segment.span[1] > oldest]
        while len(self._segments) > MOST_SEGMENTS:
            self._merge(oldest)
        return [asdict(segment) for segment in self._segments]

    def _merge(self, oldest: int) -> None:
        """Write the two neighbours as one that have the fewest rows together."""
        sizes = [one.size + following.size for one, following in pairwise(self._segments)]
        place = sizes.index(min(sizes))
        one, following = self._segments[place : place + 2]
        merged = self._write(max(one.span[0], oldest), following.span[1])
        self._segments[place : place + 2] = [merged]

    def _write(self, first: int, end: int) -> Segment:
        columns = self._buffer.read(first, end)._asdict()
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

    def restore(self, manifest: dict[str, Any]) -> None:
        """Fill the buffer with what a checkpoint lists.

        Raises:
            ValueError, LookupError, TypeError, RuntimeError: a segment is missing, damaged, or not
                of this buffer.
        """
        self._segments = listed_segments(manifest)
        self._buffer.refill(self._pieces())

    def _pieces(self) -> Iterator[tuple[int, Rows]]:
        """Yield the rows of one segment after the other."""
        for segment in self._segments:
            try:
                columns = safetensors.torch.load(read_segment(self._checkpoints, segment))
            except safetensors.SafetensorError as error:
                raise ValueError(f"{segment.file}: {error}") from error
            rows = Rows(**columns)
            if any(len(column) != segment.size for column in rows):
                raise ValueError(f"{segment.file} has not as many rows as its name says")
            yield segment.span[0], rows

    def prune(self, kept: Iterable[Path]) -> None:
        """Remove the segments that no checkpoint lists.

        Args:
            kept: the directories of all checkpoints.
        """
        names = {segment.file for segment in self._segments}
        for checkpoint in kept:
            try:
                names |= {one.file for one in listed_segments(read_json(checkpoint / MANIFEST))}
            except (OSError, ValueError, TypeError, LookupError):
                continue  # a damaged checkpoint, which nobody goes on from
        for path in (self._checkpoints / REPLAY).glob("*rows-*"):
            if path.name not in names:
                remove(path)


def require_rows(checkpoints: Path, manifest: dict[str, Any]) -> None:
    """Compare the segments that a checkpoint lists with their checksums.

    Raises:
        ValueError: one is missing or damaged.
    """
    try:
        for segment in listed_segments(manifest):
            read_segment(checkpoints, segment)
    except (LookupError, TypeError) as error:
        raise ValueError(f"its list of segments is damaged: {error}") from error
