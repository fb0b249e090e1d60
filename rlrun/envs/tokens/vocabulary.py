"""Tokens of procedural tasks: a character each, and one that ends a response."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """What a model and a collector have to know of a task's tokens.

    Attributes:
        size: V, tokens that there are, 0…V − 1.
        end: the token that ends a response.
        prompt_rows: P, tokens of the longest prompt.
        response_rows: L, tokens after which a response is truncated.
        answer_rows: tokens after which a response is complete without an end, because all answers
            have so many; None: a response ends with `end`.
        tokens: what each token stands for: a policy for the same tokens can read this task.
    """

    size: int
    end: int
    prompt_rows: int
    response_rows: int
    answer_rows: int | None
    tokens: tuple[str, ...]


class Vocabulary:
    """Characters as tokens.

    Attributes:
        tokens: what each token stands for; the last one ends a response.
    """

    END = "<end>"

    def __init__(self, characters: str):
        """Number the characters, in their order."""
        self.tokens = (*characters, self.END)
        self._numbers = {character: number for number, character in enumerate(characters)}

    def __len__(self) -> int:
        """V."""
        return len(self.tokens)

    @property
    def end(self) -> int:
        """The token that ends a response."""
        return len(self.tokens) - 1

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Raises:
            KeyError: it has another character.
        """
        return [self._numbers[character] for character in text]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, up to the end of the response."""
        characters: list[str] = []
        for token in tokens:
            if token == self.end:
                break
            characters.append(self.tokens[token])
        return "".join(characters)


def padded_above(rows: Sequence[Sequence[int]], length: int, filler: int) -> list[list[int]]:
    """Return lists of tokens as lists of one length, the filler before each."""
    return [[filler] * (length - len(row)) + list(row) for row in rows]
