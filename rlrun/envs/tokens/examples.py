"""Data sets of prompts and answers: JSON, one example a line."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.errors import UserError, nearest


@dataclass(frozen=True)
class Example:
    """A prompt and its answer.

    Attributes:
        prompt: what is asked.
        answer: what a verifier compares with.
        system: what is said before the prompt; None: nothing.
        line: its number in the file, from 1.
    """

    prompt: str
    answer: str
    system: str | None
    line: int

    @property
    def text(self) -> str:
        """What people see of it, and what it is known by."""
        return self.prompt if self.system is None else f"{self.system}\n{self.prompt}"


def read_examples(path: str, setting: str) -> dict[str, Example]:
    """Read a data set; what stands in it twice is one example.

    Args:
        path: of the file: objects with ``prompt``, ``answer`` and perhaps ``system``; other keys
            are passed over, as are empty lines.
        setting: that names it, for messages.

    Returns:
        The examples by their texts.

    Raises:
        UserError: there is no such file, it is empty, or a line is no example; its number is named.
    """
    place = f"{setting}={path}"
    file = Path(path)
    if not file.is_file():
        entries = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        match = nearest(file.name, entries)
        hint = f"; did you mean '{file.parent / match}'?" if match else ""
        raise UserError(f"{place}: no such file{hint}")
    examples: dict[str, Example] = {}
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                if not line.strip():
                    continue
                example = read_example(line, number, f"{place}: line {number}")
                earlier = examples.setdefault(example.text, example)
                if earlier.answer != example.answer:
                    raise UserError(
                        f"{place}: line {number} has the prompt of line {earlier.line}, and "
                        "another answer"
                    )
    except OSError as error:
        raise UserError(f"{place} cannot be read: {error.strerror}") from error
    if not examples:
        raise UserError(f"{place} is empty: it has no prompts")
    return examples


def read_example(line: bytes, number: int, place: str) -> Example:
    """Read one line.

    Args:
        line: of the file.
        number: of the line.
        place: where it is, for messages.

    Raises:
        UserError: it is no example.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{place} is no JSON in UTF-8: {reason}") from error
    if not isinstance(value, dict):
        raise UserError(f"{place} is no object with prompt and answer")
    prompt, answer = (text_of(value, key, place) for key in ("prompt", "answer"))
    system = text_of(value, "system", place) if value.get("system") is not None else None
    return Example(prompt, answer, system, number)


def text_of(value: dict[str, Any], key: str, place: str) -> str:
    """Return a text of a line; a number is the text that it is written as.

    Raises:
        UserError: there is none.
    """
    if key not in value:
        match = nearest(key, value)
        hint = f"; did you mean '{key}' by '{match}'?" if match else ""
        raise UserError(f"{place} has no {key}{hint}")
    text = value[key]
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = json.dumps(text)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{place}: {key} must be a text that is not empty, got {json.dumps(text)}")
    return text


def split(examples: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """Return the texts of training and those that are held out, which never overlap.

    Those with the smallest digests are held out, whatever their order in the file.

    Args:
        examples: texts of a data set, each once.
        share: that is held out, of at least one; 0: both are all of them.

    Raises:
        ValueError: nothing is left to train on.
    """
    if share == 0:
        return list(examples), list(examples)
    count = max(1, round(share * len(examples)))
    if count >= len(examples):
        raise ValueError(f"{len(examples)} prompts are too few")
    digests = {
        text: hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()
        for text in examples
    }
    apart = set(sorted(examples, key=digests.__getitem__)[:count])
    return [text for text in examples if text not in apart], sorted(apart)
