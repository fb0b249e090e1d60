"""An environment's own observations: the arrays that they are made of, and one vector of them.

Training flattens with NumPy (``envs/flatten.py``); here are the same numbers by operations of
torch, which can be exported.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rlrun.envs.outputs import Misfit, batch_of
from rlrun.errors import UserError


@dataclass(frozen=True)
class Leaf:
    """One array of an observation, which is that array or a Tuple or Dict of several.

    Attributes:
        name: "obs"; "obs.position" in a Dict, "obs.0" in a Tuple.
        space: Box, Discrete, MultiDiscrete or MultiBinary.
    """

    name: str
    space: gym.Space

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one observation."""
        return self.space.shape or ()

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensors that `flatten` takes: float32 for all floats, as policies compute so."""
        if np.issubdtype(self.space.dtype, np.floating):
            return torch.float32
        return torch_dtype(self.space)

    def flatten(self, values: Tensor) -> Tensor:
        """Return this part of flat observations, [N, ...] -> [N, d] float32; choices as one-hot."""
        match self.space:
            case spaces.Discrete():
                return one_hot(values - int(self.space.start), int(self.space.n))
            case spaces.MultiDiscrete():
                start = torch.from_numpy(np.ravel(self.space.start)).to(values.device)
                sizes = np.ravel(self.space.nvec).tolist()
                codes = values.reshape(values.shape[0], len(sizes)) - start
                return torch.cat([one_hot(codes[:, k], n) for k, n in enumerate(sizes)], -1)
        return values.reshape(values.shape[0], int(np.prod(self.shape))).float()


def torch_dtype(space: gym.Space) -> torch.dtype:
    """Return torch's type for the numbers of a space."""
    assert space.dtype is not None
    return torch.from_numpy(np.zeros(0, space.dtype)).dtype


def one_hot(codes: Tensor, size: int) -> Tensor:
    """[N] integers below ``size`` -> [N, size] float32."""
    return (codes.unsqueeze(-1) == torch.arange(size, device=codes.device)).float()


def leaves_of(space: gym.Space, name: str = "obs") -> list[Leaf]:
    """Return the arrays of an observation, in the order in which they are flattened.

    Args:
        space: of one observation.
        name: what it is called.
    """
    match space:
        case spaces.Dict():
            named = [(f"{name}.{key}", part) for key, part in space.items()]
        case spaces.Tuple():
            named = [(f"{name}.{index}", part) for index, part in enumerate(space.spaces)]
        case _:
            return [Leaf(name, space)]
    return [leaf for path, part in named for leaf in leaves_of(part, path)]


class Batch(NamedTuple):
    """Observations that somebody gave.

    Attributes:
        arrays: of each leaf, [N, ...].
        single: whether it was one observation, and no batch of them.
        device: of the tensors that they were; None: they were no tensors.
    """

    arrays: list[NDArray]
    single: bool
    device: torch.device | None


def read_batch(space: gym.Space, obs: Any) -> Batch:
    """Take one observation, or a batch of N as a vector environment makes it, apart.

    Args:
        space: of one observation.
        obs: arrays or tensors (of any float type where the space is one of floats), numbers or
            lists; for a Tuple or Dict one of such.

    Raises:
        UserError: it is no observation of this space, nor a batch.
    """
    arrays: list[NDArray] = []
    singles: list[bool] = []
    device: torch.device | None = None
    for leaf, value in _parts(space, obs, "obs"):
        if isinstance(value, Tensor):
            device = value.device
            value = value.detach().cpu().numpy()
        array = _as_array(leaf, value)
        singles.append(array.ndim == len(leaf.shape))
        arrays.append(array[None] if singles[-1] else array)
        if arrays[-1].shape[1:] != leaf.shape:
            raise UserError(
                f"{leaf.name} has shape {array.shape}, and its space {leaf.shape}, or (N, …) of a "
                f"batch: {_one_line(leaf.space)}"
            )
        try:
            arrays[-1] = batch_of(leaf.space, leaf.name)(list(arrays[-1]))
        except Misfit as misfit:
            raise UserError(str(misfit)) from misfit
    if len({(single, len(array)) for single, array in zip(singles, arrays, strict=True)}) > 1:
        raise UserError("obs: one part has more observations than another")
    return Batch(arrays, singles[0], device)


def _parts(space: gym.Space, obs: Any, name: str) -> Iterator[tuple[Leaf, Any]]:
    """Yield what an observation has for each leaf."""
    match space:
        case spaces.Dict():
            if not isinstance(obs, Mapping) or obs.keys() != space.keys():
                keys = ", ".join(map(repr, space.keys()))
                raise UserError(f"{name} is no dict of {keys}")
            for key, part in space.items():
                yield from _parts(part, obs[key], f"{name}.{key}")
        case spaces.Tuple():
            if not isinstance(obs, Sequence) or len(obs) != len(space.spaces):
                raise UserError(f"{name} is no tuple of {len(space.spaces)} parts")
            for index, part in enumerate(space.spaces):
                yield from _parts(part, obs[index], f"{name}.{index}")
        case _:
            yield Leaf(name, space), obs


def _as_array(leaf: Leaf, value: Any) -> NDArray:
    try:
        array = np.asarray(value)
    except ValueError as error:  # a list of lists that differ in length
        raise UserError(f"{leaf.name} is no array: {error}") from error
    if not np.issubdtype(array.dtype, np.number) and array.dtype != np.bool_:
        raise UserError(f"{leaf.name} is of type {array.dtype}, and no numbers")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise UserError(f"{leaf.name} is not finite")
    return array


def _one_line(space: gym.Space) -> str:
    return " ".join(str(space).split())
