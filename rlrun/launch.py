"""`rlrun a=b …`: composes a config with Hydra and trains the run that it describes."""

from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rlrun import sweep
from rlrun.config import conf_directory
from rlrun.errors import JobFailed, UserError, nearest
from rlrun.hydra_bridge import ONE_CHOICE, JobEnded, explain, hydra_raises, load_job

# Hydra's long options, of which an unknown one is more often a setting in argparse's style.
HYDRA_OPTIONS = (
    "--cfg",
    "--config-dir",
    "--config-name",
    "--config-path",
    "--experimental-rerun",
    "--hydra-help",
    "--info",
    "--multirun",
    "--package",
    "--resolve",
    "--run",
    "--shell-completion",
)


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


def check_word(word: str) -> None:
    """Refuses what Hydra would accept and misunderstand, or refuse in many lines.

    Args:
        word: one word of the command line.

    Raises:
        UserError: several choices for a group of which a run has one, or an unknown option.
    """
    name, _, value = word.partition("=")
    if name in ONE_CHOICE and value.startswith("["):  # Hydra would merge the files
        choices = value.strip("[]").replace(" ", "")
        raise UserError(f"{word}: a run has one {name}; for each: rlrun -m {name}={choices}")
    if name in ONE_CHOICE and value in ("", "null"):
        raise UserError(f"{word}: a run has one {name} (rlrun --help lists them)")
    if name.startswith("--") and name not in HYDRA_OPTIONS:
        option = nearest(name, HYDRA_OPTIONS)
        hint = f"did you mean {option}?" if option else f"settings are written {name[2:]}=value"
        raise UserError(f"no option {name}; {hint}")


def launch(words: list[str]) -> None:
    """Does what a command line of overrides and Hydra's options asks for.

    Args:
        words: the command line; Hydra reads it from sys.argv itself.

    Raises:
        UserError: the words cannot be composed into a config.
        JobFailed: a job of a sweep failed.
        Exception: what the run raised.
    """
    for word in words:
        check_word(word)
    try:
        with hydra_raises():
            job()
    except JobEnded as ended:
        raise ended.error from ended.error.__cause__
    except JobFailed:
        raise
    except Exception as error:
        raise UserError(explain(error)) from error
