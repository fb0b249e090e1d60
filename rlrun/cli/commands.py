"""The commands beside training: `rlrun tune`, `eval`, `export`, `resume`, `list` and `compare`."""

import argparse
from typing import Protocol

from rlrun.cli.parser import OneLineParser


class Command(Protocol):
    """What the module of a command has."""

    def parser(self) -> OneLineParser:
        """Returns what reads the words behind it."""
        ...

    def run(self, arguments: argparse.Namespace) -> None:
        """Does it."""
        ...


def command(verb: str) -> Command:
    """Returns the module of a command; the others are not imported.

    Args:
        verb: tune, eval, export, resume, list or compare.
    """
    match verb:
        case "tune":
            from rlrun.cli.verbs import tune

            return tune
        case "eval":
            from rlrun.cli.verbs import evaluate

            return evaluate
        case "export":
            from rlrun.cli.verbs import export

            return export
        case "resume":
            from rlrun.cli.verbs import resume

            return resume
        case "list":
            from rlrun.cli.verbs import listing

            return listing
        case "compare":
            from rlrun.cli.verbs import compare

            return compare
    raise ValueError(verb)


def run(verb: str, words: list[str]) -> None:
    """Runs a command.

    Args:
        verb: which.
        words: the rest of the command line.

    Raises:
        UserError: a mistake in the words, or a run that is not there.
    """
    chosen = command(verb)
    chosen.run(chosen.parser().parse_intermixed_args(words))
