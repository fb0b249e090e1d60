"""What may be asked of a vector environment's reset: seeds, and which environments."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def seed_of_each(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """Spread a reset's seed over N environments.

    Args:
        seed: s means s, s + 1, ...; None means None for all.
        num_envs: N.

    Raises:
        ValueError: wrong number of seeds.
    """
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, int | np.integer):
        return [int(seed) + index for index in range(num_envs)]
    if len(seed) != num_envs:
        raise ValueError(f"{len(seed)} seeds for {num_envs} environments")
    return list(seed)


def take_reset_mask(
    options: dict[str, Any] | None, num_envs: int
) -> tuple[NDArray[np.intp] | None, dict[str, Any] | None]:
    """Take Gymnasium's ``reset_mask``, which environments begin anew, out of a reset's options.

    Args:
        options: of the vector environment's reset; left as they are.
        num_envs: N.

    Returns:
        The environments to reset, in order, None for all; and the options of each one's reset.

    Raises:
        TypeError: the mask is no array of booleans.
        ValueError: its shape is not [N], or it leaves all out.
    """
    if options is None or "reset_mask" not in options:
        return None, options
    others = {key: value for key, value in options.items() if key != "reset_mask"}
    mask = options["reset_mask"]
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"options['reset_mask'] must be a NumPy array of booleans, got {mask!r}")
    if mask.shape != (num_envs,):
        raise ValueError(f"options['reset_mask'] must be of shape ({num_envs},), got {mask.shape}")
    if not mask.any():
        raise ValueError("options['reset_mask'] leaves all environments out")
    return mask.nonzero()[0], others
