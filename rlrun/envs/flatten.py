"""Observations of any of Gymnasium's plain spaces as flat float32 vectors."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlrun.errors import UserError

# An array of two or more dimensions and more values than this is taken for an image: as a flat
# vector it would train an MLP of millions of weights, slowly and badly.
LARGEST_FLAT_GRID = 1024

# More inputs than this, one-hot or not, are refused: each is a row of weights, and a number in
# every row of every rollout.
LARGEST_OBSERVATION = 4096


def check_observation_space(space: gym.Space) -> None:
    """Refuse observations that no fixed, short vector stands for.

    Raises:
        UserError: an image, too many numbers in all parts together, or a space of no fixed size.
    """
    _check_kind(space)
    size = spaces.flatdim(space)
    if size > LARGEST_OBSERVATION:
        name = " ".join(str(space).split())
        raise UserError(
            f"observation space {name} is {size:,} inputs, a choice as one-hot, and "
            f"{LARGEST_OBSERVATION:,} is the most: observe features of it, a Box"
        )


def _check_kind(space: gym.Space) -> None:
    match space:
        case spaces.Dict():
            for subspace in space.values():
                _check_kind(subspace)
        case spaces.Tuple():
            for subspace in space.spaces:
                _check_kind(subspace)
        case spaces.Box():
            size = int(np.prod(space.shape))
            if len(space.shape) >= 2 and size > LARGEST_FLAT_GRID:
                shape = " x ".join(str(length) for length in space.shape)
                raise UserError(
                    f"observations that are images ({shape}) are not supported yet; where it is no "
                    "image, env.wrappers=[FlattenObservation] makes it a vector"
                )
        case spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            pass
        case _:
            raise UserError(
                f"observation space {space} is not supported: use Box, Discrete, MultiDiscrete, "
                "MultiBinary, or a Tuple or Dict of these"
            )


def flatten_batch(space: gym.Space, batch: Any) -> NDArray[np.float32]:
    """Flatten a batch as ``gymnasium.spaces.flatten`` does one observation.

    Args:
        space: of one observation.
        batch: N observations as a vector environment batches them: an array [N, ...], or a tuple
            or dict of such.

    Returns:
        A new array [N, D].
    """
    match space:
        case spaces.Box() | spaces.MultiBinary():
            return batch.reshape(len(batch), -1).astype(np.float32)
        case spaces.Discrete():
            return _one_hot(batch - space.start, int(space.n))
        case spaces.MultiDiscrete():
            sizes = space.nvec.ravel()
            codes = (batch - space.start).reshape(len(batch), -1)
            parts = [_one_hot(codes[:, k], int(size)) for k, size in enumerate(sizes)]
        case spaces.Tuple():
            parts = [
                flatten_batch(subspace, part)
                for subspace, part in zip(space.spaces, batch, strict=True)
            ]
        case spaces.Dict():
            parts = [flatten_batch(subspace, batch[key]) for key, subspace in space.items()]
    return np.concatenate(parts, axis=1)


def _one_hot(codes: NDArray, size: int) -> NDArray[np.float32]:
    """[N] integers below ``size`` -> [N, size]."""
    return (codes[:, None] == np.arange(size)).astype(np.float32)


def category_sizes(space: gym.Space) -> tuple[int, ...] | None:
    """Return how many values each part of a flat observation has, if all are categories.

    Args:
        space: of one observation.

    Returns:
        The sizes of the one-hot parts; None where a part is not a choice of one category.
    """
    match space:
        case spaces.Discrete():
            return (int(space.n),)
        case spaces.MultiDiscrete():
            return tuple(map(int, space.nvec.ravel()))
        case spaces.Tuple() | spaces.Dict():
            parts = space.spaces if isinstance(space, spaces.Tuple) else space.spaces.values()
            sizes = [category_sizes(part) for part in parts]
            return None if None in sizes else tuple(n for part in sizes if part for n in part)
    return None


def fits_bytes(space: gym.Space) -> bool:
    """Tell whether every number of a flat observation is a whole one from 0 to 255.

    Args:
        space: of one observation.
    """
    match space:
        case spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return True  # one-hot
        case spaces.Box():
            return space.dtype == np.uint8
        case spaces.Tuple() | spaces.Dict():
            parts = space.spaces if isinstance(space, spaces.Tuple) else space.spaces.values()
            return all(fits_bytes(part) for part in parts)
    return False
