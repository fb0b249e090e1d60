"""Tasks of numbers: sums, sequences, parity, and what makes a number of others."""

import itertools
import operator
import re
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Interval

from rlrun.envs.tokens.procedural import ProceduralTask
from rlrun.envs.tokens.strings import DIGITS
from rlrun.envs.tokens.task import Judgement, Reward

# Numbers below 36 as one character each.
NUMERALS = DIGITS + "abcdefghijklmnopqrstuvwxyz"


@dataclass(kw_only=True)
class ModAdd(ProceduralTask):
    """``7+9=`` → ``5``: the sum modulo a number, one character each (10 is a, 11 is b …).

    Attributes:
        modulus: the numbers are below it.
    """

    modulus: Annotated[int, Interval(ge=2, le=36)]

    answer_rows = 1
    longest_prompt = 4
    longest_answer = 1

    @property
    def id(self) -> str:
        """Name of the task."""
        return "mod_add"

    @property
    def answer_characters(self) -> str:
        """The numbers."""
        return NUMERALS[: self.modulus]

    @property
    def characters(self) -> str:
        """The numbers, and two signs."""
        return self.answer_characters + "+="

    def draw(self, generator: np.random.Generator) -> str:
        """Draw two numbers."""
        one, other = generator.integers(self.modulus, size=2)
        return f"{NUMERALS[one]}+{NUMERALS[other]}="

    def answer(self, prompt: str) -> str:
        """Add them."""
        return NUMERALS[(int(prompt[0], 36) + int(prompt[2], 36)) % self.modulus]


@dataclass(kw_only=True)
class Add(ProceduralTask):
    """``12+7=`` → ``91``: the sum, with the ones first, as one adds by hand.

    Attributes:
        digits: most digits of a number.
    """

    digits: Annotated[int, Interval(ge=1, le=15)]

    characters = DIGITS + "+="
    answer_characters = DIGITS

    @property
    def id(self) -> str:
        """Name of the task."""
        return "add"

    @property
    def longest_prompt(self) -> int:
        """Of two numbers and two signs."""
        return 2 * self.digits + 2

    @property
    def longest_answer(self) -> int:
        """One digit is carried."""
        return self.digits + 1

    def draw(self, generator: np.random.Generator) -> str:
        """Draw two numbers, each with any number of digits alike."""
        lengths = generator.integers(1, self.digits + 1, size=2)
        one, other = (int(generator.integers(10**length)) for length in lengths.tolist())
        return f"{one}+{other}="

    def answer(self, prompt: str) -> str:
        """Add them."""
        one, other = prompt.removesuffix("=").split("+")
        return str(int(one) + int(other))[::-1]


@dataclass(kw_only=True)
class DigitSequence(ProceduralTask):
    """``1,3,5:4`` → ``7,9,1,3``: numbers of equal distance go on, modulo 10 (verl's test).

    Attributes:
        most: numbers that are asked for at most.
    """

    most: Annotated[int, Interval(ge=1, le=9)]

    characters = DIGITS + ",:"
    answer_characters = DIGITS + ","
    longest_prompt = 7

    @property
    def id(self) -> str:
        """Name of the task."""
        return "digit_sequence"

    @property
    def longest_answer(self) -> int:
        """Numbers with commas between them."""
        return 2 * self.most - 1

    def draw(self, generator: np.random.Generator) -> str:
        """Draw a start, a distance, and how many numbers are asked for."""
        start, distance = generator.integers(10, size=2)
        shown = ",".join(str((start + k * distance) % 10) for k in range(3))
        return f"{shown}:{generator.integers(1, self.most + 1)}"

    def answer(self, prompt: str) -> str:
        """Go on from the last one."""
        shown, _, count = prompt.partition(":")
        start, then, last = map(int, shown.split(","))
        numbers = [(last + (k + 1) * (then - start)) % 10 for k in range(int(count))]
        return ",".join(map(str, numbers))


@dataclass(kw_only=True)
class Parity(ProceduralTask):
    """``011010=`` → ``1``: whether the number of ones is odd.

    A negative control: no part of the bits says anything about the answer, so that a reward for
    right answers leads nowhere.

    Attributes:
        bits: how many there are.
    """

    bits: Annotated[int, Interval(ge=1, le=64)]

    characters = "01="
    answer_characters = "01"
    answer_rows = 1
    longest_answer = 1

    @property
    def id(self) -> str:
        """Name of the task."""
        return "parity"

    @property
    def longest_prompt(self) -> int:
        """The bits and a sign."""
        return self.bits + 1

    def draw(self, generator: np.random.Generator) -> str:
        """Draw the bits."""
        return "".join(map(str, generator.integers(2, size=self.bits))) + "="

    def answer(self, prompt: str) -> str:
        """Count the ones."""
        return str(prompt.count("1") % 2)


OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclass(kw_only=True)
class Countdown(ProceduralTask):
    """``3,5,8>16`` → ``3+5+8``: an expression of all the numbers that has this value.

    Signs are + − ×, without brackets, and multiplication comes first. Several may be right.

    Attributes:
        numbers: how many there are.
        largest: of them.
    """

    numbers: Annotated[int, Interval(ge=2, le=4)]
    largest: Annotated[int, Interval(ge=2, le=99)]

    characters = DIGITS + "+-*,>"
    answer_characters = DIGITS + "+-*"
    without: ClassVar[tuple[Reward, ...]] = ("fraction", "prefix")

    @property
    def id(self) -> str:
        """Name of the task."""
        return "countdown"

    @property
    def longest_prompt(self) -> int:
        """The numbers, the signs between them, and the largest product."""
        return self.longest_answer + 1 + len(str(self.largest**self.numbers))

    @property
    def longest_answer(self) -> int:
        """The numbers, and the signs between them."""
        return self.numbers * (len(str(self.largest)) + 1) - 1

    def draw(self, generator: np.random.Generator) -> str:
        """Draw an expression whose value is not negative."""
        while True:
            numbers = generator.integers(1, self.largest + 1, size=self.numbers).tolist()
            signs = generator.integers(len(OPERATORS), size=self.numbers - 1).tolist()
            value = value_of(written(numbers, [list(OPERATORS)[sign] for sign in signs]))
            if value >= 0:
                return f"{','.join(map(str, sorted(numbers)))}>{value}"

    def answer(self, prompt: str) -> str:
        """Try all expressions."""
        return solution(prompt)

    def judge(self, prompt: str, response: str, *, complete: bool) -> Judgement:
        """Compute the expression (see :class:`ProceduralTask`)."""
        form = complete and self.is_well_formed(response)
        numbers, _, value = prompt.partition(">")
        used = sorted(re.findall(r"\d+", response))  # as they are written: 03 is not 3
        right = form and used == sorted(numbers.split(","))
        right = right and value_of(response) == int(value)
        return Judgement(outcome=float(right), form=float(form), fraction=0.0, prefix=0.0)

    def is_well_formed(self, response: str) -> bool:
        """Say whether a response is an expression."""
        return re.fullmatch(r"\d+([-+*]\d+)*", response) is not None


def written(numbers: list[int], signs: list[str]) -> str:
    """Return numbers with signs between them."""
    pairs = zip(signs, numbers[1:], strict=True)
    return "".join([str(numbers[0]), *(f"{sign}{number}" for sign, number in pairs)])


def value_of(expression: str) -> int:
    """Return the value of numbers with + − × between them."""
    total = 0
    for sign, term in re.findall(r"([-+]?)([\d*]+)", expression):
        product = 1
        for factor in term.split("*"):
            product *= int(factor)
        total += -product if sign == "-" else product
    return total


@cache
def solution(prompt: str) -> str:
    """Return the first expression of a prompt's numbers that has its value."""
    numbers, _, value = prompt.partition(">")
    for order in itertools.permutations(map(int, numbers.split(","))):
        for signs in itertools.product(OPERATORS, repeat=len(order) - 1):
            expression = written(list(order), list(signs))
            if value_of(expression) == int(value):
                return expression
    raise ValueError(f"{prompt} has no solution")
