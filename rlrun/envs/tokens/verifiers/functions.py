r"""The verifiers that ``env.verifier`` names: response, answer -> what the response is worth.

Each returns True or False, or a number in [0, 1] of which only 1 is right; None where it finds no
answer in the response. It raises ValueError for an answer of the data set that it cannot read. One
of the user's own is such a function in one of their plugins.
"""

import math
import re

from rlrun.envs.tokens.verifiers.reading import (
    BOX,
    boxed_answer,
    last_number,
    math_verify,
    number_of,
    plain,
)

# Numbers are equal that differ by no more than rounding.
TOLERANCE = 1e-6


def exact(response: str, answer: str) -> bool | None:
    """Compare the whole response with the answer, but for the blanks around them."""
    return None if not response.strip() else response.strip() == answer.strip()


def numeric(response: str, answer: str) -> bool | None:
    """Compare the last number of the response with the answer, which is a number.

    Signs, points, commas between thousands, exponents and fractions ("3/4") are read; units and
    percent signs are passed over.
    """
    expected, found = number_of(answer), last_number(response)
    if expected is None:
        raise ValueError(f"{answer!r} is no number")
    return None if found is None else math.isclose(found, expected, rel_tol=TOLERANCE)


def boxed(response: str, answer: str) -> bool | None:
    r"""Compare what the response's last ``\boxed{…}`` has with the answer.

    By math-verify, if it is installed, which knows that ``\frac12`` is 0.5; else as numbers, or as
    text without blanks.
    """
    expected = boxed_answer(answer) if BOX.search(answer) else answer
    if expected is None:
        raise ValueError(f"{answer!r} has a box that does not end")
    if not plain(expected):
        raise ValueError("it is empty")
    found = boxed_answer(response)
    if found is None:
        return None
    if plain(found) == plain(expected):
        return True
    library = math_verify()
    if library is not None:
        # Without limits of its own: those are signals, and this process has one anyhow.
        one, other = (
            library.parse(f"${text}$", parsing_timeout=None) for text in (expected, found)
        )
        return library.verify(one, other, timeout_seconds=None)
    one, other = number_of(expected), number_of(found)
    return one is not None and other is not None and math.isclose(one, other, rel_tol=TOLERANCE)


def regex(response: str, answer: str) -> bool | None:
    r"""Look for the answer, a regular expression, in the response.

    Anywhere in it: ``\A…\Z`` is for all of it.
    """
    try:
        pattern = re.compile(answer)
    except re.error as error:
        raise ValueError(f"{answer!r} is no regular expression: {error}") from error
    return None if not response.strip() else pattern.search(response) is not None
