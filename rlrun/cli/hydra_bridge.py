"""Between Hydra and rlrun: a composed job becomes an Experiment, and an error one line.

On its own, Hydra prints an error on several lines and exits with code 1; here it is raised, said
in rlrun's words, and the caller decides what happens next.
"""

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.errors import (
    ConfigCompositionException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException

from rlrun.config import schema
from rlrun.config.experiment import Experiment
from rlrun.config.files import conf_directory
from rlrun.config.load import load, parts_of
from rlrun.errors import UserError, did_you_mean, near_path, nearest

# Groups of which a run has one choice; of loggers it can have several.
ONE_CHOICE = ("algo", "env", "collector", "model", "advantage", "hardware")


# What Hydra has one of in a process, and composing sets.
GLOBAL = (GlobalHydra, JobRuntime, VersionBase)
composing = threading.Lock()


def compose(words: Sequence[str], parent: Path, own: Sequence[Path] = ()) -> Experiment:
    """Builds the parts of the run that a command line's words describe, outside of Hydra's main.

    Args:
        words: the overrides.
        parent: directory in which a new run's directory is made.
        own: the user's directories of groups.

    Raises:
        UserError: any mistake in the words or in a file.
    """
    with hydra_kept():
        return load_composed(_composed(words, own), parent)


def unresolved(words: Sequence[str], own: Sequence[Path] = ()) -> dict[str, Any]:
    """Returns the config that words describe in plain containers, with its interpolations as text.

    Args:
        words: the overrides.
        own: the user's directories of groups.

    Raises:
        UserError: any mistake in the words or in a file.
    """
    with hydra_kept():
        config = OmegaConf.to_container(_composed(words, own), resolve=False)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items() if key != "hydra"}


def _composed(words: Sequence[str], own: Sequence[Path]) -> DictConfig:
    places = [str(directory.resolve()).replace("'", r"\'") for directory in own]
    search = ",".join(f"'file://{place}'" for place in places)
    try:
        with hydra.initialize_config_dir(str(conf_directory()), version_base="1.3"):
            words = [*words, *([f"hydra.searchpath=[{search}]"] if places else [])]
            return hydra.compose("config", words, return_hydra_config=True)
    except Exception as error:
        raise UserError(explain(error)) from error


@contextmanager
def hydra_kept() -> Iterator[None]:
    """Lets a block have a Hydra of its own: the caller may be another application of Hydra's."""
    with composing:
        before = {kind: Singleton._instances.pop(kind, None) for kind in GLOBAL}
        resolvers = dict(BaseContainer._resolvers)
        try:
            yield
        finally:
            for kind, instance in before.items():
                Singleton._instances.pop(kind, None)
                if instance is not None:
                    Singleton._instances[kind] = instance
            BaseContainer._resolvers = resolvers


def load_composed(composed: DictConfig, parent: Path) -> Experiment:
    """Builds the parts of the run that a whole config describes.

    Args:
        composed: with Hydra's own node.
        parent: directory in which a new run's directory is made.

    Raises:
        UserError: any mistake in the config.
    """
    keys = [str(key) for key in composed if key != "hydra"]
    cfg = OmegaConf.masked_copy(composed, keys)
    return load_job(cfg, cast(HydraConf, composed.hydra), parent)


def load_job(cfg: DictConfig, settings: HydraConf, parent: Path) -> Experiment:
    """Builds the parts of the run that Hydra composed a job for.

    Args:
        cfg: the job's config, without Hydra's own node.
        settings: Hydra's own node.
        parent: directory in which a new run's directory is made.

    Raises:
        UserError: any mistake in the config.
    """
    overrides = words_of(settings)
    choices = name_environment(cfg, overrides, settings.runtime.choices)
    names = {**choices, "label": label(cfg, choices, usual_choices(settings))}
    return load(cfg, overrides, names, parent)


def words_of(settings: HydraConf) -> list[str]:
    """Returns the overrides of a composed job, as they were written."""
    return cast(list[str], OmegaConf.to_container(settings.overrides.task, resolve=False))


def usual_choices(settings: HydraConf) -> dict[str, Any]:
    """Returns what the chosen algorithm and environment bring: the choice of each group.

    Args:
        settings: Hydra's own node of a composed job.
    """
    choices = settings.runtime.choices
    named = {re.split("[=@]", word.lstrip("+~"))[0] for word in words_of(settings)}
    if named.intersection(choices) <= {"algo", "env"}:
        return choices  # nothing else was chosen; reading all files again takes a tenth of a second
    search_path = ConfigSearchPathImpl()
    for source in settings.runtime.config_sources:
        search_path.append(source.provider, f"{source.schema}://{source.path}")
    words = [f"algo={choices['algo']}", f"env={choices['env']}"]
    loader = ConfigLoaderImpl(search_path)
    found = loader.compute_defaults_list(settings.job.config_name, words, RunMode.RUN)
    return found.overrides.known_choices


def name_environment(
    cfg: DictConfig, overrides: list[str], choices: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the choices with the environment's id in place of ``gym``, which any has.

    Args:
        cfg: the composed config.
        overrides: the command line's words; an id that they give is the environment's name.
        choices: the choice of each group.
    """
    if any(word.lstrip("+").startswith("env.id=") for word in overrides):
        return {**choices, "env": OmegaConf.select(cfg, "env.id")}
    return dict(choices)


def label(cfg: DictConfig, choices: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """Names a run without its seed, in a form that can be part of a file's name.

    Args:
        cfg: the composed config.
        choices: the choice of each group, the environment's as `name_environment` has it.
        usual: the choices that the algorithm and environment bring.

    Returns:
        "ppo_hopper"; "ppo_hopper_td" with another estimator than the algorithm's own.
    """
    others = [part for part in sorted(parts_of(cfg)) if part not in ("algo", "env", "hardware")]
    changed = [choices[part] for part in others if choices.get(part) != usual.get(part)]
    words = (str(word) for word in (choices["algo"], choices["env"], *changed))
    return "_".join(re.sub(r"[^\w.-]+", "-", word) for word in words)


class JobEnded(BaseException):
    """Carries an error past Hydra, which catches every Exception of a job or callback.

    Attributes:
        error: what the job raised.
    """

    def __init__(self, error: Exception):
        """Keep the error."""
        super().__init__(str(error))
        self.error = error


@contextmanager
def hydra_raises() -> Iterator[None]:
    """Has Hydra raise its errors: without this variable it prints them and exits."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def may_be_list(key: str) -> bool:
    """Tells whether a setting's value is a list in rlrun's files, or is not in them.

    Args:
        key: the setting ("model.hidden_sizes").
    """
    if key in ONE_CHOICE:
        return False
    group, _, setting = key.partition(".")
    files = sorted((conf_directory() / group).glob("*.yaml"))
    if not files:
        files, setting = [conf_directory() / "config.yaml"], key
    values = [OmegaConf.select(OmegaConf.load(file), setting) for file in files]
    known = [value for value in values if value is not None]
    return not known or any(OmegaConf.is_list(value) for value in known)


def nearest_setting(word: str, node: Mapping[str, Any], path: str) -> str:
    """Ends a message about what is no setting of a part: the nearest one, also of those inside.

    Args:
        word: what the user wrote ("lr").
        node: the part, whose parts are looked into, too ("optimizer.learning_rate").
        path: where it stands ("algo"), empty for the top.
    """
    settings = [key for key in node if key != "hydra" and not key.startswith("_")]
    inside = {
        key: f"{name}.{key}"
        for name in settings
        if isinstance(node[name], Mapping)
        for key in node[name]
    }
    if nearest(word, settings) is None and (match := nearest(word, inside)) is not None:
        return f"; did you mean '{schema.join(path, inside[match])}'?"
    return did_you_mean(word, settings, path)


def explain(error: Exception) -> str:
    """Says in one line why Hydra could not compose a config, with the nearest right word."""
    message = str(error).partition("\n")[0]
    match error:
        case MissingConfigException(missing_cfg_file=str(file), options=[*choices]):
            group, _, choice = file.rpartition("/")
            hint = did_you_mean(choice, choices)
            if group == "env" and nearest(choice, choices) is None:
                hint = f"; rlrun --help env lists them; any other is env=gym env.id={choice}"
            return f"{group}={choice}: no such {group}{hint}"
        case OverrideParseException(override=word) if "=" not in word:
            return f"{word}: settings are written name=value"
        case OverrideParseException(override=word):
            return f"{word}: {message}"
        case SearchPathException() if missing := re.search(r"directory '(.+)' not found", message):
            return f"--config-dir: no directory '{missing[1]}'{near_path(Path(missing[1]))}"
        case yaml.MarkedYAMLError(problem=problem, problem_mark=mark) if mark is not None:
            return f"{mark.name}, line {mark.line + 1}: {problem}"
        case ConfigCompositionException(__cause__=OmegaConfBaseException() as cause):
            if cause.parent_node is None:
                return f"{cause.full_key}: {str(cause).partition(chr(10))[0]}"
            node = OmegaConf.to_container(cast(DictConfig, cause.parent_node))
            path = str(cause.full_key).rpartition(".")[0]
            if not node:
                return f"{cause.full_key}: {path} is null here: give it whole, {path}={{…}}"
            hint = nearest_setting(str(cause.key), cast(dict, node), path)
            return f"{cause.full_key}: no such setting{hint}"
    if several := re.fullmatch(r"Ambiguous value for argument '(([^=]+)=(.*))'", message):
        word, key, values = several.groups()
        as_list = f", or {key}=[{values}] for a list" if may_be_list(key) else ""
        return f"{word}: several values for one run; for each: rlrun -m {word}{as_list}"
    if unused := re.match(r"Could not override '(.+)'\. No match in the defaults list", message):
        return f"{unused[1]}: this algo has no {unused[1]} to choose"
    if missing := re.match(r"In 'env/(.+)': Could not override '(\w+)'", message):
        return f"env={missing[1]} needs a {missing[2]}, which this algo has not"
    if message.endswith("raised while composing config:"):
        return f"{message} {str(error).splitlines()[1]}"
    return message or type(error).__name__
