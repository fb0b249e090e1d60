"""Tasks of characters: to copy, reverse or sort digits, and to close brackets."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Interval

from rlrun.config.types import Count
from rlrun.envs.tokens.procedural import ProceduralTask
from rlrun.envs.tokens.task import Judgement, Reward

DIGITS = "0123456789"


@dataclass(kw_only=True)
class DigitsTask(ProceduralTask):
    """Digits to digits; the first letter of a prompt says what to do with them.

    All such tasks have the same tokens, so that a model of one can go on with another.

    Attributes:
        shortest: fewest digits.
        longest: most digits.
    """

    shortest: Count
    longest: Count

    characters = DIGITS + "CRS="
    answer_characters = DIGITS
    letter: ClassVar[str]

    def __post_init__(self):
        """Refuse lengths in the wrong order."""
        super().__post_init__()
        if self.shortest > self.longest:
            raise ValueError(
                f"shortest must be at most longest={self.longest}, got {self.shortest}"
            )

    @property
    def longest_prompt(self) -> int:
        """A letter, the digits, a sign."""
        return self.longest + 2

    @property
    def longest_answer(self) -> int:
        """As many digits."""
        return self.longest

    def draw(self, generator: np.random.Generator) -> str:
        """Draw the digits, of each length alike."""
        length = int(generator.integers(self.shortest, self.longest + 1))
        return f"{self.letter}{''.join(map(str, generator.integers(10, size=length)))}="


@dataclass(kw_only=True)
class Copy(DigitsTask):
    """``C3141=`` → ``3141``."""

    letter = "C"

    @property
    def id(self) -> str:
        """Name of the task."""
        return "copy"

    def answer(self, prompt: str) -> str:
        """Return the digits."""
        return prompt[1:-1]


@dataclass(kw_only=True)
class Reverse(DigitsTask):
    """``R3141=`` → ``1413``."""

    letter = "R"

    @property
    def id(self) -> str:
        """Name of the task."""
        return "reverse"

    def answer(self, prompt: str) -> str:
        """Return the digits, the last one first."""
        return prompt[-2:0:-1]


@dataclass(kw_only=True)
class Sort(DigitsTask):
    """``S3141=`` → ``1134``."""

    letter = "S"

    @property
    def id(self) -> str:
        """Name of the task."""
        return "sort"

    def answer(self, prompt: str) -> str:
        """Return the digits, the smallest one first."""
        return "".join(sorted(prompt[1:-1]))


@dataclass(kw_only=True)
class Brackets(ProceduralTask):
    """``((`` → ``)())()``: brackets are completed to a balanced string of a given length.

    There are many right answers, so that it can be seen whether a policy keeps to one of them.

    Attributes:
        length: brackets of the whole string.
        given: brackets of the prompt.
    """

    length: Annotated[int, Interval(ge=2, le=64)]
    given: Count

    characters = answer_characters = "()"
    without: ClassVar[tuple[Reward, ...]] = ("fraction",)

    def __post_init__(self):
        """Refuse strings that cannot be balanced or are complete."""
        super().__post_init__()
        if self.length % 2:
            raise ValueError(f"length must be even, got {self.length}")
        if self.given >= self.length:
            raise ValueError(f"given must be below length={self.length}, got {self.given}")

    @property
    def id(self) -> str:
        """Name of the task."""
        return "brackets"

    @property
    def longest_prompt(self) -> int:
        """The brackets that are given."""
        return self.given

    @property
    def longest_answer(self) -> int:
        """The others."""
        return self.length - self.given

    @property
    def answer_rows(self) -> int:
        """The others."""
        return self.length - self.given

    def draw(self, generator: np.random.Generator) -> str:
        """Draw brackets that can be completed."""
        while True:
            bits = generator.integers(2, size=self.given).tolist()
            prompt = "".join("()"[bit] for bit in bits)
            if self.correct(prompt) == self.given:
                return prompt

    def answer(self, prompt: str) -> str:
        """Close what is open, then open and close the rest."""
        still_open = prompt.count("(") - prompt.count(")")
        rest = (self.length - self.given - still_open) // 2
        return ")" * still_open + "()" * rest

    def correct(self, brackets: str) -> int:
        """Return how many brackets stand before the first after which there is no completion."""
        depth = 0
        for place, bracket in enumerate(brackets):
            depth += 1 if bracket == "(" else -1
            if depth < 0 or depth > self.length - place - 1:
                return place
        return len(brackets)

    def judge(self, prompt: str, response: str, *, complete: bool) -> Judgement:
        """Count the brackets that can stand where they do (see :class:`ProceduralTask`)."""
        form = complete and self.is_well_formed(response)
        correct = self.correct(prompt + response) - self.given
        right = form and correct == self.longest_answer
        return Judgement(float(right), float(form), 0.0, correct / self.longest_answer)

    def is_well_formed(self, response: str) -> bool:
        """Say whether a response has the right length."""
        return len(response) == self.longest_answer
