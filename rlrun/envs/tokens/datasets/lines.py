"""Files of JSON objects, one a line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.errors import UserError, near_file, nearest


@dataclass(frozen=True)
class Line:
    """A line of a file.

    Attributes:
        number: from 1.
        place: the file and the line, for messages.
        value: what it says; a number is the text that it is written as.
    """

    number: int
    place: str
    value: dict[str, Any]

    def text(self, key: str, *, may_be_empty: bool = False) -> str:
        """Return a text of it.

        Args:
            key: of the text.
            may_be_empty: whether an empty or a blank one is one.

        Raises:
            UserError: there is none.
        """
        if key not in self.value:
            match = nearest(key, self.value)
            hint = f"; did you mean '{key}' by '{match}'?" if match else ""
            raise UserError(f"{self.place} has no {key}{hint}")
        text = self.value[key]
        if not isinstance(text, str) or not (text.strip() or may_be_empty):
            kind = "a text" if may_be_empty else "a text that is not empty"
            raise UserError(f"{self.place}: {key} must be {kind}, got {json.dumps(text)}")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # half of a pair of surrogates, as an escape
            raise UserError(f"{self.place}: {key} is no text: {error.reason}") from error
        return text

    @property
    def system(self) -> str | None:
        """What is said before the prompt; None: nothing.

        Raises:
            UserError: it is no text.
        """
        return self.text("system") if self.value.get("system") is not None else None


def read_lines(path: str, setting: str, keys: str) -> Iterator[Line]:
    """Read the lines that are not empty.

    Args:
        path: of the file.
        setting: that names it, for messages.
        keys: what a line has, for messages ("prompt and answer").

    Raises:
        UserError: there is no such file, or a line is no object; its number is named.
    """
    place, file = f"{setting}={path}", Path(path)
    try:
        if file.is_dir():
            raise UserError(f"{place} is a directory")
        if not file.is_file():
            # A run may be resumed from elsewhere than it was begun.
            seen = "" if file.is_absolute() else f" in {Path.cwd()}"
            raise UserError(f"{place}: no such file{seen}{near_file(file)}")
        with file.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                if line.strip():
                    where = f"{place}: line {number}"
                    yield Line(number, where, read_object(line, where, keys))
    except OSError as error:
        raise UserError(f"{place} cannot be read: {error.strerror}") from error


def read_object(line: bytes, place: str, keys: str) -> dict[str, Any]:
    """Read one line.

    Raises:
        UserError: it is no object of JSON.
    """
    try:
        # 1.50 is not 1.5, where answers are compared letter by letter.
        value = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, json.JSONDecodeError):  # whose line is counted from this one's start
            reason = f"{error.msg} (column {error.colno})"
        raise UserError(f"{place} is no JSON in UTF-8: {reason}") from error
    if not isinstance(value, dict):
        raise UserError(f"{place} is no object with {keys}")
    return value
