"""`rlrun a=b …`: composes a config with Hydra and trains the run that it describes."""

from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rlrun import sweep
from rlrun.config import conf_directory
from rlrun.errors import UserError
from rlrun.hydra_bridge import ONE_CHOICE, JobEnded, explain, hydra_raises, load_job


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")
def job(cfg: DictConfig) -> float:
    """Trains one run; Hydra calls it with each composed config.

    Returns:
        The run's final evaluation return, which Hydra's sweepers optimise.
    """
    settings = HydraConfig.get()
    if settings.mode == RunMode.MULTIRUN:
        return sweep.run_job(cfg, settings)
    try:
        experiment = load_job(cfg, settings, Path("outputs", f"{datetime.now():%Y-%m-%d}"))

        from rlrun.api import train

        return train(experiment)
    except Exception as error:
        raise JobEnded(error) from error


def launch(words: list[str]) -> None:
    """Does what a command line of overrides and Hydra's options asks for.

    Args:
        words: the command line; Hydra reads it from sys.argv itself.

    Raises:
        UserError: the words cannot be composed into a config.
        sweep.JobFailed: a job of a sweep failed.
        Exception: what the run raised.
    """
    for word in words:
        group, _, choice = word.partition("=")
        if group in ONE_CHOICE and choice.startswith("["):  # Hydra would merge the files
            choices = choice.strip("[]").replace(" ", "")
            raise UserError(f"{word}: a run has one {group}; for each: rlrun -m {group}={choices}")
    try:
        with hydra_raises():
            job()
    except JobEnded as ended:
        raise ended.error from ended.error.__cause__
    except sweep.JobFailed:
        raise
    except Exception as error:
        raise UserError(explain(error)) from error
