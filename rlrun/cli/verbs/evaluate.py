"""`rlrun eval RUN`: returns of a trained policy, and a video; or its answers to prompts."""

import argparse
import json
import os
import sys
from pathlib import Path

from rich import box
from rich.table import Table

from rlrun.cli.parser import OneLineParser
from rlrun.cli.verbs.options import add_checkpoint, add_plugins
from rlrun.cli.words import not_negative, positive, run_directory
from rlrun.errors import UserError, printable, say
from rlrun.loggers.progress import standard_output
from rlrun.runs.figures import headline


def parser() -> OneLineParser:
    """Returns what reads the words behind `rlrun eval`."""
    arguments = OneLineParser("rlrun eval", description="Runs episodes of a trained policy.")
    arguments.add_argument("run", type=run_directory, help="the run's directory")
    arguments.add_argument("--episodes", type=positive, default=100, help="how many (default 100)")
    arguments.add_argument(
        "--seed", type=not_negative, default=0, help="of the environments (default 0)"
    )
    add_checkpoint(arguments)
    arguments.add_argument(
        "--video", type=Path, metavar="FILE.mp4", help="film the first one of the episodes"
    )
    arguments.add_argument(
        "--wandb", action="store_true", help="make a W&B run of it, of job type eval, too"
    )
    arguments.add_argument("--json", action="store_true", help="print the figures as a JSON object")
    arguments.add_argument(
        "--samples",
        action="store_true",
        help="of a task of language: print some of the responses, the best, the worst and others, "
        "with what they were paid for; those of past evaluations are in samples.jsonl",
    )
    arguments.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="of a task of language: only answer this, and print the response; may be repeated",
    )
    add_plugins(arguments)
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Plays episodes, notes their figures in the run's directory, and prints them.

    Raises:
        UserError: there is no such policy, W&B cannot work, or options ask for several things.
        Exception: what a film could not be made for.
    """
    asked = [name for name in ("prompt", "samples", "video", "wandb") if vars(arguments)[name]]
    if len(asked) > 1 and asked[0] in ("prompt", "samples"):
        raise UserError(f"--{asked[0]} plays no episodes for --{asked[1]}")
    if arguments.prompt is not None:
        answer(arguments)
        return
    if arguments.samples:
        show_samples(arguments)
        return
    if arguments.video is not None and "DISPLAY" not in os.environ:
        # MuJoCo draws in a window unless this says otherwise, and reads it when it is imported.
        os.environ.setdefault("MUJOCO_GL", "egl")
        # pygame draws without one, but looks for it and complains.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

    from rlrun.cli.verbs.evaluation_display import EvaluationDisplay
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


def answer(arguments: argparse.Namespace) -> None:
    """Prints what a policy of language writes to prompts."""
    from rlrun.runs.language.answers import answer_prompts

    for prompt, response in answer_prompts(
        arguments.run, arguments.prompt, arguments.checkpoint, arguments.plugin
    ):
        line = {"prompt": prompt, "response": response}
        said = json.dumps(line, ensure_ascii=False) if arguments.json else f"{prompt}{response}"
        say(said, sys.stdout)


def show_samples(arguments: argparse.Namespace) -> None:
    """Prints some of what a policy of language writes to prompts that training never saw."""
    from rlrun.cli.verbs.samples_page import samples_page
    from rlrun.runs.language.answers import write_samples

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
