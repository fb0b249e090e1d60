"""A user's package: a verifier that hangs for some responses."""

import time


def moody(response: str, answer: str) -> bool:
    """Hang for one response in a few."""
    if response.startswith("1"):
        time.sleep(60)
    return response == answer
