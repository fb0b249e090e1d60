"""What a .wandb file says, read without W&B's own reader."""

import json
import struct

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32 * 1024


def records(path):
    """The records of a .wandb file: after 7 bytes of header a LevelDB log.

    Blocks of 32 KiB hold chunks of (crc32 u32, length u16, type u8, data); a chunk never crosses a
    block. Types: 1 is a whole record, 2, 3, 4 are its first, middle and last part. Zeros pad.
    """
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, data = 7, b""
    while position + 7 <= len(content):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        _crc, length, kind = struct.unpack_from("<IHB", content, position)
        position += 7
        if position + length > len(content):
            return  # cut in the middle
        data += content[position : position + length]
        position += length
        if kind in (1, 4):
            yield Record.FromString(data)
            data = b""


def items(entries):
    return {
        entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries
    }


class RunFile:
    """What one .wandb file says."""

    def __init__(self, path):
        self.rows, self.metrics, self.artifacts, self.exit_codes = [], [], [], []
        self.summary = {}
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config = items(record.run.config.update)
            elif kind == "history":
                self.rows.append(items(record.history.item))
            elif kind == "summary":
                self.summary |= items(record.summary.update)
            elif kind == "metric":
                self.metrics.append(record.metric)
            elif kind == "artifact":
                self.artifacts.append(record.artifact)
            elif kind == "exit":
                self.exit_codes.append(record.exit.exit_code)

    def logged(self):
        """The rows' numbers, without what W&B adds: _step, _timestamp, _runtime."""
        return [
            {
                name: value
                for name, value in row.items()
                if not name.startswith("_") and f"{name.rpartition('/')[0]}/_type" not in row
            }
            for row in self.rows
        ]

    def media(self):
        """Pictures and films by name: the step that each was logged at, and what it is."""
        found = {}
        for row in self.rows:
            for key in row:
                name, _, last = key.rpartition("/")
                if last == "_type":
                    parts = {k.removeprefix(f"{name}/"): v for k, v in row.items()}
                    found[name] = (row["_step"], parts)
        return found


def run_files(directory):
    """The offline runs in a run's directory, oldest first."""
    # By when they were written last: the directories' names say only the second of the beginning.
    paths = directory.glob("wandb/offline-run-*/*.wandb")
    return [RunFile(path) for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]
