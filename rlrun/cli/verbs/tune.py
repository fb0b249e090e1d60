"""`rlrun tune WORDS`: searches good values for an algorithm on an environment, and proves them."""

import argparse
from pathlib import Path

from rlrun.cli.parser import OneLineParser
from rlrun.cli.words import existing_directory, positive, seeds, some_seeds


def parser() -> OneLineParser:
    """Returns what reads the words behind `rlrun tune`."""
    arguments = OneLineParser(
        "rlrun tune",
        description="Searches good values for an algorithm on an environment, writes the best as a "
        "file of the group `tuned`, and compares it with the usual values on fresh seeds. What is "
        "searched is conf/tune/<algo>.yaml, as far as the words give a setting no value.",
        epilog="The same words go on with a study that was stopped, also beside another process.",
    )
    arguments.add_argument(
        "words",
        nargs="+",
        metavar="name=value",
        help="settings of every run (algo=ppo env=hopper), and ranges to search besides or instead "
        "(algo.gamma=choice(0.9,0.99), 'algo.clip=interval(0.1,0.3)', "
        "'algo.optimizer.learning_rate=tag(log,interval(1e-5,1e-2))', 'algo.epochs=range(1,20)')",
    )
    arguments.add_argument(
        "--trials", type=positive, default=20, help="points that are tried (default 20)"
    )
    arguments.add_argument(
        "--seeds",
        type=some_seeds,
        default=[100, 101],
        metavar="N,N",
        help="of a trial's runs, one after the other (default 100,101)",
    )
    arguments.add_argument(
        "--final-seeds",
        type=seeds,
        default=[102, 103, 104],
        metavar="N,N|none",
        help="on which the three best trials are trained, too, before the best is chosen (default "
        "102,103,104)",
    )
    arguments.add_argument(
        "--validate",
        type=seeds,
        default=[200, 201, 202, 203, 204],
        metavar="N,N|none",
        help="fresh seeds for the best values and the usual ones (default 200 to 204)",
    )
    arguments.add_argument(
        "--sampler",
        choices=["tpe", "random", "cmaes"],
        default="tpe",
        help="how points are drawn (default tpe)",
    )
    arguments.add_argument(
        "--pruner",
        choices=["median", "halving", "none"],
        default="median",
        help="which trials end before their time: those below the median of the others, or all but "
        "the best third at each of some stages (default median)",
    )
    arguments.add_argument(
        "--dir", type=Path, help="the study's directory (default outputs/tune/<of the words>)"
    )
    arguments.add_argument("--config-dir", type=existing_directory, help="your own groups")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Searches, chooses among the best, proves it on fresh seeds, and says what is found.

    Raises:
        UserError: a mistake in the words, or a study of another question.
        Interrupted: a signal asked to stop; the same words go on.
        JobFailed: a run of the proof failed.
    """
    from rlrun.cli.verbs.tune_request import read
    from rlrun.cli.verbs.tune_search import choose, prove, search, write

    request = read(arguments)
    study = search(request)
    best = choose(request, study)
    if write(request, study, best) and arguments.validate:
        prove(request, best)
