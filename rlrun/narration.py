"""What a command says while it works, which it goes on doing when nobody is left to read it."""

import os
from typing import TextIO


def say(text: str, stream: TextIO) -> None:
    """Prints lines, unless the pipe or terminal that they would go to was closed.

    Args:
        text: the lines.
        stream: ``sys.stdout`` or ``sys.stderr``.
    """
    try:
        print(text, file=stream, flush=True)
    except OSError:
        silence(stream)


def silence(stream: TextIO) -> None:
    """Sends nowhere what a stream still holds and gets, since its reader is gone.

    Otherwise Python would complain when it empties the stream at the end of the process.

    Args:
        stream: ``sys.stdout`` or ``sys.stderr``.
    """
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
