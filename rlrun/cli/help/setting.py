"""`rlrun --help SETTING`: what a setting means, its type and range, its value and whence it comes.

The meaning is the comment above the key in its YAML file, the type is the annotation in the code
that the part's ``_target_`` names; nothing is written a second time for this.
"""

import dataclasses
import functools
import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.types import RunMode
from omegaconf import OmegaConf

from rlrun.cli.help.overview import GROUPS, choices
from rlrun.cli.hydra_bridge import explain, nearest_setting
from rlrun.config import schema, targets
from rlrun.config.experiment import Experiment
from rlrun.config.files import conf_directory
from rlrun.config.load import ESTIMATORS, GIVEN, LOGGERS, ROOMS, plugins_of
from rlrun.config.plugins import import_plugin
from rlrun.config.types import out_of_range
from rlrun.errors import UserError


class Composed:
    """A composed config, and the files that it was composed of.

    Attributes:
        config: the whole, without Hydra's own node.
        plain: the same in plain containers; interpolations are not resolved.
        choices: the choice of each group.
        files: path and package of each file in the order in which they were laid over each other;
            an empty package is the top of the config.
    """

    def __init__(self, overrides: Sequence[str], directories: Sequence[Path]):
        """Compose what a command line asks for.

        Args:
            overrides: its settings and choices.
            directories: those of the groups, the user's before rlrun's own.

        Raises:
            UserError: it cannot be composed.
        """
        search_path = create_config_search_path(str(conf_directory()))
        for directory in directories[:-1]:
            anchor = SearchPathQuery(provider="main")
            search_path.prepend("command-line", f"file://{directory.absolute()}", anchor)
        loader, words = ConfigLoaderImpl(search_path), list(overrides)
        try:
            config = loader.load_configuration("config", words, RunMode.RUN)
            found = loader.compute_defaults_list("config", words, RunMode.RUN).defaults
        except Exception as error:
            raise UserError(explain(error)) from error
        self.choices = dict(config.hydra.runtime.choices)
        self.config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        self.plain: dict[str, Any] = cast(dict, OmegaConf.to_container(self.config))
        self.files = [
            (path, default.package or "")
            for default in found
            for path in [first_file(directories, f"{default.config_path}.yaml")]
            if path is not None
        ]


def first_file(directories: Sequence[Path], name: str) -> Path | None:
    """Returns the file of that name in the first directory that has it."""
    return next((path for path in (each / name for each in directories) if path.is_file()), None)


def text(name: str, overrides: Sequence[str], directories: Sequence[Path]) -> str:
    """Returns what there is to say of a setting or of a group.

    Args:
        name: the setting ("algo.clip", "total_steps") or the group ("env").
        overrides: the command line's settings and choices, of which some decide what there is.
        directories: those of the groups, the user's before rlrun's own.

    Raises:
        UserError: there is no such setting; the message names the nearest.
    """
    if name == "tuned":
        return group_text(name, None, directories)
    composed = Composed(overrides, directories)
    try:
        node = find(composed, name)
    except UserError as error:
        owners = [] if "." not in name else owners_of(name, directories)
        group = name.partition(".")[0]
        if not owners or composed.choices.get(group) in owners:
            raise
        raise UserError(
            f"{name}: no such setting of {group}={composed.choices.get(group)}; "
            f"rlrun {group}={owners[0]} --help {name}"
        ) from error
    parts = []
    if name in GROUPS:
        parts.append(group_text(name, composed.choices.get(name), directories))
    else:
        parts.append(setting_text(name, node, composed, overrides))
    if isinstance(node, dict):
        parts.append(members_text(name, node, composed))
    return "\n".join(part for part in parts if part).rstrip()


def find(composed: Composed, name: str) -> Any:
    """Returns a setting's value, with its interpolation.

    Raises:
        UserError: there is no such setting.
    """
    node: Any = composed.plain
    if name == "logger" and name not in node:
        return None  # none was chosen
    path = ""
    for word in name.split("."):
        place = schema.join(path, word)
        if not isinstance(node, dict):
            now = "is null here" if node is None else "has no settings of its own"
            raise UserError(f"{place}: {path} {now}")
        if word not in node:
            raise UserError(f"{place}: no such setting{nearest_setting(word, node, path)}")
        node, path = node[word], place
    return node


def group_text(group: str, choice: str | None, directories: Sequence[Path]) -> str:
    """Returns a group's choices, with the first line of each file; the present one is marked."""
    lines: dict[str, str] = {}
    for directory in reversed(directories):
        lines |= choices(directory / group)
    width = max(len(name) for name in lines)
    listed = [
        f"{'*' if name == choice else ' '} {name:<{width}}  {line}" for name, line in lines.items()
    ]
    marked = " (* is chosen)" if choice in lines else ""
    return "\n".join([f"{group}: {GROUPS[group]}{marked}", *listed, ""])


def setting_text(name: str, node: Any, composed: Composed, overrides: Sequence[str]) -> str:
    """Returns a setting's meaning, type, and value with what it is from."""
    written = [
        (path, comment, value)
        for path, package in composed.files
        for comment, value in [keys_of(path).get(inside(name, package), ("", None))]
        if comment or value is not None
    ]
    lines = [name]
    # The first file says what the setting is; one laid over it says why its value is another.
    lines += [f"  {line}" for line in written[0][1].splitlines()] if written else []
    lines.append("")
    expected = annotation(name, composed)
    if expected is not None:
        lines += [f"  type   {describe(expected)}"]
    if not isinstance(node, dict):
        typed = [
            word.partition("=")[2] for word in overrides if word.lstrip("+").startswith(f"{name}=")
        ]
        values = [(value, where(path)) for path, _, value in written if value is not None]
        values += [(value, "the command line") for value in typed]
        label = "value"
        for value, source in values:
            lines.append(f"  {label:<6} {value}  from {source}")
            label = "then"  # each is laid over the one before
        if "${" in str(node):
            resolved = OmegaConf.select(composed.config, name)
            lines.append(f"  {'is':<6} {schema.show(resolved)}")
    return "\n".join([*lines, ""])


def members_text(name: str, node: Mapping[str, Any], composed: Composed) -> str:
    """Returns the settings inside a part, each with the first sentence of its comment."""
    comments: dict[str, str] = {}
    for path, package in composed.files:
        for key, (comment, _) in keys_of(path).items():
            comments.setdefault(schema.join(package, ".".join(key)), comment)
    rows = [
        (f"{name}.{key}", first_sentence(comments.get(f"{name}.{key}", "")))
        for key in node
        if not key.startswith("_")
    ]
    width = max((len(place) for place, _ in rows), default=0)
    return "\n".join(f"  {place:<{width}}  {comment}".rstrip() for place, comment in rows)


def first_sentence(comment: str) -> str:
    """Returns the beginning of a comment, on one line."""
    return re.split(r"\. (?=[A-Z])", " ".join(comment.split()))[0].removesuffix(".")


def inside(name: str, package: str) -> tuple[str, ...]:
    """Returns a setting's place in a file of a package; one that no file has if it is elsewhere."""
    if not package:
        return tuple(name.split("."))
    return tuple(name[len(package) + 1 :].split(".")) if name.startswith(f"{package}.") else ()


@functools.cache
def keys_of(path: Path) -> dict[tuple[str, ...], tuple[str, str | None]]:
    """Reads what a YAML file says of each key: the comment above it, and its value as written.

    Args:
        path: the file.

    Returns:
        By the keys that lead there: the comment without its marks, and the value, None for that of
        a mapping.
    """
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    found: dict[tuple[str, ...], tuple[str, str | None]] = {}

    def read(node: yaml.Node | None, above: tuple[str, ...]) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            comment: list[str] = []
            number = key.start_mark.line
            while number > 0 and lines[number - 1].lstrip().startswith("#"):
                number -= 1
                comment.insert(0, lines[number].lstrip().removeprefix("#").strip())
            place = (*above, key.value)
            written = source[value.start_mark.index : value.end_mark.index]
            is_mapping = isinstance(value, yaml.MappingNode) and value.value
            found[place] = ("\n".join(comment), None if is_mapping else written)
            read(value, place)

    read(yaml.compose(source), ())
    return found


def where(path: Path) -> str:
    """Names a file as its reader finds it: conf/algo/ppo.yaml, or the path of a user's own."""
    conf = conf_directory()
    return f"conf/{path.relative_to(conf)}" if path.is_relative_to(conf) else str(path)


def owners_of(name: str, directories: Sequence[Path]) -> list[str]:
    """Returns the choices of the setting's group whose files have it."""
    group, _, setting = name.partition(".")
    files = [
        path for directory in directories for path in sorted((directory / group).glob("*.yaml"))
    ]
    return [path.stem for path in files if tuple(setting.split(".")) in keys_of(path)]


def annotation(name: str, composed: Composed) -> Any:
    """Returns the annotation of a setting in the code that reads it; None where it has none.

    Args:
        name: the setting.
        composed: the config; of its parts, the one of the setting is imported.
    """
    expected: Any = None
    words = name.split(".")
    depth = 2 if words[0] == "logger" else 1
    place, words = ".".join(words[:depth]), words[depth:]
    part = find(composed, place)
    if place in Experiment.__annotations__ and place not in ROOMS and place not in GIVEN:
        expected, words = Experiment, [place, *words]
    elif isinstance(part, dict) and "_target_" in part:
        plugins = plugins_of(composed.plain)
        for plugin in plugins:
            import_plugin(plugin)
        room = {**ROOMS, "logger": LOGGERS, "advantage": ESTIMATORS}[name.partition(".")[0]]
        function = bool(part.get("_partial_"))
        expected = targets.locate(part["_target_"], place, room, plugins, function=function)
    for word in words:
        if typing.get_origin(expected) in (Union, UnionType):  # settings, or null for none
            of_settings = [m for m in typing.get_args(expected) if dataclasses.is_dataclass(m)]
            expected = of_settings[0] if len(of_settings) == 1 else None
        if not inspect.isfunction(expected) and not dataclasses.is_dataclass(expected):
            return None  # of an environment's options, say, of which its class knows
        expected = schema.annotations(cast(Callable, expected)).get(word)
    return expected if words and expected is not Any else None


def describe(expected: Any) -> str:
    """Names a type and its range in a user's words: "a number, in [0, 1]"."""
    kind, members = typing.get_origin(expected), typing.get_args(expected)
    if kind is Annotated:
        # NaN is outside every range, so that each says what it allows.
        ranges = [out_of_range(math.nan, [constraint]) for constraint in members[1:]]
        return ", ".join([describe(members[0]), *(each for each in ranges if each)])
    if kind in (Union, UnionType):
        return " or ".join(describe(member) for member in members)
    if kind is Literal:
        return f"one of {', '.join(str(member) for member in members)}"
    if kind in (list, tuple) and members:
        return f"a list, each {describe(members[0])}"
    return schema.describe(expected)
