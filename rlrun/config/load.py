"""From a config, composed or read back from a run, to the parts of an experiment."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlrun.config import schema, targets
from rlrun.config.experiment import Experiment
from rlrun.config.files import read_json, read_yaml
from rlrun.config.plugins import import_plugin
from rlrun.errors import UserError

# What may name code by a `_target_`, and the package of rlrun that this code is in, where it is not
# in one of the user's plugins: a class, whose object takes the node's place.
ROOMS = {
    "algo": "rlrun.algos",
    "env": "rlrun.envs",
    "collector": "rlrun.collectors",
    "model": "rlrun.models",
    "hardware": "rlrun.hardware",
}

# What stands at a place has at least these, by the protocols in the rooms' contracts
# (`EnvironmentSpec`, `CollectorSpec`, `Model`, `LoggerSpec`). What an algorithm needs,
# `runs/setup/preflight.py` says.
MEMBERS = {
    "env": ("id", "action_units", "time_limit", "remarks", "make", "make_single"),
    "collector": ("shape", "open"),
    "model": (
        "policy",
        "critic",
        "action_critic",
        "squashed_policy",
        "deterministic_policy",
        "action_values",
    ),
    "hardware": (
        "compile",
        "physics_threads",
        "torch_device",
        "remarks",
        "prepare",
        "side_by_side",
    ),
    "logger": ("check", "open"),
}

# The same for a function, for which the node has the constants.
ESTIMATORS = "rlrun.advantages"

# The same for classes of which a run has any number, by name.
LOGGERS = "rlrun.loggers"

# What an algorithm calls an estimator with; the rest is the estimator's own, from its YAML.
ESTIMATOR_ARGUMENTS = ("rollout", "gamma")

# The fields of Experiment that are not keys of the config.
GIVEN = ("advantage", "loggers", "choices", "label", "parent", "config", "overrides", "sweep")


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
    return build(to_plain(cfg), overrides, names, parent)


def load_run(directory: Path, plugins: Sequence[str] = ()) -> Experiment:
    """Builds the parts of an existing run from the files in its directory.

    A run's directory may come from someone else, so what it names is not imported on its word:
    the user names its plugins again. Interpolations in it are text.

    Args:
        directory: the run's directory, with config.yaml, overrides.yaml and run.json.
        plugins: packages that the user allows.

    Raises:
        UserError: the directory is no run, its config has a mistake, or it uses a plugin that is
            not allowed.
    """
    try:
        config = schema.convert(read_yaml(directory / "config.yaml"), dict[str, Any], "config.yaml")
        overrides = schema.convert(
            read_yaml(directory / "overrides.yaml"), list[str], "overrides.yaml"
        )
        record = read_json(directory / "run.json")
        if "label" not in record:
            raise UserError("run.json: label is missing: an earlier version of rlrun wrote it")
        present = [part for part in parts_of(config) if part in record]
        names = {
            key: schema.convert(record.get(key), str, f"run.json: {key}")
            for key in ("algo", "env", "label", *present)
        }
        sweep = schema.convert(record.get("sweep"), str | None, "run.json: sweep")
    except (OSError, ValueError, UserError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{directory} is not a run that can be read: {reason}") from error
    try:
        for plugin in plugins_of(config):
            if plugin not in plugins:
                raise UserError(f"it uses code of '{plugin}': allow it with --plugin {plugin}")
        experiment = build(config, overrides, names, parent=directory.parent)
        return dataclasses.replace(experiment, sweep=sweep)
    except schema.MissingSetting as error:
        raise UserError(
            f"{directory}: its config.yaml lacks {error.key}, which this version of rlrun needs"
        ) from error
    except UserError as error:
        raise UserError(f"{directory}: {error}") from error


def build(
    config: dict[str, Any], overrides: list[str], names: Mapping[str, Any], parent: Path
) -> Experiment:
    """Checks a resolved config and builds the parts of the run that it describes.

    Args:
        config: plain containers; they are not changed.
        overrides: the command line's words.
        names: the choice of each group ("algo": "ppo"), and the ``label``; others are passed over.
        parent: directory in which a new run's directory is made.

    Raises:
        UserError: any mistake in the config. No code is imported that it may not name.
    """
    refuse_other_code(config)
    plugins = plugins_of(config)
    for plugin in plugins:
        import_plugin(plugin)
    parts = dict(config)
    advantage = parts.pop("advantage", None)
    if advantage is not None:
        advantage = targets.build(
            advantage, "advantage", ESTIMATORS, plugins, later=ESTIMATOR_ARGUMENTS
        )
    loggers = {
        name: targets.build(node, f"logger.{name}", LOGGERS, plugins, members=MEMBERS["logger"])
        for name, node in loggers_of(parts).items()
    }
    parts.pop("logger", None)
    for name, room in ROOMS.items():
        if name in parts:
            parts[name] = targets.build(
                parts[name], name, room, plugins, members=MEMBERS.get(name, ())
            )
    arguments = schema.check_arguments(Experiment, parts, "", later=GIVEN)
    given = {
        "advantage": advantage,
        "loggers": loggers,
        "choices": {part: str(names[part]) for part in parts_of(config) if part in names},
        "label": str(names["label"]),
        "parent": parent,
        "config": config,
        "overrides": overrides,
    }
    return schema.call(Experiment, {**arguments, **given}, path="")


def parts_of(config: Mapping[Any, Any]) -> list[str]:
    """Returns the groups of a config of which a run has one part each: algo, env and so on."""
    return [part for part in (*ROOMS, "advantage") if config.get(part) is not None]


def loggers_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nodes of the loggers by name.

    Raises:
        UserError: there is something else.
    """
    return schema.convert(config.get("logger", {}), dict[str, Any], "logger")


def plugins_of(config: Mapping[str, Any]) -> list[str]:
    """Returns the user's packages that a config names.

    Raises:
        UserError: there is something else, or rlrun itself, of which each place has its own part.
    """
    plugins = schema.convert(config.get("plugins", []), list[str], "plugins")
    for plugin in plugins:
        if not targets.is_dotted_name(plugin) or targets.is_inside(plugin, ["rlrun"]):
            raise UserError(f"plugins: {plugin!r} is no package of your own")
    return plugins


def refuse_other_code(config: Mapping[str, Any]) -> None:
    """Refuses a ``_target_`` at a place where nothing is built.

    Raises:
        UserError: there is one.
    """
    allowed = {*ROOMS, "advantage", *(f"logger.{name}" for name in loggers_of(config))}
    for path in targets.named_code(config):
        if path not in allowed:
            raise UserError(
                f"{schema.join(path, '_target_')}: code can be named only in "
                f"{', '.join([*ROOMS, 'advantage'])} and logger.<name>"
            )


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
        message, key = str(error).partition("\n")[0], str(error.full_key)
        source = re.fullmatch(r"Interpolation key '((\w+)\.[\w.]+)' not found", message)
        group, inner, _ = key.partition(".")
        if source and inner and source[2] in cfg:  # a file that fits some choices of another group
            raise UserError(
                f"{key} comes from {source[1]}, which this {source[2]} has not: "
                f"another {group}, or {key}=…"
            ) from error
        raise UserError(f"{key}: {message}") from error


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
