"""What environments return, checked before it is put together: a user's mistake must not train.

NumPy casts, wraps and broadcasts in silence what does not fit. What Gymnasium's own vector
environment refuses is refused here, by name; and so is what does not survive its cast, a category
that there is not, a part of a Tuple or Dict too many, a reward that is no number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

# Characters of a value that a message shows.
LONGEST_VALUE = 80


class Misfit(ValueError):
    """An observation that is not of its space.

    Attributes:
        index: whose it is, among those that were given.
    """

    def __init__(self, index: int, problem: str):
        """Keep whose it is, and say what is wrong."""
        super().__init__(problem)
        self.index = index


# What puts the observations of N environments together: a new array [N, ...], or a tuple or dict of
# such. It raises a Misfit if one has another structure, shape or kind of numbers than its space.
Batch = Callable[[Sequence[Any]], Any]


def batch_of(space: gym.Space, name: str = "observation") -> Batch:
    """Make what puts observations of a space together.

    Args:
        space: of one observation: Box, Discrete, MultiDiscrete, MultiBinary, or Tuple and Dict of
            these.
        name: what a message calls the observation.
    """
    match space:
        case spaces.Tuple():
            parts = [batch_of(part, f"{name}[{k}]") for k, part in enumerate(space.spaces)]
            return _TupleBatch(parts, name)
        case spaces.Dict():
            named = {key: batch_of(part, f"{name}[{key!r}]") for key, part in space.items()}
            return _DictBatch(named, name)
    return _ArrayBatch(space, name)


class _TupleBatch:
    """Puts observations of a Tuple together."""

    def __init__(self, parts: list[Batch], name: str):
        self.parts, self.name = parts, name

    def __call__(self, observations: Sequence[Any]) -> tuple[Any, ...]:
        count = len(self.parts)
        for index, obs in enumerate(observations):
            if not isinstance(obs, tuple | list | np.ndarray) or len(obs) != count:
                raise Misfit(index, f"{self.name} {_shown(obs)} is no tuple of {count} parts")
        return tuple(part([obs[k] for obs in observations]) for k, part in enumerate(self.parts))


class _DictBatch:
    """Puts observations of a Dict together."""

    def __init__(self, parts: dict[Any, Batch], name: str):
        self.parts, self.name = parts, name

    def __call__(self, observations: Sequence[Any]) -> dict[Any, Any]:
        for index, obs in enumerate(observations):
            if not isinstance(obs, Mapping) or obs.keys() != self.parts.keys():
                keys = ", ".join(map(repr, self.parts))
                raise Misfit(index, f"{self.name} {_shown(obs)} is no dict of {keys}")
        return {key: part([obs[key] for obs in observations]) for key, part in self.parts.items()}


class _ArrayBatch:
    """Puts observations of a space that is one array together."""

    def __init__(self, space: gym.Space, name: str):
        assert space.shape is not None
        assert space.dtype is not None
        self.space, self.name = space, name
        self.shape, self.dtype = space.shape, space.dtype
        # A float may be rounded, which Gymnasium allows too; an integer must stay what it is.
        self.casting: Any = "same_kind" if np.issubdtype(space.dtype, np.floating) else "safe"
        # The lowest and highest category, of spaces that are categories.
        self.low: Any = None
        self.high: Any = None
        match space:
            case spaces.Discrete():
                self.low, self.high = int(space.start), int(space.start + space.n - 1)
            case spaces.MultiDiscrete():
                self.low, self.high = space.start, space.start + space.nvec - 1
            case spaces.MultiBinary():
                self.low, self.high = 0, 1

    def __call__(self, observations: Sequence[Any]) -> NDArray:
        try:
            batch = np.array(observations)
        except ValueError:  # they differ in shape
            batch = np.array(None)
        # Two comparisons for all: observations of a wrong kind or shape do not give a right batch.
        if batch.dtype != self.dtype or batch.shape[1:] != self.shape:
            batch = self._cast(batch, observations)
        if self.low is not None:
            # One-hot, a category that there is not would be all zeros.
            outside = (batch < self.low) | (batch > self.high)
            if np.count_nonzero(outside):
                index = int(np.argmax(outside.reshape(len(batch), -1).any(axis=1)))
                value = _shown(batch[index].tolist())
                raise Misfit(index, f"{self.name} {value} is not in {self.space}")
        return batch

    def _cast(self, batch: NDArray, observations: Sequence[Any]) -> NDArray:
        """Make the batch one of the space's type, all at once if that is safe; else one by one."""
        if batch.shape[1:] == self.shape and np.can_cast(batch.dtype, self.dtype, self.casting):
            with np.errstate(over="ignore"):  # becomes infinite, which is looked for later
                return batch.astype(self.dtype)
        return np.stack([self._cast_one(index, obs) for index, obs in enumerate(observations)])

    def _cast_one(self, index: int, obs: Any) -> NDArray:
        """Make one observation an array of the space's type and shape; a Misfit if it is none."""
        try:
            array = np.asarray(obs)
        except (ValueError, TypeError) as error:
            raise Misfit(index, f"{self.name} {_shown(obs)} is no array: {error}") from error
        if not np.can_cast(array.dtype, self.dtype, "same_kind"):
            wrong = f"{_shown(obs)} is of type {array.dtype}, and its space of {self.dtype}"
            raise Misfit(index, f"{self.name} {wrong}")
        if array.shape != self.shape:
            wrong = f"has shape {array.shape}, and its space {self.shape}: {self.space}"
            raise Misfit(index, f"{self.name} {wrong}")
        with np.errstate(over="ignore"):
            cast = array.astype(self.dtype)
        if self.casting == "safe" and (cast != array).any():
            raise Misfit(index, f"{self.name} {_shown(obs)} does not fit into {self.dtype}")
        return cast


def rewards(values: Sequence[Any]) -> NDArray[np.float64]:
    """Put rewards together, [N]; a Misfit if one is not one number."""
    return _scalars(values, "fiub", "reward {} is not one number").astype(np.float64)


def terminated(values: Sequence[Any]) -> NDArray[np.bool_]:
    """Put terminations together, [N]; a Misfit if one is neither True nor False."""
    flags = _scalars(values, "b", "terminated {} is neither True nor False")
    return flags.astype(np.bool_, copy=False)  # also where there are none


def truncated(values: Sequence[Any]) -> NDArray[np.bool_]:
    """Put truncations together, [N]; a Misfit if one is neither True nor False."""
    flags = _scalars(values, "b", "truncated {} is neither True nor False")
    return flags.astype(np.bool_, copy=False)  # also where there are none


def reset_problem(result: Any) -> str | None:
    """Say what is wrong with what a reset returned, but for its observation; None if all is well.

    Args:
        result: is to be (observation, info).
    """
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
        return None
    return f"reset returned {_shown(result)}, not (observation, info)"


def step_problem(result: Any) -> str | None:
    """Say whether a step returned something else than five things, the last of them a dict."""
    if isinstance(result, tuple) and len(result) == 5 and isinstance(result[4], dict):
        return None
    wanted = "(observation, reward, terminated, truncated, info)"
    return f"step returned {_shown(result)}, not {wanted}"


def _scalars(values: Sequence[Any], kinds: str, problem: str) -> NDArray:
    """Put scalars together, [N]; a Misfit for one that is not of these kinds (NumPy's letters)."""
    try:
        together = np.array(values)
    except ValueError:  # they differ in shape
        together = np.array(None)
    if together.dtype.kind in kinds and together.ndim == 1:
        return together
    for index, value in enumerate(values):
        if not _is_one(value, kinds):
            raise Misfit(index, problem.format(_shown(value)))
    return np.array([np.asarray(value).item() for value in values])


def _is_one(value: Any, kinds: str) -> bool:
    """Whether a value is one scalar of these kinds."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        return False
    return array.ndim == 0 and array.dtype.kind in kinds


def _shown(value: Any) -> str:
    """Show a value in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 2]} …"
