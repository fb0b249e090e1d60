"""The verbs beside training: `rlrun eval`, `resume`, `list` and `compare`."""

import argparse
import os

from rich import box
from rich.table import Table

from rlrun.cli.arguments import PARSERS
from rlrun.errors import UserError, printable
from rlrun.loggers.progress import standard_output
from rlrun.runs.figures import headline
from rlrun.runs.files.directory import is_sweep


def run(verb: str, words: list[str]) -> None:
    """Runs one verb.

    Args:
        verb: eval, resume, list or compare.
        words: the rest of the command line.

    Raises:
        UserError: a mistake in the words, or a run that is not there.
    """
    arguments = PARSERS[verb]().parse_args(words)
    {"eval": evaluate, "resume": resume, "list": list_runs, "compare": compare}[verb](arguments)


def evaluate(arguments: argparse.Namespace) -> None:
    """`rlrun eval RUN`: returns of a trained policy, and a video."""
    if arguments.video is not None and "DISPLAY" not in os.environ:
        # MuJoCo draws in a window unless this says otherwise, and reads it when it is imported.
        os.environ.setdefault("MUJOCO_GL", "egl")

    from rlrun.runs.api import evaluate_run, film_run
    from rlrun.runs.reports.film import check_video

    if arguments.video is not None:
        check_video(arguments.video)
    result = evaluate_run(
        arguments.run,
        episodes=arguments.episodes,
        seed=arguments.seed,
        checkpoint=arguments.checkpoint,
        plugins=arguments.plugin,
    )
    spread = result.pop("return_std")
    result["return"] = headline(result["return"], spread, result["episodes"])
    table = Table("", "", show_header=False, box=box.SIMPLE)
    for name, value in result.items():
        table.add_row(name, f"{value:.2f}" if isinstance(value, float) else printable(str(value)))
    standard_output().print(table)
    if arguments.video is not None:  # last, since the returns are true without pictures, too
        film_run(
            arguments.run,
            seed=arguments.seed,
            checkpoint=arguments.checkpoint,
            video=arguments.video,
            plugins=arguments.plugin,
        )


def resume(arguments: argparse.Namespace) -> None:
    """`rlrun resume RUN`: continues a run, or the runs of a sweep, from the newest checkpoint."""
    if is_sweep(arguments.run):
        if arguments.total_steps is not None:
            raise UserError("total_steps=… is for a run, not for a sweep")
        from rlrun.sweeps.run import resume_sweep

        resume_sweep(arguments.run, arguments.plugin)
        return

    from rlrun.runs.api import resume as resume_run

    resume_run(arguments.run, total_steps=arguments.total_steps, plugins=arguments.plugin)


def compare(arguments: argparse.Namespace) -> None:
    """`rlrun compare RUN …`: methods beside each other."""
    from rlrun.cli.compare import compare_runs

    compare_runs(arguments)


def list_runs(arguments: argparse.Namespace) -> None:
    """`rlrun list [ROOT]`: a table of the runs under a directory."""
    from rlrun.cli.listing import list_runs as print_list

    print_list(arguments)
