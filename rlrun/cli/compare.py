"""`rlrun compare`: methods beside each other, from the files of their runs."""

import argparse
import shlex
import sys
from collections.abc import Callable

from rlrun.analysis.aggregates import read_scales
from rlrun.analysis.results import (
    Result,
    as_csv,
    as_json,
    as_latex,
    as_markdown,
    examine,
    show,
    write_files,
)
from rlrun.analysis.sources import read_runs
from rlrun.errors import UserError, say, warn
from rlrun.loggers.progress import standard_output

# What stands on stdout in place of a table for the terminal.
FORMATS: dict[str, Callable[[Result], str]] = {
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
    "json": as_json,
}


def compare_runs(arguments: argparse.Namespace) -> None:
    """`rlrun compare RUN …`: a table, and files if asked for.

    Raises:
        UserError: a mistake in the words, or runs that cannot be compared.
    """
    if arguments.smooth > 1 and arguments.output is None:
        raise UserError("--smooth is of pictures: say with --output where they go")
    if arguments.to is not None and arguments.output is None:
        raise UserError("--to wandb sends the report: say with --output where it is written, too")
    result = examine(
        read_runs(arguments.runs),
        command=shlex.join(["rlrun", *sys.argv[1:]]),
        by=arguments.by,
        steps=arguments.steps,
        thresholds=arguments.threshold,
        scales=None if arguments.normalize is None else read_scales(arguments.normalize),
    )
    if arguments.format is None:
        show(result, standard_output())
    else:
        print(FORMATS[arguments.format](result), end="")
        if arguments.format in ("csv", "latex"):  # which have no room for them
            for line in result.cautions:
                warn(line)
    if arguments.output is not None:
        try:
            page = write_files(result, arguments.output, smooth=arguments.smooth)
        except OSError as error:
            reason = f"--output {arguments.output} cannot be written to: {error}"
            raise UserError(reason) from error
        say(f"wrote {arguments.output / 'report.html'} and what it is made of", sys.stderr)
        if arguments.to is not None:
            from rlrun.analysis.reports.wandb_page import publish

            entity, project = arguments.to
            publish(result, page, entity=entity, project=project, directory=arguments.output)
