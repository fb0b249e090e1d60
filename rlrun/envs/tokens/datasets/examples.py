"""Data sets of prompts and answers: JSON, one example a line."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from rlrun.envs.tokens.datasets.lines import Line, read_lines
from rlrun.errors import UserError


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
        return known_as(self.prompt, self.system)


def known_as(prompt: str, system: str | None) -> str:
    """Return what people see of a prompt, and what it is known by."""
    return prompt if system is None else f"{system}\n{prompt}"


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
    examples: dict[str, Example] = {}
    for line in read_lines(path, setting, "prompt and answer"):
        example = example_of(line)
        earlier = examples.setdefault(example.text, example)
        if earlier.answer != example.answer:
            raise UserError(
                f"{line.place} has the prompt of line {earlier.line}, and another answer"
            )
    if not examples:
        raise UserError(f"{place} is empty: it has no prompts")
    return examples


def example_of(line: Line) -> Example:
    """Return the example of a line.

    Raises:
        UserError: it is none.
    """
    return Example(line.text("prompt"), line.text("answer"), line.system, line.number)


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
