"""The verbs beside training: `rlrun tune`, `eval`, `export`, `resume`, `list` and `compare`."""

import argparse
import json
import os
import sys

from rich import box
from rich.table import Table

from rlrun.cli.arguments import PARSERS
from rlrun.cli.export import export
from rlrun.errors import UserError, printable, say
from rlrun.loggers.progress import standard_output
from rlrun.runs.figures import headline
from rlrun.runs.files.directory import is_sweep


def run(verb: str, words: list[str]) -> None:
    """Runs one verb.

    Args:
        verb: tune, eval, export, resume, list or compare.
        words: the rest of the command line.

    Raises:
        UserError: a mistake in the words, or a run that is not there.
    """
    arguments = PARSERS[verb]().parse_intermixed_args(words)
    verbs = {
        "tune": tune,
        "eval": evaluate,
        "export": export,
        "resume": resume,
        "list": list_runs,
        "compare": compare,
    }
    verbs[verb](arguments)


def evaluate(arguments: argparse.Namespace) -> None:
    """`rlrun eval RUN`: returns of a trained policy, and a video; or answers to prompts."""
    if arguments.prompt is not None:
        from rlrun.runs.answers import answer_prompts

        for prompt, response in answer_prompts(
            arguments.run, arguments.prompt, arguments.checkpoint, arguments.plugin
        ):
            line = {"prompt": prompt, "response": response}
            said = json.dumps(line, ensure_ascii=False) if arguments.json else f"{prompt}{response}"
            say(said, sys.stdout)
        return
    if arguments.samples:
        from rlrun.cli.samples_page import samples_page
        from rlrun.runs.answers import write_samples

        rows = write_samples(
            arguments.run,
            episodes=arguments.episodes,
            seed=arguments.seed,
            checkpoint=arguments.checkpoint,
            plugins=arguments.plugin,
        )
        if arguments.json:
            for row in rows:
                say(json.dumps(row, ensure_ascii=False), sys.stdout)
        else:
            standard_output().print(samples_page(rows))
        return
    if arguments.video is not None and "DISPLAY" not in os.environ:
        # MuJoCo draws in a window unless this says otherwise, and reads it when it is imported.
        os.environ.setdefault("MUJOCO_GL", "egl")

    from rlrun.cli.evaluation_display import EvaluationDisplay
    from rlrun.runs.api import evaluate_run
    from rlrun.runs.reports.film import Film

    film = None
    with EvaluationDisplay(arguments.episodes) as display:
        if arguments.video is not None:
            film = Film(arguments.video, display.filmed)
        result = evaluate_run(
            arguments.run,
            episodes=arguments.episodes,
            seed=arguments.seed,
            checkpoint=arguments.checkpoint,
            plugins=arguments.plugin,
            film=film,
            watch=display.played,
            wandb=arguments.wandb,
        )
    if arguments.json:
        say(json.dumps(result), sys.stdout)
    else:
        spread = result.pop("return_std")
        result["return"] = headline(result["return"], spread, result["episodes"])
        table = Table("", "", show_header=False, box=box.SIMPLE)
        for name, value in result.items():
            shown = f"{value:.2f}" if isinstance(value, float) else printable(str(value))
            table.add_row(name, shown)
        standard_output().print(table)
    if film is not None:  # last, since the returns are true without pictures, too
        if film.error is not None:
            raise film.error
        say(f"{film.path} shows the first episode, {film.frames:,} frames", sys.stderr)


def tune(arguments: argparse.Namespace) -> None:
    """`rlrun tune WORDS`: searches good values, and tries them out."""
    from rlrun.cli.tune import tune as search

    search(arguments)


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
