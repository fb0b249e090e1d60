"""`rlrun resume RUN`: continues a run, or the runs of a sweep, from the newest checkpoint."""

import argparse

from rlrun.cli.parser import OneLineParser
from rlrun.cli.verbs.options import add_plugins
from rlrun.cli.words import positive, run_or_sweep
from rlrun.errors import UserError
from rlrun.runs.files.directory import is_sweep


def parser() -> OneLineParser:
    """Returns what reads the words behind `rlrun resume`."""
    arguments = OneLineParser(
        "rlrun resume", description="Continues a run or sweep where it stopped."
    )
    arguments.add_argument("run", type=run_or_sweep, help="directory of the run or sweep")
    arguments.add_argument(
        "total_steps",
        nargs="?",
        type=total_steps,
        metavar="total_steps=N",
        help="train to this many environment steps (default: the run's own total); a larger total "
        "stretches the learning-rate schedule, which is a function of step/total, so that the "
        "rate goes up again",
    )
    add_plugins(arguments)
    return arguments


def total_steps(word: str) -> int:
    """Reads the setting ``total_steps=N``.

    Raises:
        UserError: it is another setting, or N is not a positive whole number.
    """
    key, _, value = word.partition("=")
    if key != "total_steps":
        raise UserError(f"'{word}': only total_steps=N can be given")
    return positive(value)


def run(arguments: argparse.Namespace) -> None:
    """Continues it.

    Raises:
        UserError: there is nothing to continue.
        Interrupted, JobFailed: see :func:`rlrun.runs.api.resume` and the sweeps'.
    """
    if is_sweep(arguments.run):
        if arguments.total_steps is not None:
            raise UserError("total_steps=… is for a run, not for a sweep")
        from rlrun.sweeps.run import resume_sweep

        resume_sweep(arguments.run, arguments.plugin)
        return

    from rlrun.runs.api import resume

    resume(arguments.run, total_steps=arguments.total_steps, plugins=arguments.plugin)
