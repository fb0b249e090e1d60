"""`rlrun export`: a policy as what runs without rlrun, or its episodes as a dataset."""

import argparse
import re
import sys
from pathlib import Path

from rlrun.errors import UserError, say

# How an id of Minari's ends, where a directory's name does not.
DATASET_ID = re.compile(r"[\w./:-]+-v\d+")

EPISODES, SEED = 100, 0


def export(arguments: argparse.Namespace) -> None:
    """`rlrun export RUN --to FORMAT`.

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
    from rlrun.cli.evaluation_display import EvaluationDisplay
    from rlrun.runs.export.minari import export_episodes

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
    say(f"{dataset.path}: minari.load_dataset({dataset.id!r})", sys.stdout)
