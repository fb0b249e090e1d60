r"""What can be read of a response: numbers, and what stands in ``\boxed{…}``."""

import functools
import importlib.util
import logging
import re
from fractions import Fraction
from typing import Any

# A number: sign, digits with commas between thousands, exponent, and the rest of a fraction.
NUMBER = re.compile(
    r"(?:(?<![\w)])[-+−])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)"
    r"(?:[eE][-+]?\d{1,3})?(?:\s*/\s*\d+(?:\.\d+)?)?"
)

# What begins a box of LaTeX.
BOX = re.compile(r"\\(?:boxed|fbox)\{")


@functools.cache
def math_verify() -> Any:
    """Return the package math-verify, which takes a second to import; None: it is not there."""
    if importlib.util.find_spec("math_verify") is None:
        return None
    module = importlib.import_module("math_verify")
    # It warns of having no limit of its own.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    return module


def last_number(text: str) -> float | None:
    """Return the last number of a text; None where there is none."""
    found = NUMBER.findall(text)
    return number_of(found[-1]) if found else None


def number_of(text: str) -> float | None:
    """Return the number that a text is; None where it is something else."""
    text = re.sub(r"[\s$%]", "", text)
    if not NUMBER.fullmatch(text):
        return None
    above, _, below = text.replace(",", "").replace("−", "-").partition("/")
    try:
        return float(Fraction(above) / Fraction(below or 1))
    except (ZeroDivisionError, OverflowError, ValueError):
        return None


def boxed_answer(text: str) -> str | None:
    r"""Return what the last ``\boxed{…}`` has; None where there is none, or it does not end."""
    boxes = list(BOX.finditer(text))
    if not boxes:
        return None
    first, depth = boxes[-1].end(), 1
    for place in range(first, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[first:place].strip()
    return None


def plain(text: str) -> str:
    """Return a text without blanks and dollar signs."""
    return re.sub(r"[\s$]", "", text)
