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

try:  # libyaml's parser, several times as fast as Python's own
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # of a build of PyYAML without it
    from yaml import SafeLoader

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


def read_json(path: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Reads a JSON file whose top is a mapping.

    Args:
        path: the file.
        most_bytes: size of the largest that is read.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file.
    """
    text = read_text(path, most_bytes=most_bytes)
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
        require_shallow_tree(text)
        return yaml.load(text, PlainLoader)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def read_text(path: Path, *, most_bytes: int = MOST_BYTES) -> str:
    """Reads a file of UTF-8.

    Args:
        path: the file.
        most_bytes: size of the largest that is read.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, is not UTF-8, or is no file.
    """
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"{path.name} is larger than {most_bytes:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text in UTF-8") from error


class PlainLoader(SafeLoader):
    """Makes of YAML what rlrun's own files are made of, and nothing else."""

    def construct_document(self, node: yaml.Node) -> Any:
        """Make a document's value, after a look at what kind all parts of it are."""
        remaining = [node]
        while remaining:
            part = remaining.pop()
            if part.tag not in YAML_TAGS:
                line = part.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: a value of type {part.tag}")
            if isinstance(part, yaml.SequenceNode):
                remaining += part.value
            elif isinstance(part, yaml.MappingNode):
                remaining += [member for pair in part.value for member in pair]
        return super().construct_document(node)


def require_shallow_tree(text: str) -> None:
    """Refuses YAML before anything is made of it that could fill the memory, or the stack.

    Aliases can stand for more nodes than any memory holds; libyaml descends into containers without
    a limit of its own.

    Raises:
        yaml.YAMLError: it has an alias, is nested too deeply, or is no YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: an alias")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise yaml.YAMLError("nested too deeply")


def conf_directory() -> Path:
    """Returns the directory of rlrun's YAML files: in the wheel, else beside the checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"
