"""Options that several commands have."""

import argparse


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says which of a run's checkpoints is meant."""
    parser.add_argument(
        "--checkpoint",
        choices=["last", "best"],
        default="last",
        help="the newest, or the one with the best evaluation return (default last)",
    )


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Adds the option that allows a run's config to name code outside rlrun."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="your package that the run uses; a run's directory is not trusted to name it",
    )
