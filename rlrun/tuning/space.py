"""What `rlrun tune` searches: ranges in Hydra's sweep syntax, as Optuna's distributions.

``algo.gamma=interval(0.9, 1)`` is any number, ``tag(log, interval(1e-5, 1e-2))`` one drawn evenly
on a log scale, ``int(interval(3, 20))`` and ``range(16, 256, 16)`` are whole numbers,
``choice(a, b)`` or ``a,b`` one of these.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from rlrun.config import schema
from rlrun.config.files import read_yaml
from rlrun.errors import UserError, did_you_mean
from rlrun.sweeps.plan import key_of

# Significant digits of a value.
DIGITS = 6

# Values by the names of settings, as words of a command line have them.
Values = Mapping[str, str | float | int]


def read_space(path: Path) -> dict[str, str]:
    """Read a search space: the range of each setting by its name.

    Raises:
        UserError: it is no mapping of settings to ranges, or one of them is none.
    """
    try:
        space = schema.convert(read_yaml(path), dict[str, str], "the file")
        distributions(space)
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{path} is no search space: {error}") from error
    return space


def split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Separate a command line's ranges from the settings that all runs have.

    Args:
        words: overrides ("algo.gamma=interval(0.9,1)", "env=hopper").

    Returns:
        The ranges by setting, and the other words.

    Raises:
        UserError: a word is no override.
    """
    ranges, others = {}, []
    for word in words:
        override = parse(word)
        if override.is_sweep_override():
            ranges[override.get_key_element()] = word.partition("=")[2]
        else:
            others.append(word)
    return ranges, others


def merge(
    known: Mapping[str, str], ranges: Mapping[str, str], fixed: Sequence[str]
) -> dict[str, str]:
    """Return an algorithm's search space as the command line changes it.

    Args:
        known: the algorithm's own (``conf/tune/``).
        ranges: of the command line; they come instead of, or besides, the known ones.
        fixed: its other words; a setting that has a value is not searched.
    """
    values = set(map(key_of, [*fixed, *ranges]))
    others = {key: text for key, text in known.items() if key_of(key) not in values}
    return {**others, **ranges}


def distributions(space: Mapping[str, str]) -> dict[str, BaseDistribution]:
    """Return what a space's values are drawn from.

    Raises:
        UserError: a range is none, or empty.
    """
    return {key: distribution(key, text) for key, text in space.items()}


def distribution(key: str, text: str) -> BaseDistribution:
    """Return what a setting's values are drawn from.

    Args:
        key: the setting.
        text: its range.

    Raises:
        UserError: it is no range, or an empty one.
    """
    override = parse(f"{key}={text}")
    sweep = override.value()
    tags = sweep.tags if isinstance(sweep, Sweep) else set()
    if tags - ({"log"} if isinstance(sweep, IntervalSweep) else set()):
        raise UserError(f"{key}={text}: there is one tag, log, and it is for interval(a,b)")
    if isinstance(sweep, ChoiceSweep | RangeSweep) and sweep.shuffle:
        raise UserError(f"{key}={text}: a range has one order, without shuffle")
    try:
        match sweep:
            case IntervalSweep(start=float() | int() as start, end=float() | int() as end):
                if not math.isfinite(end - start):
                    raise UserError(f"{key}={text}: the ends of a range are finite")
                log = "log" in tags
                if isinstance(start, int) and isinstance(end, int):
                    return IntDistribution(start, end, log=log)
                return FloatDistribution(float(start), float(end), log=log)
            case RangeSweep(start=int() as start, stop=int() as stop, step=int() as step):
                return IntDistribution(start, range(start, stop, step)[-1], step=step)
            case ChoiceSweep() | RangeSweep():
                return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise UserError(f"{key}={text}: {error}") from error
    raise UserError(f"{key}={text}: no range to search: interval(a,b), range(a,b) or choice(a,b)")


def parse(word: str) -> Override:
    """Read a word of a command line.

    Raises:
        UserError: it is no override.
    """
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise UserError(f"{word}: {str(error).partition(chr(10))[0]}") from error


def nearest_point(
    space: Mapping[str, BaseDistribution], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the point of a space that is nearest to settings, as far as the two meet.

    Args:
        space: distributions by setting.
        settings: values by setting.
    """
    point: dict[str, Any] = {}
    for key, kind in space.items():
        value = settings.get(key.lstrip("+"))
        match kind:
            case CategoricalDistribution(choices=choices):
                same = [choice for choice in choices if parse(f"{key}={choice}").value() == value]
                point.update([(key, choice) for choice in same[:1]])
            case IntDistribution() if isinstance(value, int | float):
                steps = round((min(max(value, kind.low), kind.high) - kind.low) / kind.step)
                point[key] = kind.low + steps * kind.step
            case FloatDistribution() if isinstance(value, int | float):
                point[key] = min(max(float(value), kind.low), kind.high)
    return point


def with_zeros(
    space: Mapping[str, BaseDistribution], values: Values, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return values with 0 where the end of a logarithmic range stands for a setting of 0.

    Args:
        space: distributions by setting.
        values: of the space, by setting.
        settings: the usual values.
    """
    found = dict(values)
    for key, kind in space.items():
        if settings.get(key.lstrip("+")) != 0:
            continue
        if isinstance(kind, FloatDistribution) and kind.log and found.get(key) == kind.low:
            found[key] = 0.0
    return found


def rounded(values: Values) -> dict[str, str | float | int]:
    """Return values as they are tried and written down: more digits than these say nothing."""
    return {
        key: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for key, value in values.items()
    }


def as_words(values: Values) -> list[str]:
    """Return values as words of a command line."""
    return [f"{key}={value}" for key, value in values.items()]


def require_known(space: Mapping[str, str], settings: Sequence[str]) -> None:
    """Refuse a space with a setting that the run does not have.

    Args:
        space: ranges by setting.
        settings: all of a run's, and its groups.

    Raises:
        UserError: names the setting, and the nearest that there is.
    """
    for key in space:
        if key.lstrip("+") not in settings and not key.startswith("+"):
            raise UserError(f"{key}: no such setting to search{did_you_mean(key, settings)}")
