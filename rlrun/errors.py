"""The ways in which a run ends other than by reaching its last step."""

import difflib
import os
import sys
import textwrap
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

# Exit codes of a command that failed and says why, and of one that would fail again.
FAILED, MISTAKEN = 1, 2

# More choices than this are no help to a reader, and some lists are endless.
MOST_LISTED = 40

# Characters to which a message of several lines, such as a compiler's, is cut.
LONGEST_LINE = 400

# Characters to which any message is cut: it may quote a value of a megabyte.
LONGEST_MESSAGE = 2_000


class UserError(Exception):
    """A mistake in what the user asked for; its message is one line that names the remedy.

    The command line prints it on stderr and exits with `MISTAKEN`, without a traceback.
    """


class RunInUse(UserError):
    """A process runs in the run's directory."""


class RunFinished(UserError):
    """The run has nothing left to do."""


class EnvironmentFailure(RuntimeError):
    """An environment raised while it was reset or stepped, or returned what cannot be used.

    Attributes:
        index: which of the batch's environments it was.
        seed: the seed that this environment was last seeded with, or None.
    """

    def __init__(self, index: int, seed: int | None, cause: BaseException):
        """Name the environment and keep what it raised as ``__cause__``."""
        super().__init__(
            f"environment {index} (seed {seed}) raised {type(cause).__name__}: {cause}"
        )
        self.index = index
        self.seed = seed
        self.__cause__ = cause


class InvalidOutput(EnvironmentFailure):
    """An environment returned what its spaces, or Gymnasium's interface, do not allow."""

    def __init__(self, index: int, seed: int | None, problem: str):
        """Name the environment and say what is wrong with what it returned."""
        RuntimeError.__init__(self, f"environment {index} (seed {seed}): {problem}")
        self.index = index
        self.seed = seed


class WorkerFailure(EnvironmentFailure):
    """An environment failed in a worker process, or the process ended or hung in it.

    Attributes:
        details: the lines of the traceback there, if there is one.
    """

    def __init__(self, index: int, seed: int | None, message: str, details: str = ""):
        """Keep what names the environment and says what happened."""
        RuntimeError.__init__(self, message)
        self.index = index
        self.seed = seed
        self.details = details


class NonFiniteError(RuntimeError):
    """A quantity that the run depends on became NaN or infinite."""


class CheckpointNotWritten(RuntimeError):
    """The disk took no checkpoint (it is full, say); the earlier ones are as they were."""


class DirectoryLost(RuntimeError):
    """The run's directory was deleted, moved or replaced while the run was in it."""


class Interrupted(Exception):
    """A signal asked the run to stop; it has written its checkpoint and said so.

    Attributes:
        signal: the signal's number; the command exits with 128 + signal.
    """

    def __init__(self, signal: int):
        """Keep the signal's number."""
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


class JobFailed(Exception):
    """A job of a sweep failed and was reported; the sweep goes on with the next one."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Finds the choice that a misspelt or abbreviated word stands for.

    Args:
        word: what the user wrote.
        choices: what could have been meant.

    Returns:
        The choice with the most similar spelling; else the first of which the word is an
        abbreviation, its letters in order ("lr" for "learning_rate"); else None.
    """
    word = word.lower()
    by_spelling = {choice.lower(): choice for choice in sorted(choices)}
    for match in difflib.get_close_matches(word, by_spelling, n=1):
        return by_spelling[match]
    for spelling, choice in by_spelling.items():
        letters = iter(spelling)
        if spelling[:1] == word[:1] and all(letter in letters for letter in word):
            return choice
    return None


def did_you_mean(word: str, choices: Iterable[str], path: str = "") -> str:
    """Ends a message about a word that is none of the choices: the nearest one, else a few all.

    Args:
        word: what the user wrote.
        choices: what could have been meant.
        path: of the setting that the choices are settings of; the nearest is written as it is
            typed ("algo.clip").
    """
    choices = sorted(choices)
    match = nearest(word, choices)
    if match is not None:
        return f"; did you mean '{path}{path and '.'}{match}'?"
    return f"; there is {', '.join(choices)}" if 0 < len(choices) <= MOST_LISTED else ""


def near_path(path: Path) -> str:
    """Ends a message about what is no directory: the one beside it with a similar name."""
    entries = path.parent.iterdir() if path.parent.is_dir() else []
    name = nearest(path.name, [entry.name for entry in entries if entry.is_dir()])
    return f"; did you mean '{path.parent / name}'?" if name else ""


def near_file(path: Path) -> str:
    """Ends a message about what is no file: the one beside it with a similar name.

    Ends of names (".jsonl") are not looked at, which make all of them similar.
    """
    entries = path.parent.iterdir() if path.parent.is_dir() else []
    names = {entry.stem: entry.name for entry in entries if entry.is_file()}
    stem = nearest(path.stem, names)
    return f"; did you mean '{path.parent / names[stem]}'?" if stem else ""


def warn(message: str) -> None:
    """Says on stderr what went wrong beside the run, which goes on."""
    say(f"warning: {message}", sys.stderr)


def report(error: Exception, prefix: str = "rlrun", with_traceback: bool = False) -> None:
    """Says on stderr in one line how a command or a job failed.

    An error that nobody foresaw comes with its traceback, and an environment's failure with that
    of the environment.

    Args:
        error: what was raised.
        prefix: the beginning of the line.
        with_traceback: show the traceback of an error that was foreseen, too.
    """
    foreseen = (
        UserError,
        EnvironmentFailure,
        NonFiniteError,
        CheckpointNotWritten,
        DirectoryLost,
        JobFailed,
    )
    lines = []
    if with_traceback or not isinstance(error, foreseen):
        lines = traceback.format_exception(error)
    elif isinstance(error, WorkerFailure):
        lines = [error.details]
    elif isinstance(error, EnvironmentFailure) and error.__cause__ is not None:
        lines = traceback.format_exception(error.__cause__)
    message = str(error) or type(error).__name__
    if "\n" in message:
        message = textwrap.shorten(message, LONGEST_LINE, placeholder=" …")
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]} …"
    say("".join([*lines, f"{prefix}: {message}"]), sys.stderr)


def say(text: str, stream: TextIO) -> None:
    """Prints lines, unless the pipe or terminal that they would go to was closed.

    Args:
        text: the lines. What a terminal would obey in them is shown instead.
        stream: ``sys.stdout`` or ``sys.stderr``.
    """
    try:
        print(printable(text, also="\n\t"), file=stream, flush=True)
    except OSError:
        silence(stream)


def printable(text: str, also: str = "") -> str:
    """Writes control characters by their codes, as Python does: a terminal would obey them.

    The names and texts in somebody else's run directory may have them.

    Args:
        text: anything.
        also: characters to leave as they are.
    """
    return "".join(
        c if c.isprintable() or c in also else c.encode("unicode_escape").decode() for c in text
    )


def silence(stream: TextIO) -> None:
    """Sends nowhere what a stream still holds and gets, since its reader is gone.

    Otherwise Python would complain when it empties the stream at the end of the process.

    Args:
        stream: ``sys.stdout`` or ``sys.stderr``.
    """
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
