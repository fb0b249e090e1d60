"""Reads how far a ``.wandb`` file goes: W&B writes it with a delay, so that kill -9 loses its end.

W&B has no reader of its own to import. The format is a LevelDB log after 7 bytes of header: blocks
of 32 KiB hold chunks of (crc32 u32, length u16, type u8, data), and a chunk never crosses a block.
Types: 1 is a whole record, 2, 3 and 4 are its first, middle and last part. Zeros pad a block.
"""

import json
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAGIC = b":W&B"
FILE_HEADER = 7  # bytes
CHUNK_HEADER = struct.Struct("<IHB")
BLOCK = 32 * 1024
WHOLE, LAST = 1, 4  # types of chunk that end a record


def last_row(directory: Path, run_id: str) -> dict[str, Any]:
    """Return the last row that W&B's files in a run's directory have of a W&B run.

    Args:
        directory: the run's directory.
        run_id: W&B's id of the run.

    Returns:
        Its values by name, with ``_step``, W&B's own step; empty if there is none.
    """
    # Each process of the run left a file of its own, in a directory named after the time:
    # offline-run-<date>_<time>-<id>, or run-<date>_<time>-<id> where it was online.
    files = directory.glob("wandb/*run-*/run-*.wandb")
    for path in sorted(files, key=lambda file: file.parent.name.removeprefix("offline-"))[::-1]:
        if path.stem == f"run-{run_id}" and path.is_file() and not path.is_symlink():
            last = deque(rows(path), maxlen=1)
            if last:
                return last[0]
    return {}


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a .wandb file: what was logged, by name, as far as it can be read."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # generated

    for data in records(path):
        try:
            record = Record.FromString(data)
        except DecodeError:
            return  # a power cut, say, has damaged it
        if record.WhichOneof("record_type") == "history":
            yield {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }


def records(path: Path) -> Iterator[bytes]:
    """Yield the whole records of a .wandb file, which may end anywhere."""
    with path.open("rb") as file:
        block, position, record = file.read(BLOCK), FILE_HEADER, b""
        if not block.startswith(MAGIC):
            return  # not even the header was written
        while block:
            while len(block) - position >= CHUNK_HEADER.size:
                _crc, length, kind = CHUNK_HEADER.unpack_from(block, position)
                position += CHUNK_HEADER.size
                chunk = block[position : position + length]
                if len(chunk) < length:
                    return  # the end of the file
                position += length
                record += chunk
                if kind in (WHOLE, LAST):
                    yield record
                    record = b""
            block, position = file.read(BLOCK), 0
