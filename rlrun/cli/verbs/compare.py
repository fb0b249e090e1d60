"""`rlrun compare RUN …`: methods beside each other, from the files of their runs."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

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
from rlrun.cli.parser import OneLineParser
from rlrun.cli.words import names, positive, thresholds, wandb_project
from rlrun.errors import UserError, say, warn
from rlrun.loggers.progress import standard_output

# Where a report is that is sent without `--output`.
SENT = Path("outputs", "compare")

# What `rlrun compare` prints in place of a table for the terminal, and what writes it.
FORMATS: dict[str, tuple[str, Callable[[Result], str]]] = {
    "markdown": ("print Markdown", as_markdown),
    "latex": ("print LaTeX (booktabs)", as_latex),
    "csv": ("print the figures as CSV", as_csv),
    "json": (
        "print the figures and the runs whole, an archive that can be compared again",
        as_json,
    ),
}


def parser() -> OneLineParser:
    """Returns what reads the words behind `rlrun compare`."""
    arguments = OneLineParser(
        "rlrun compare",
        description="Compares methods over seeds and tasks, from the files of their runs.",
    )
    arguments.add_argument(
        "runs",
        nargs="+",
        metavar="RUN|SWEEP|GLOB|ARCHIVE.json|wandb:ENTITY/PROJECT?group=…",
        help="directories of runs or of many runs, patterns, archives that --json wrote, runs at "
        "W&B",
    )
    arguments.add_argument(
        "--by",
        type=names,
        default=[],
        metavar="NAME,…",
        help="choices and settings that make a method (algo,advantage,algo.gamma), also commit and "
        "host; default: what differs on a task is found",
    )
    arguments.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="compare at so many environment steps; longer runs count as if stopped there",
    )
    arguments.add_argument(
        "--threshold",
        type=thresholds,
        metavar="RETURN|ENV=RETURN,…",
        help="the return to reach (default: Gymnasium's reward_threshold of the environment)",
    )
    arguments.add_argument(
        "--normalize",
        type=Path,
        metavar="FILE.yaml",
        help="has a block `scores` with min and max by environment (default: a random policy's "
        "return and the best published one)",
    )
    formats = arguments.add_mutually_exclusive_group()
    for name, (meaning, _) in FORMATS.items():
        formats.add_argument(
            f"--{name}", dest="format", action="store_const", const=name, help=meaning
        )
    arguments.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write report.html, tables, pictures (PNG, SVG) and the archive there, too",
    )
    arguments.add_argument(
        "--to",
        type=wandb_project,
        metavar="wandb[:[ENTITY/]PROJECT]",
        help="log the table and the report at W&B, as a run of job type compare, by default in the "
        f"project of the runs; --output is {SENT} then if nothing else is said",
    )
    arguments.add_argument(
        "--smooth",
        type=positive,
        default=1,
        metavar="N",
        help="evaluations that a point of a curve is the mean of (default 1: as they are)",
    )
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Prints a table, and writes files if asked for.

    Raises:
        UserError: a mistake in the words, or runs that cannot be compared.
    """
    output = arguments.output or (None if arguments.to is None else SENT)
    if arguments.smooth > 1 and output is None:
        raise UserError("--smooth is of pictures: say with --output where they go")
    result = examine(
        read_runs(arguments.runs),
        command=shlex.join(["rlrun", *sys.argv[1:]]),
        by=arguments.by,
        steps=arguments.steps,
        thresholds=arguments.threshold,
        scales=None if arguments.normalize is None else read_scales(arguments.normalize),
    )
    if arguments.to is not None:
        from rlrun.analysis.reports.wandb_page import project_of, publish

        entity, project = arguments.to
        if project is None:
            entity, project = project_of(result.runs)
    if arguments.format is None:
        show(result, standard_output())
    else:
        _, written = FORMATS[arguments.format]
        print(written(result), end="")
        if arguments.format in ("csv", "latex"):  # which have no room for them
            for line in result.cautions:
                warn(line)
    if output is not None:
        try:
            page = write_files(result, output, smooth=arguments.smooth)
        except OSError as error:
            raise UserError(f"--output {output} cannot be written to: {error}") from error
        say(f"wrote {output / 'report.html'} and what it is made of", sys.stderr)
        if arguments.to is not None:
            publish(result, page, entity=entity, project=project, directory=output)
