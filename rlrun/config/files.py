"""Reads the files of a run's directory, which may be somebody else's: text, and nothing more.

What such a file can do to a reader is bounded: its size, how deep it is nested, what its values
are. It may be a pipe or a link in place of a file. Interpolations are text like any other.
"""

import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

import yaml

# Bytes of a file that is read whole; a run's config has some thousand.
MOST_BYTES = 2**20

# Containers inside each other; a run's config has four.
DEEPEST = 32

# What a value may be: that of which rlrun's own files are made.
YAML_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")
}


def open_regular(path: Path) -> BufferedReader:
    """Opens a file for reading, without following a link or waiting for the writer of a pipe.

    Raises:
        OSError: there is no such file.
        ValueError: it is something else than a file.
    """
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link")
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError(f"{path.name} is not a file")
    return file


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file whose top is a mapping.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file.
    """
    text = read_text(path)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not a mapping")
    return content


def parse_json(text: str | bytes) -> Any:
    """Reads JSON of any depth without an error of Python's own.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_yaml(path: Path) -> Any:
    """Reads a YAML file as plain containers, text and numbers; ``${…}`` stays text.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not YAML, or has in it what rlrun does not write.
    """
    text = read_text(path)
    try:
        return yaml.load(text, PlainLoader)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def read_text(path: Path) -> str:
    """Reads a file of UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, is not UTF-8, or is no file.
    """
    with open_regular(path) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path.name} is larger than {MOST_BYTES:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text in UTF-8") from error


class PlainLoader(yaml.SafeLoader):
    """Reads YAML without aliases, which can stand for more nodes than any memory holds."""

    def __init__(self, stream: str):
        """Begin outside of all containers."""
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Read one value, after a look at what kind it is."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"line {self.peek_event().start_mark.line + 1}: an alias")
        if self._depth == DEEPEST:
            raise yaml.YAMLError("nested too deeply")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and node.tag not in YAML_TAGS:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a value of type {node.tag}")
        return node


def conf_directory() -> Path:
    """Returns the directory of rlrun's YAML files: in the wheel, else beside the checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"
