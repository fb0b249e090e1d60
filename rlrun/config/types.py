"""Range checks for the fields of config objects; a failure names the field and its value."""

import math


def finite(**values: float) -> None:
    """Raise a ValueError that names the first value that is infinite or NaN."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")


def at_least(minimum: float, **values: float) -> None:
    """Raise a ValueError that names the first value below the minimum, or not finite."""
    for name, value in values.items():
        if not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")
    finite(**values)


def positive(**values: float) -> None:
    """Raise a ValueError that names the first value that is not above zero, or not finite."""
    positive_or_infinite(**values)
    finite(**values)


def positive_or_infinite(**values: float) -> None:
    """Raise a ValueError that names the first value that is not above zero: for bounds."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def between(low: float, high: float, **values: float) -> None:
    """Raise a ValueError that names the first value outside [low, high]."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must be in [{low}, {high}], got {value}")
