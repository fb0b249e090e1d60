"""`rlrun export`: a policy as what runs without rlrun, or its episodes as a dataset."""

import argparse
import re
import sys
from pathlib import Path

from rlrun.cli.parser import OneLineParser
from rlrun.cli.verbs.options import add_checkpoint, add_plugins
from rlrun.cli.words import not_negative, positive, run_directory
from rlrun.errors import UserError, did_you_mean, say

# What a policy can be written as.
EXPORTS = ("onnx", "torch", "safetensors", "huggingface", "minari")

# How an id of Minari's ends, where a directory's name does not.
DATASET_ID = re.compile(r"[\w./:-]+-v\d+")

EPISODES, SEED = 100, 0


def parser() -> OneLineParser:
    """Returns what reads the words behind `rlrun export`."""
    arguments = OneLineParser(
        "rlrun export",
        description="Writes a trained policy as a file that runs without rlrun, from an "
        "environment's observations to its actions; a model of language as a directory of "
        "transformers; or episodes as a Minari dataset.",
    )
    arguments.add_argument("run", type=run_directory, help="the run's directory")
    arguments.add_argument(
        "--to",
        type=export_format,
        choices=EXPORTS,
        required=True,
        help="onnx; torch: a program of torch.export (.pt2); safetensors: weights, and a JSON file "
        "that describes them; huggingface: a directory that transformers loads; minari: a dataset "
        "of episodes",
    )
    add_checkpoint(arguments)
    arguments.add_argument(
        "--output",
        metavar="FILE|ID",
        help="the file (default: policy.onnx and so on, in the run's directory); the directory of "
        "a model (default: model, in the run's directory); the dataset's id, "
        "hopper/ppo-v0, or the directory for such datasets (default: Minari's own)",
    )
    arguments.add_argument("--force", action="store_true", help="replace what is there")
    arguments.add_argument(
        "--episodes", type=positive, help="of a dataset (default 100)", metavar="EPISODES"
    )
    arguments.add_argument(
        "--seed", type=not_negative, help="of a dataset's first episode (default 0)"
    )
    add_plugins(arguments)
    return arguments


def export_format(word: str) -> str:
    """Reads what a policy is exported to.

    Raises:
        argparse.ArgumentTypeError: there is no such format.
    """
    if word not in EXPORTS:
        raise argparse.ArgumentTypeError(f"no format '{word}'{did_you_mean(word, EXPORTS)}")
    return word


def run(arguments: argparse.Namespace) -> None:
    """Writes what was asked for.

    Raises:
        UserError: the policy cannot be exported, or an option is another format's.
    """
    if arguments.to == "minari":
        export_dataset(arguments)
        return
    for option in ("episodes", "seed"):
        if vars(arguments)[option] is not None:
            raise UserError(f"--{option} is of --to minari, not of --to {arguments.to}")

    if arguments.to == "huggingface":
        from rlrun.runs.export.huggingface import export_model

        written = export_model(
            arguments.run,
            output=None if arguments.output is None else Path(arguments.output),
            force=arguments.force,
            checkpoint=arguments.checkpoint,
            plugins=arguments.plugin,
        )
        say(str(written), sys.stdout)
        return

    from rlrun.runs.export.formats import export_policy

    files = export_policy(
        arguments.run,
        arguments.to,
        output=None if arguments.output is None else Path(arguments.output),
        force=arguments.force,
        checkpoint=arguments.checkpoint,
        plugins=arguments.plugin,
    )
    for file in files:
        say(str(file), sys.stdout)


def export_dataset(arguments: argparse.Namespace) -> None:
    """`rlrun export RUN --to minari`: episodes of the greedy policy as a dataset."""
    from rlrun.cli.verbs.evaluation_display import EvaluationDisplay
    from rlrun.runs.export.minari import ROOT, export_episodes

    named = arguments.output is not None and DATASET_ID.fullmatch(arguments.output)
    episodes = EPISODES if arguments.episodes is None else arguments.episodes
    with EvaluationDisplay(episodes) as display:
        dataset = export_episodes(
            arguments.run,
            episodes=episodes,
            seed=SEED if arguments.seed is None else arguments.seed,
            dataset_id=arguments.output if named else None,
            root=None if named or arguments.output is None else Path(arguments.output),
            force=arguments.force,
            checkpoint=arguments.checkpoint,
            plugins=arguments.plugin,
            watch=display.played,
        )
    where = dataset.path.parents[len(Path(dataset.id).parts) - 1]
    there = "" if named or arguments.output is None else f" with {ROOT}={where}"
    say(f"{dataset.path}: minari.load_dataset({dataset.id!r}){there}", sys.stdout)
