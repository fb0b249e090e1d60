"""Range checks for the fields of config objects; a failure names the field and its value."""


def at_least(minimum: float, **values: float) -> None:
    """Raise a ValueError that names the first value below the minimum."""
    for name, value in values.items():
        if not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")


def positive(**values: float) -> None:
    """Raise a ValueError that names the first value that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def between(low: float, high: float, **values: float) -> None:
    """Raise a ValueError that names the first value outside [low, high]."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must be in [{low}, {high}], got {value}")
