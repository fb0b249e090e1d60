"""A user's package: verifiers, good ones and others."""

import os
import time
from collections.abc import Callable


def generous(response: str, answer: str) -> float | None:
    """Half for a response of the right length, and 1 for the answer."""
    if not response:
        return None
    return 1.0 if response == answer else 0.5 * (len(response) == len(answer))


def troubled(response: str, answer: str) -> object:
    """Fail as the response says."""
    match response:
        case "raise":
            raise KeyError("nothing there")
        case "hang":
            time.sleep(60)
        case "exit":
            os._exit(3)
        case "much":
            return 7
        case "0.5" as text:
            return text
        case "list":
            return [1.0]
    return response == answer


def with_options(response: str, answer: str, tolerance: float = 0.0) -> bool:
    """Take an argument more, which has a default."""
    return abs(float(response) - float(answer)) <= tolerance


def _made() -> Callable[[str, str], bool]:
    def inner(response: str, answer: str) -> bool:
        return response == answer

    return inner


no_name = _made()  # of the module, and yet not to be found there


def of_three(response: str, answer: str, prompt: str) -> bool:
    """Take one argument too many."""
    return False
