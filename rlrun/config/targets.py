"""Builds objects from config nodes, checked against the signatures of what they name.

A node is a mapping with ``_target_``, the dotted name of a dataclass or function. What it may name
is decided by where the node stands, before anything is imported. The target's signature is the
node's schema (``schema.py``). With ``_partial_: true`` the node gives the constants of a function
that is called later. Every mistake is a ``UserError`` whose one line says what is wrong, where, and
the nearest right word. Nodes are plain containers and are never changed.
"""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, get_args

from rlrun.config.schema import annotations, call, check_arguments, join, show
from rlrun.config.types import FunctionIn
from rlrun.errors import UserError, did_you_mean


def build(
    node: Mapping[str, Any],
    path: str,
    room: str,
    plugins: Sequence[str] = (),
    later: Sequence[str] = (),
    members: Sequence[str] = (),
) -> Any:
    """Calls what a node's ``_target_`` names with the node's other keys, checked.

    Args:
        node: plain mapping with ``_target_``.
        path: where the node stands in the config ("algo"), for messages.
        room: package of rlrun that has what stands there ("rlrun.algos").
        plugins: packages of the user's own that may have it, too.
        later: the arguments that a function is called with later, which are no keys of the node;
            none for a class.
        members: the fields, methods and properties that a class needs to stand there.

    Returns:
        An object of the class, or with ``_partial_: true`` a partial of the function.

    Raises:
        UserError: an unknown, missing or badly typed key, a value out of range, or a target that
            does not exist or that may not be named there.
    """
    require_target(node, path)
    partial = bool(later)
    target = locate(node["_target_"], join(path, "_target_"), room, plugins, function=partial)
    if node.get("_partial_", False) is not partial:
        raise UserError(f"{join(path, '_partial_')} must be {show(partial)} here")
    values = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    require_members(target, members, join(path, "_target_"), node["_target_"])
    values |= functions_in(values, target, path, plugins)
    arguments = check_arguments(target, values, path, later)
    return functools.partial(target, **arguments) if partial else call(target, arguments, path)


def functions_in(
    values: Mapping[str, Any], target: Callable, path: str, plugins: Sequence[str]
) -> dict[str, Callable]:
    """Finds the functions that settings name (see :class:`~rlrun.config.types.FunctionIn`).

    Args:
        values: what the config gives for the target's parameters.
        target: dataclass or function.
        path: where the values stand in the config, for messages.
        plugins: packages of the user's own that may have them, too.

    Returns:
        The settings that are functions, without the others.

    Raises:
        UserError: there is no such function, or it may not be named there.
    """
    found = {}
    for key, hint in annotations(target).items():
        modules = [each.module for each in get_args(hint)[1:] if isinstance(each, FunctionIn)]
        if modules and isinstance(values.get(key), str):
            name = values[key] if "." in values[key] else f"{modules[0]}.{values[key]}"
            found[key] = locate(name, join(path, key), modules[0], plugins, function=True)
    return found


def named_code(value: Any, path: str = "") -> Iterator[str]:
    """Yields the places of a config at which a ``_target_`` stands.

    Args:
        value: plain containers.
        path: where they stand in the config.
    """
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield path
        for key, member in value.items():
            yield from named_code(member, join(path, str(key)))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from named_code(member, f"{path}[{index}]")


def require_target(node: Any, path: str) -> None:
    """Refuses a node that describes nothing to build: a user's file may be empty, or a list.

    Args:
        node: what the config has there.
        path: where it stands in the config ("algo"), for messages.

    Raises:
        UserError: it is no mapping with ``_target_``.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise UserError(f"{path}: its file has no _target_, the dotted name of the code for it")


def require_members(target: Callable, members: Sequence[str], path: str, name: str) -> None:
    """Refuses a dataclass that is made for another place.

    Args:
        target: the class.
        members: what it needs to have.
        path: where its name stands in the config, for messages.
        name: what the config calls it.

    Raises:
        UserError: it lacks one of them.
    """
    there = {*dir(target), *inspect.signature(target).parameters}
    if missing := [member for member in members if member not in there]:
        raise UserError(
            f"{path}: '{name}' has no {' and no '.join(missing)}, which is needed to stand here"
        )


def locate(
    target: Any, path: str, room: str, plugins: Sequence[str], *, function: bool
) -> Callable:
    """Finds the class or function that a ``_target_`` names.

    Args:
        target: dotted name, "rlrun.algos.policy_gradient.ppo.PPO".
        path: where it stands in the config, for messages.
        room: package of rlrun that it may be in.
        plugins: the user's packages that it may be in, too.
        function: whether a function is looked for, and not a keyword-only dataclass.

    Raises:
        UserError: it is no such name, may not stand there, or needs a package that is not
            installed. Nothing is imported that may not stand there.
    """
    if not is_dotted_name(target) or "." not in target:
        raise UserError(
            f"{path}: expected a dotted name like rlrun.hardware.spec.Hardware, got {show(target)}"
        )
    module_name, _, name = target.rpartition(".")
    packages = (room, *plugins)
    if not is_inside(module_name, packages):
        top = target.partition(".")[0]
        remedy = "" if top == "rlrun" else f"; allow it with plugins=[{top}]"
        raise UserError(f"{path}: '{target}' is not part of {room}{remedy}")
    module = import_module(module_name, path)
    # What a module merely imports from elsewhere is no part of it.
    own = {
        word: value
        for word, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and is_inside(str(value.__module__), packages)
    }
    is_right = inspect.isfunction if function else is_settings
    if name not in own:
        words = [word for word, value in own.items() if is_right(value)]
        raise UserError(f"{path}: no '{name}' in {module_name}{did_you_mean(name, words)}")
    if not is_right(own[name]):
        kind = "a function" if function else "a keyword-only dataclass"
        raise UserError(f"{path}: '{target}' is not {kind}, which stands here")
    return own[name]


def is_dotted_name(text: Any) -> bool:
    """Tells whether a text is names with dots between them."""
    return isinstance(text, str) and all(word.isidentifier() for word in text.split("."))


def is_inside(module: str, packages: Iterable[str]) -> bool:
    """Tells whether a module is one of some packages, or in one of them.

    Args:
        module: its dotted name.
        packages: their dotted names.
    """
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def is_settings(found: Any) -> bool:
    """Tells whether something is a dataclass whose fields are given by name alone."""
    if not (inspect.isclass(found) and dataclasses.is_dataclass(found)):
        return False
    return all(
        parameter.kind is parameter.KEYWORD_ONLY
        for parameter in inspect.signature(found).parameters.values()
    )


def import_module(name: str, path: str) -> ModuleType:
    """Imports a module that the config names; a missing one is a UserError.

    Args:
        name: dotted name.
        path: where it stands in the config, for messages.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if not f"{name}.".startswith(f"{missing}."):
            raise UserError(f"{path}: {name} needs '{missing}', which is not installed") from error
        parent, _, word = missing.rpartition(".")
        # A module that is not a package has no path, and nothing beside the missing name.
        search = vars(importlib.import_module(parent)).get("__path__", []) if parent else None
        siblings = [module.name for module in pkgutil.iter_modules(search)]
        raise UserError(f"{path}: no module '{missing}'{did_you_mean(word, siblings)}") from error
