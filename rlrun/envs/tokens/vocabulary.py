"""Between texts and tokens: characters or bytes as tokens, and one that ends a response."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Protocol


@dataclass(frozen=True)
class Language:
    """What a model and a collector have to know of a task's tokens.

    Attributes:
        size: V, tokens that there are, 0…V − 1.
        end: the token that ends a response, and right answers do.
        prompt_rows: P, tokens of the longest prompt.
        response_rows: L, tokens after which a response is truncated.
        answer_rows: tokens after which a response is complete without an end, because all answers
            have so many; None: a response ends with one of `ends`.
        tokens: what each token stands for: a policy for the same tokens can read this task.
        stops: further tokens that end a response.
    """

    size: int
    end: int
    prompt_rows: int
    response_rows: int
    answer_rows: int | None
    tokens: tuple[str, ...]
    stops: tuple[int, ...] = ()

    @property
    def ends(self) -> tuple[int, ...]:
        """All tokens that end a response."""
        return (self.end, *self.stops)

    def until_end(self, response: Iterable[int]) -> list[int]:
        """Return the tokens of a response before the one that ends it."""
        ends = self.ends
        return list(takewhile(lambda token: token not in ends, response))

    @cached_property
    def digest(self) -> str:
        """Of what the tokens stand for: equal where they do the same."""
        text = "\0".join(self.tokens)
        return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()


class Tokenizer(Protocol):
    """Between texts and tokens."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """What each token stands for."""
        ...

    @property
    def end(self) -> int:
        """The token that ends a response."""
        ...

    def __len__(self) -> int:
        """V."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Raises:
            KeyError: it has a character that is no token.
        """
        ...

    def encode_prompt(self, prompt: str, system: str | None) -> list[int]:
        """Return the tokens of a prompt, as the policy is to see it.

        Args:
            prompt: what is asked.
            system: what is said before it; None: nothing.

        Raises:
            KeyError: it has a character that is no token.
            UserError: there is no place for a system text.
        """
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, up to the end of the response."""
        ...


class Vocabulary:
    """Characters as tokens.

    Attributes:
        tokens: what each token stands for; the last one ends a response.
    """

    END = "<end>"

    def __init__(self, characters: Iterable[str]):
        """Number the characters, in their order."""
        self.tokens = (*characters, self.END)
        self._numbers = {character: number for number, character in enumerate(self.tokens[:-1])}

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

    def encode_prompt(self, prompt: str, system: str | None) -> list[int]:
        """Return the tokens of a prompt, below the system's text (see :class:`Tokenizer`)."""
        return self.encode(prompt if system is None else f"{system}\n{prompt}")

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, up to the end of the response."""
        return "".join(self.tokens[token] for token in takewhile(self.end.__ne__, tokens))


class Bytes:
    """The bytes of UTF-8 as tokens: any text has some.

    Attributes:
        tokens: what each token stands for; the last one ends a response.
    """

    tokens = (*(f"<0x{byte:02X}>" for byte in range(256)), Vocabulary.END)
    end = 256

    def __len__(self) -> int:
        """V."""
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Return the bytes of a text."""
        return list(text.encode(errors="replace"))

    def encode_prompt(self, prompt: str, system: str | None) -> list[int]:
        """Return the bytes of a prompt, below the system's text (see :class:`Tokenizer`)."""
        return self.encode(prompt if system is None else f"{system}\n{prompt}")

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, up to the end of the response; � for what is none."""
        found = list(tokens)
        end = found.index(self.end) if self.end in found else len(found)
        return bytes(found[:end]).decode(errors="replace")


def padded_above(rows: Sequence[Sequence[int]], length: int, filler: int) -> list[list[int]]:
    """Return lists of tokens as lists of one length, the filler before each."""
    return [[filler] * (length - len(row)) + list(row) for row in rows]
