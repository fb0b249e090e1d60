"""What a run is made of: finds ``conf/``, checks a composed config and builds its parts."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlrun.config import schema
from rlrun.config.plugins import import_plugin
from rlrun.config.types import at_least, between
from rlrun.errors import UserError


def conf_directory() -> Path:
    """Returns the directory of rlrun's YAML files: in the wheel, else beside the checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"


@dataclass(kw_only=True)
class Evaluation:
    """When and how long the policy is evaluated.

    Attributes:
        every_steps: environment steps between evaluations.
        episodes: episodes of one evaluation.
        max_length: steps after which an episode of an evaluation counts as over.
    """

    every_steps: int
    episodes: int
    max_length: int

    def __post_init__(self):
        """Check the ranges."""
        at_least(
            1,
            every_steps=self.every_steps,
            episodes=self.episodes,
            max_length=self.max_length,
        )


@dataclass(kw_only=True)
class Checkpointing:
    """When the run's state is saved, and how many are kept.

    Attributes:
        every_seconds: seconds between checkpoints.
        keep: number of newest checkpoints kept, beside the best.
    """

    every_seconds: float
    keep: int

    def __post_init__(self):
        """Check the ranges."""
        between(0, math.inf, every_seconds=self.every_seconds)  # infinite: at the end only
        at_least(1, keep=self.keep)


@dataclass(kw_only=True)
class Experiment:
    """Everything that a run is made of, checked and built: the top level of config.yaml.

    Attributes:
        algo: the algorithm, with its hyperparameters.
        env: environment spec, which makes the environments.
        advantage: estimator ``rollout -> (advantage, target)``; None for an algorithm without.
        hardware: device, threads and compilation.
        loggers: logger specs by name, beside those that are always on.
        seed: the number that all of the run's random streams come from.
        total_steps: environment steps to train for.
        log_every_steps: environment steps that a row of metrics is about, at least.
        evaluation: when and how long to evaluate.
        checkpoint: when to save the state.
        run_dir: the run's directory; None for a new one in `parent`.
        tags: free words for the loggers.
        group: name that the loggers show runs together under; None for the label.
        plugins: the user's packages, imported before anything is built.
        choices: what was chosen of each group that a part is built from: {"algo": "ppo", …}.
        label: the run in a word without its seed ("ppo_hopper_td"): algorithm, environment, and the
            other parts as far as they are not the algorithm's own.
        parent: directory in which a new run's directory is made.
        config: the resolved config in plain containers.
        overrides: the command line's words.
    """

    algo: Any
    env: Any
    advantage: Callable | None
    hardware: Any
    loggers: dict[str, Any]
    seed: int
    total_steps: int
    log_every_steps: int
    evaluation: Evaluation
    checkpoint: Checkpointing
    run_dir: str | None
    tags: list[str]
    group: str | None
    plugins: list[str]
    choices: dict[str, str]
    label: str
    parent: Path
    config: dict[str, Any]
    overrides: list[str]

    def __post_init__(self):
        """Check the ranges."""
        at_least(0, seed=self.seed)
        at_least(1, total_steps=self.total_steps, log_every_steps=self.log_every_steps)

    @property
    def name(self) -> str:
        """The run in a word, for people."""
        return f"{self.label}_s{self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        """What the run is, by name: {"algo": "ppo", "env": "hopper", "env_id": "Hopper-v5", …}."""
        others = dict(sorted(self.choices.items()))
        algo, env = others.pop("algo"), others.pop("env")
        return {"algo": algo, "env": env, "env_id": self.env.id, **others, "seed": self.seed}


# What an algorithm calls an estimator with; the rest is the estimator's own, from its YAML.
ESTIMATOR_ARGUMENTS = ("rollout", "gamma")

# The groups of which a run has one choice, which an object is built from.
PARTS = ("algo", "env", "hardware")

# The fields of Experiment that are not keys of the config.
GIVEN = ("advantage", "loggers", "choices", "label", "parent", "config", "overrides")


def load(
    cfg: DictConfig, overrides: list[str], names: Mapping[str, Any], parent: Path
) -> Experiment:
    """Checks a composed config and builds the parts of the run that it describes.

    Args:
        cfg: the composed config without Hydra's own node; it is not changed.
        overrides: the command line's words.
        names: the choice of each group ("algo": "ppo"), and the ``label``; others are passed over.
        parent: directory in which a new run's directory is made.

    Raises:
        UserError: any mistake in the config.
    """
    config = to_plain(cfg)
    plugins = schema.convert(config.get("plugins", []), list[str], "plugins", packages=())
    for plugin in plugins:
        import_plugin(plugin)
    packages = ("rlrun", *(plugin.partition(".")[0] for plugin in plugins))
    parts = dict(config)
    advantage = parts.pop("advantage", None)
    if advantage is not None:
        advantage = schema.build(advantage, "advantage", packages, later=ESTIMATOR_ARGUMENTS)
    loggers = schema.convert(parts.get("logger", {}), dict[str, Any], "logger", packages)
    for name, node in parts.pop("logger", {}).items():
        schema.require_target(node, f"logger.{name}")
    for name in PARTS:
        if name in parts:
            schema.require_target(parts[name], name)
    arguments = schema.check_arguments(Experiment, parts, "", packages, later=GIVEN)
    given = {
        "advantage": advantage,
        "loggers": loggers,
        "choices": {part: str(names[part]) for part in built_from(config) if part in names},
        "label": str(names["label"]),
        "parent": parent,
        "config": config,
        "overrides": overrides,
    }
    return schema.call(Experiment, {**arguments, **given}, path="")


def load_run(directory: Path, plugins: Sequence[str] = ()) -> Experiment:
    """Builds the parts of an existing run from the files in its directory.

    A run's directory may come from someone else, so what it names is not imported on its word:
    the user names its plugins again.

    Args:
        directory: the run's directory, with config.yaml, overrides.yaml and run.json.
        plugins: packages that the user allows.

    Raises:
        UserError: the directory is no run, its config has a mistake, or it uses a plugin that is
            not allowed.
    """
    try:
        cfg = cast(DictConfig, OmegaConf.load(directory / "config.yaml"))
        overrides = OmegaConf.to_object(OmegaConf.load(directory / "overrides.yaml"))
        record = json.loads((directory / "run.json").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{directory} is not a run that can be read: {reason}") from error
    for plugin in cfg.get("plugins", []):
        if plugin not in plugins:
            raise UserError(f"{directory} uses code of '{plugin}': allow it with --plugin {plugin}")
    return load(cfg, cast(list[str], overrides), names=record, parent=directory.parent)


def built_from(config: Mapping[str, Any]) -> list[str]:
    """Returns the groups of a config that describe a part to build: algo, env and so on."""
    return [key for key, node in config.items() if isinstance(node, Mapping) and "_target_" in node]


def to_plain(cfg: DictConfig) -> dict[str, Any]:
    """Resolves a config into plain containers.

    Raises:
        UserError: a value is missing (``???``) or an interpolation cannot be resolved.
    """
    try:
        for key in sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{key} has no value: give it as {key}=…")
        return read_infinities(OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:
        message = str(error).partition("\n")[0]
        raise UserError(f"{error.full_key}: {message}") from error


def read_infinities(value: Any) -> Any:
    """Reads .inf as YAML's files do: Hydra takes it for text on the command line.

    Args:
        value: a config value; in a list or mapping, each member is read.
    """
    match value:
        case ".inf":
            return math.inf
        case "-.inf":
            return -math.inf
        case dict():
            return {key: read_infinities(member) for key, member in value.items()}
        case list():
            return [read_infinities(member) for member in value]
    return value
