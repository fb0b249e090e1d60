"""Checks plain values against signatures: those of dataclasses and functions.

A signature is the schema of what a config gives for it: its parameters are the keys, their
annotations the types. Every mistake is a ``UserError`` whose one line says what is wrong, where,
and the nearest right word. Values are plain containers and are never changed.
"""

import dataclasses
import inspect
import reprlib
import typing
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union

from rlrun.config.types import out_of_range
from rlrun.errors import UserError, did_you_mean, nearest

# The largest whole number that tensors and arrays count with.
LARGEST = 2**63 - 1

TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    Callable: "the name of a function",
}


class MissingSetting(UserError):
    """A setting has no value.

    Attributes:
        key: the setting.
    """

    def __init__(self, key: str):
        """Keep the key."""
        super().__init__(f"{key} is missing: give it as {key}=…")
        self.key = key


class OutOfRange(UserError):
    """A value of the right type is outside the range that stands beside its field."""


def call(target: Callable, arguments: Mapping[str, Any], path: str) -> Any:
    """Calls the target; a ValueError, such as a range check's, becomes a UserError.

    A message that begins with an argument's name ("gamma must be in [0, 1], got 1.5") is put
    behind the path as a key ("algo.gamma must be …").
    """
    try:
        return target(**arguments)
    except ValueError as error:
        first_word = str(error).partition(" ")[0]
        place = join(path, "") if first_word in arguments else f"{path}: "
        raise UserError(f"{place}{error}") from error


def check_arguments(
    target: Callable,
    values: Mapping[str, Any],
    path: str,
    later: Sequence[str] = (),
) -> dict[str, Any]:
    """Checks values against the target's signature.

    Args:
        target: dataclass, class or function.
        values: what the config gives for its parameters.
        path: where the values stand in the config, for messages.
        later: parameters that are given when the target is called.

    Returns:
        The values, converted to the annotated types.

    Raises:
        UserError: an unknown, missing or badly typed key.
    """
    parameters = dict(inspect.signature(target).parameters)
    for name in later:
        if parameters.pop(name, None) is None:
            raise UserError(f"{path}: {target.__name__} does not take the argument '{name}'")
    for key in values:
        if key not in parameters:
            word = str(key)
            raise UserError(
                f"{join(path, word)}: no such setting{did_you_mean(word, parameters, path)}"
            )
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in values:
            raise MissingSetting(join(path, name))
    hints = annotations(target)
    return {
        key: convert(values[key], hints.get(key, Any), join(path, key))
        for key in parameters
        if key in values
    }


def annotations(target: Callable) -> dict[str, Any]:
    """Returns the resolved type annotations of a class's constructor or of a function."""
    function = target.__init__ if inspect.isclass(target) else target
    return typing.get_type_hints(function, include_extras=True)


def convert(value: Any, expected: Any, path: str) -> Any:
    """Checks a config value against a type annotation.

    Args:
        value: plain config value, or a part that is built already.
        expected: int, float, bool, str, None, Literal, ``X | Y``, ``list[X]``, ``tuple[X, ...]``,
            ``dict[str, X]``, a dataclass (whose fields are given as a mapping), Callable, the
            class of something built, or Any; with a range as ``Annotated[X, …]``.
        path: where the value stands in the config, for messages.

    Returns:
        The value in the expected type: integral floats (1e6) become int where int is expected,
        and int becomes float.

    Raises:
        UserError: the value does not fit.
    """
    kind = typing.get_origin(expected) or expected
    members = typing.get_args(expected) or (Any,)
    if kind is Any:
        return value
    if kind is Annotated:
        return convert_in_range(value, expected, path)
    if kind in (Union, UnionType):
        return convert_union(value, expected, path)
    if kind is Literal:
        return convert_literal(value, members, path)
    if kind in (list, tuple) and isinstance(value, list):
        places = [f"{path}[{index}]" for index in range(len(value))]
        return kind(
            convert(member, members[0], place) for member, place in zip(value, places, strict=True)
        )
    if kind is dict and isinstance(value, dict):
        if unnamed := [key for key in value if not isinstance(key, members[0])]:
            raise UserError(f"{path}: {show(unnamed[0])} is no name of a setting")
        return {
            key: convert(member, members[-1], join(path, str(key))) for key, member in value.items()
        }
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return call(expected, check_arguments(expected, value, path), path)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is int and type(value) is int and abs(value) > LARGEST:
        bound = f"at most {LARGEST}" if value > 0 else f"at least {-LARGEST}"
        raise OutOfRange(f"{path} must be {bound}, got {reprlib.repr(value)}")
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise OutOfRange(f"{path} must be finite, got {reprlib.repr(value)}") from error
    # To isinstance, a bool is an int.
    if not (type(value) is int if kind is int else isinstance(value, kind)):
        raise UserError(f"{path}: expected {describe(expected)}, got {show(value)}")
    return value


def convert_in_range(value: Any, expected: Any, path: str) -> Any:
    """Checks a value against a type and then against its range."""
    kind, *constraints = typing.get_args(expected)
    value = convert(value, kind, path)
    problem = out_of_range(value, constraints)
    if problem is not None:
        raise OutOfRange(f"{path} must be {problem}, got {show(value)}")
    return value


def convert_union(value: Any, expected: Any, path: str) -> Any:
    """Checks a value against each member of a union; the first that fits wins."""
    members = typing.get_args(expected)
    others = [member for member in members if member is not NoneType]
    closest = None
    for member in members:
        try:
            return convert(value, member, path)
        except UserError as error:
            # A range, or a mistake inside a mapping or list, says more than "this or that".
            inside = isinstance(value, (Mapping, list)) and others == [member]
            if isinstance(error, OutOfRange) or inside:
                closest = error
    raise closest or UserError(f"{path}: expected {describe(expected)}, got {show(value)}")


def convert_literal(value: Any, choices: Sequence[Any], path: str) -> Any:
    """Checks that a value is one of the choices."""
    if isinstance(value, bool) and value not in choices:
        value = "on" if value else "off"  # YAML 1.1 reads a bare on/off as a boolean
    if value in choices:
        return value
    words = [str(choice) for choice in choices]
    match = nearest(str(value), words)
    hint = f"; did you mean '{match}'?" if match else ""
    raise UserError(f"{path}: expected one of {', '.join(words)}, got {show(value)}{hint}")


def join(path: str, key: str) -> str:
    """Returns the path of a key below a path; the top of the config is the empty path."""
    return f"{path}.{key}" if path else key


def describe(expected: Any) -> str:
    """Names a type annotation in a user's words."""
    if typing.get_origin(expected) is Annotated:
        return describe(typing.get_args(expected)[0])
    if typing.get_origin(expected) in (Union, UnionType):
        return " or ".join(describe(member) for member in typing.get_args(expected))
    kind = typing.get_origin(expected) or expected
    if kind is Literal:
        return " or ".join(map(str, typing.get_args(expected)))
    if dataclasses.is_dataclass(kind):
        return TYPE_NAMES[dict]
    return TYPE_NAMES.get(kind, str(expected))


def show(value: Any) -> str:
    """Writes a value as the user did: null, true and false as in YAML."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)
