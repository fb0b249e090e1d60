"""Wrappers of a config by name: Gymnasium's, and those of a user's package."""

import inspect
import math
import sys
import typing
from collections import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union

import gymnasium as gym
import numpy as np
from gymnasium import wrappers

from rlrun.config import schema
from rlrun.config.targets import is_inside
from rlrun.errors import UserError, did_you_mean

GYMNASIUM = "gymnasium.wrappers"

STATISTICS = (
    "each environment would have statistics of its own, an evaluation others, a resumed run none; "
    "rlrun's are algo.normalization"
)
PICTURES = "rlrun eval RUN --video film.mp4 makes films"
TENSORS = "rlrun makes tensors of arrays itself"

# Those that would spoil a run, or do what rlrun does, and why.
REFUSED = {
    "ArrayConversion": TENSORS,
    "Autoreset": "rlrun begins the next episode itself, and keeps the last observation",
    "HumanRendering": PICTURES,
    "JaxToNumpy": TENSORS,
    "JaxToTorch": TENSORS,
    "NormalizeObservation": STATISTICS,
    "NormalizeReward": STATISTICS,
    "NumpyToTorch": TENSORS,
    "RecordEpisodeStatistics": "rlrun logs train/return and train/length itself",
    "RecordVideo": PICTURES,
    "RenderCollection": PICTURES,
}

# Those that take several steps for one, and the argument that says how many.
REPEATS = {
    wrappers.AtariPreprocessing: "frame_skip",
    wrappers.MaxAndSkipObservation: "skip",
    wrappers.RepeatAction: "num_repeats",
}

# The annotations that `schema.convert` knows; of others YAML has no values.
KNOWN = (bool, int, float, str, NoneType, list, tuple, dict, abc.Callable, Literal, Annotated)


@dataclass(frozen=True)
class Wrapping:
    """A wrapper and its arguments, checked.

    Attributes:
        place: where it stands in the config ("env.wrappers[0]"), for messages.
        wrapper: its class.
        arguments: by name, but for the environment.
    """

    place: str
    wrapper: type[gym.Wrapper]
    arguments: dict[str, Any]

    def __call__(self, env: gym.Env) -> gym.Env:
        """Put the wrapper around an environment.

        Raises:
            UserError: it does not go around this one.
        """
        try:
            return self.wrapper(env, **self.arguments)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{self.place}: {self.wrapper.__name__} cannot be put around this environment: "
                f"{type(error).__name__}: {reason}"
            ) from error

    def value(self, name: str) -> Any:
        """Return an argument that is given, or has a default."""
        default = inspect.signature(self.wrapper).parameters[name].default
        return self.arguments.get(name, default)


def wrap(env: gym.Env, wrappings: Sequence[Wrapping]) -> gym.Env:
    """Put wrappers around an environment, the first one innermost.

    Raises:
        UserError: one does not go around it.
    """
    for wrapping in wrappings:
        env = wrapping(env)
    return env


def limit_of_wrapped(limit: int | None, wrappings: Sequence[Wrapping]) -> int | None:
    """Return the steps after which an episode of a wrapped environment is truncated.

    Args:
        limit: that of the environment itself; None: none.
        wrappings: around it.
    """
    for wrapping in wrappings:
        if wrapping.wrapper is wrappers.TimeLimit:
            steps = wrapping.value("max_episode_steps")
            limit = steps if limit is None else min(limit, steps)
        elif wrapping.wrapper in REPEATS and limit is not None:
            limit = math.ceil(limit / max(1, wrapping.value(REPEATS[wrapping.wrapper])))
    return limit


def read_wrappers(
    nodes: Sequence[str | Mapping[str, Any]], plugins: Sequence[str]
) -> list[Wrapping]:
    """Check the wrappers of a config.

    Args:
        nodes: each a name, or a mapping with ``name`` and the wrapper's arguments.
        plugins: the user's packages, imported, that they may be in.

    Raises:
        UserError: there is no such wrapper, rlrun has no use for it, or its arguments are not
            those of its signature.
    """
    return [read_wrapper(node, f"env.wrappers[{i}]", plugins) for i, node in enumerate(nodes)]


def read_wrapper(node: str | Mapping[str, Any], place: str, plugins: Sequence[str]) -> Wrapping:
    """Check one wrapper of a config.

    Args:
        node: see `read_wrappers`.
        place: where it stands.
        plugins: see `read_wrappers`.

    Raises:
        UserError: see `read_wrappers`.
    """
    values = {"name": node} if isinstance(node, str) else dict(node)
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise UserError(
            f"{place}: a wrapper has a name: {{name: FrameStackObservation, stack_size: 4}}"
        )
    wrapper = find(name, place, plugins)
    _, *parameters = inspect.signature(wrapper).parameters.values()  # the first: the environment
    hints = annotations(wrapper)
    for parameter in parameters:
        kind = typing.get_origin(hints.get(parameter.name))
        if kind is abc.Callable and parameter.default is parameter.empty:
            raise UserError(
                f"{place}: {name} needs a function ({parameter.name}), and a config has none: "
                "write a wrapper of your own, in a package of plugins=[…]"
            )
    names = [parameter.name for parameter in parameters]
    for key in values:
        if key not in names:
            hint = did_you_mean(str(key), names)
            raise UserError(f"{place}: {name} has no argument '{key}'{hint}")
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in values:
            raise UserError(f"{place}: {name} needs a value of {parameter.name}")
    arguments = {
        key: convert(value, hints.get(key, Any), schema.join(place, key))
        for key, value in values.items()
    }
    return Wrapping(place, wrapper, arguments)


def find(name: str, place: str, plugins: Sequence[str]) -> type[gym.Wrapper]:
    """Find a wrapper by its name.

    Args:
        name: "FrameStackObservation", or "my_package.wrappers.Mine".
        place: where it stands in the config, for messages.
        plugins: the user's packages, imported, that it may be in.

    Raises:
        UserError: it is not there, or is refused. Nothing is imported: a name that is read back
            from a run's directory must not run code.
    """
    module_name, _, word = name.rpartition(".")
    if module_name in ("", GYMNASIUM):
        module = wrappers
        if word in REFUSED:  # some need another package to be there at all
            raise UserError(f"{place}: {word} is refused: {REFUSED[word]}")
    elif not is_inside(module_name, plugins):
        top = name.partition(".")[0]
        raise UserError(f"{place}: '{name}' is not in {GYMNASIUM}; allow it with plugins=[{top}]")
    elif module_name not in sys.modules:
        raise UserError(f"{place}: {module_name} is not imported: plugins=[{module_name}]")
    else:
        module = sys.modules[module_name]
    found = wrappers_in(module)
    if word not in found:
        hint = did_you_mean(word, found)
        raise UserError(f"{place}: no wrapper '{word}' in {module.__name__}{hint}")
    for base in found[word].__mro__:
        if base.__name__ in REFUSED and is_inside(base.__module__, ["gymnasium"]):
            raise UserError(f"{place}: {name} is refused: {REFUSED[base.__name__]}")
    return found[word]


def wrappers_in(module: ModuleType) -> dict[str, type[gym.Wrapper]]:
    """Return the wrappers that a module has, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, gym.Wrapper)
    }


def annotations(wrapper: type[gym.Wrapper]) -> dict[str, Any]:
    """Return the annotations of a wrapper's arguments; none where only type checkers read them."""
    try:
        return schema.annotations(wrapper)
    except NameError:
        return {}


def convert(value: Any, annotation: Any, path: str) -> Any:
    """Check an argument against its annotation, and make a list an array where one is taken.

    Args:
        value: as the config has it.
        annotation: of the wrapper.
        path: where it stands in the config, for messages.

    Raises:
        UserError: it does not fit.
    """
    value = schema.convert(value, in_yaml(annotation), path)
    kinds = [typing.get_origin(kind) or kind for kind in (annotation, *typing.get_args(annotation))]
    if not (isinstance(value, list) and np.ndarray in kinds):
        return value
    try:
        return np.array(value, np.float64)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: expected numbers, got {value}") from error


def in_yaml(annotation: Any) -> Any:
    """Return what of an annotation a value of YAML can be: a list for an array; Any for others."""
    kind, members = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if kind in (Union, UnionType):
        return Union[tuple(in_yaml(member) for member in members)]  # noqa: UP007 (of a tuple)
    if kind in (abc.Sequence, np.ndarray):
        return list[Any]
    if kind is dict:
        return dict[str, Any]
    if inspect.isclass(kind) and issubclass(kind, np.floating | np.integer):
        return float if issubclass(kind, np.floating) else int
    return annotation if kind in KNOWN else Any
