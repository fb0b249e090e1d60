"""rlrun: reinforcement-learning experiments from one command line, or from Python.

    import rlrun

    run = rlrun.train(["algo=ppo", "env=cartpole", "total_steps=100_000"])
    run.final_return, run.evaluations["return"], run.metrics["train/return"]

    policy = run.load("best")
    action = policy.act(observation)

    for run in rlrun.runs("outputs"):
        print(run.name, run.status, run.config["algo"]["gamma"])

What is called from Python leaves the process as it was: its threads, signal handlers, environment
variables, working directory, torch's defaults and random numbers, and Hydra. A mistake is a
`UserError` of one line. torch is imported by the first call that needs it.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from rlrun.errors import UserError

if TYPE_CHECKING:
    from rlrun.runs.saved import SavedRun
    from rlrun.runs.trained import TrainedPolicy

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "load", "resume", "runs", "train"]


def train(settings: Sequence[str], *, config_dir: str | Path | None = None) -> "SavedRun":
    """Train a new run, as the command ``rlrun`` does with these settings.

    Args:
        settings: what would be typed behind ``rlrun``: ``["algo=ppo", "env=hopper", "seed=3"]``.
        config_dir: directory of your own groups, as behind ``--config-dir``.

    Returns:
        The run: ``directory``, ``final_return``, ``evaluations``, ``metrics``, ``load()`` …

    Raises:
        UserError: a mistake in the settings, say; nothing is left of the run.
        KeyboardInterrupt: Ctrl-C; the run has saved its state, and `resume` goes on with it.
        EnvironmentFailure, NonFiniteError: the environment raised, or a number is lost
            (``rlrun.errors``).
    """
    from rlrun.cli import notebook

    return notebook.train(settings, config_dir=config_dir)


def resume(
    run: str | Path, *, total_steps: int | None = None, plugins: Sequence[str] = ()
) -> "SavedRun":
    """Go on with a run where it stopped, as the command ``rlrun resume`` does.

    Args:
        run: its directory.
        total_steps: environment steps at which it ends now; None for what it was started with.
        plugins: your packages that it may use: a run's directory is not trusted to name them.

    Returns:
        The run, as `train` does.

    Raises:
        UserError: there is nothing to go on with, say.
        KeyboardInterrupt: Ctrl-C; the run has saved its state again.
    """
    from rlrun.cli import notebook

    return notebook.resume(run, total_steps=total_steps, plugins=plugins)


def load(
    run: str | Path, checkpoint: str = "last", *, plugins: Sequence[str] = (), seed: int = 0
) -> "TrainedPolicy":
    """Read a run's policy, with its normaliser: ``rlrun.load(RUN).act(observation)``.

    Args:
        run: its directory.
        checkpoint: "last", the newest, or "best", the one with the best evaluation.
        plugins: your packages that it may use: a run's directory is not trusted to name them.
        seed: of the actions that ``act(observation, deterministic=False)`` draws.

    Raises:
        UserError: there is no such run or checkpoint.
    """
    from rlrun.cli import notebook

    return notebook.load(run, checkpoint, plugins=plugins, seed=seed)


def __getattr__(name: str) -> ModuleType:
    """Find ``rlrun.runs``, which is a package and a function: ``rlrun.runs("outputs")``."""
    if name != "runs":
        raise AttributeError(f"module 'rlrun' has no attribute {name!r}")
    import rlrun.runs

    return rlrun.runs
