"""Ranges of settings, written as types beside the fields; a failure names the field and its value.

``rlrun.config.schema`` enforces them, for dataclasses and for functions: with
``learning_rate: Positive``, 0 ends in "algo.learning_rate must be positive, got 0.0". Another
range is written in the same way, ``Annotated[float, Interval(ge=0, lt=1)]``.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Interval, Le, Lt, Predicate

FINITE = Predicate(math.isfinite)

# A whole number of things, at least one.
Count = Annotated[int, Ge(1)]

# A whole number, zero or more.
NonNegativeInt = Annotated[int, Ge(0)]

# A number that is neither infinite nor NaN.
Finite = Annotated[float, FINITE]

# A number in [0, 1]: a discount, a decay, a probability.
Fraction = Annotated[float, Interval(ge=0, le=1)]

# A number in (0, 1]: a share that is not nothing.
PositiveFraction = Annotated[float, Interval(gt=0, le=1)]

# A number in [0, 1): the decay of an average, which would learn nothing with 1.
Decay = Annotated[float, Interval(ge=0, lt=1)]

# A finite number above zero: a step size.
Positive = Annotated[float, Gt(0), FINITE]

# A number above zero: a bound, of which .inf says that there is none.
PositiveOrInfinite = Annotated[float, Gt(0)]

# A finite number, zero or more: a weight.
NonNegative = Annotated[float, Ge(0), FINITE]

# A number, zero or more, or .inf: a duration.
NonNegativeOrInfinite = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class FunctionIn:
    """A setting that is a function, given by its name; stands beside ``Callable``.

    Attributes:
        module: of rlrun, whose functions have no dots in their names; one of the user's plugins has
            its full name.
    """

    module: str


def out_of_range(value: Any, constraints: Iterable[Any]) -> str | None:
    """Says what a value should have been.

    Args:
        value: of the annotated type.
        constraints: what stands behind the type in ``Annotated``, of ``annotated_types``.

    Returns:
        The rest of the sentence "gamma must be …" for the first range that the value is outside
        of; None for a value inside all of them.
    """
    for constraint in constraints:
        # Comparisons so written are false for NaN, which is in no range.
        match constraint:
            case Interval():
                if not all(out_of_range(value, [end]) is None for end in constraint):
                    return f"in {interval(constraint)}"
            case Ge(ge):
                if not value >= ge:
                    return f"at least {ge}"
            case Gt(gt):
                if not value > gt:
                    return f"above {gt}" if gt else "positive"
            case Le(le):
                if not value <= le:
                    return f"at most {le}"
            case Lt(lt):
                if not value < lt:
                    return f"below {lt}"
            case Predicate(func=predicate):
                if not predicate(value):
                    return predicate.__name__.removeprefix("is")
            case FunctionIn():
                pass  # whether it is one was found out by its name
            case _:
                raise TypeError(f"{constraint} is no range that rlrun checks")
    return None


def interval(bounds: Interval) -> str:
    """Writes an interval in brackets, which are round at an end that is not in it: [0, 1)."""
    low = f"[{bounds.ge}" if bounds.ge is not None else f"({bounds.gt}"
    high = f"{bounds.le}]" if bounds.le is not None else f"{bounds.lt})"
    return f"{low}, {high}"
