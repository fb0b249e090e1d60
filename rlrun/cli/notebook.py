"""What Python can call, a notebook or a script: ``rlrun.train``, ``resume`` and ``load``.

They do what the commands of these names do, and leave the process as it was: threads, signals,
Hydra, the environment variables. A mistake is a ``UserError`` whose message is one line.
"""

import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlrun.cli import hydra_bridge
from rlrun.cli.words import run_directory
from rlrun.errors import Interrupted, UserError, near_path
from rlrun.runs.saved import SavedRun

if TYPE_CHECKING:
    from rlrun.runs.trained import TrainedPolicy


def train(settings: Sequence[str], *, config_dir: str | Path | None = None) -> SavedRun:
    """Train a new run; ``rlrun.train`` explains it."""
    own = [] if config_dir is None else [Path(config_dir)]
    for directory in own:
        if not directory.is_dir():
            raise UserError(f"config_dir: no directory '{directory}'{near_path(directory)}")
    check_settings(settings, own)
    parent = Path("outputs", f"{datetime.now():%Y-%m-%d}")
    with undisturbed():
        experiment = hydra_bridge.compose(settings, parent, own)

        from rlrun.runs.api import train_run

        return SavedRun(train_run(experiment).directory, tuple(experiment.plugins))


def resume(
    run: str | Path, *, total_steps: int | None = None, plugins: Sequence[str] = ()
) -> SavedRun:
    """Go on with a run; ``rlrun.resume`` explains it."""
    directory = run_directory(str(run))
    with undisturbed():
        from rlrun.runs.api import resume as resume_run

        resume_run(directory, total_steps=total_steps, plugins=plugins)
    return SavedRun(directory, tuple(plugins))


def load(
    run: str | Path, checkpoint: str = "last", *, plugins: Sequence[str] = (), seed: int = 0
) -> "TrainedPolicy":
    """Read a run's policy; ``rlrun.load`` explains it."""
    with undisturbed():
        return SavedRun(run_directory(str(run))).load(checkpoint, plugins=plugins, seed=seed)


def check_settings(settings: Sequence[str], own: Sequence[Path]) -> None:
    """Refuse what Hydra would misunderstand, and what only the command line has.

    Args:
        settings: the words.
        own: the user's directories of groups.

    Raises:
        UserError: they are no list of settings, or one of them is wrong.
    """
    if isinstance(settings, str) or not all(isinstance(word, str) for word in settings):
        raise UserError(f"train: expected a list of settings, ['algo=ppo', …], got {settings!r}")
    if options := [word for word in settings if word.startswith("-")]:
        raise UserError(f"train: {options[0]} is an option of the command line, and no setting")
    with hydra_bridge.hydra_kept():  # to import the command line sets Hydra's version
        from rlrun.cli import train as command_line
    command_line.check_settings(settings, own)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave Python's random numbers as they were, and end as its user expects of Ctrl-C.

    Raises:
        KeyboardInterrupt: Ctrl-C stopped the run, which has saved its state.
        Interrupted: another signal did.
    """
    numbers = random.getstate()  # which libraries use when they are imported
    try:
        yield
    except Interrupted as stopped:
        if stopped.signal != signal.SIGINT:
            raise
        raise KeyboardInterrupt from stopped
    finally:
        random.setstate(numbers)
