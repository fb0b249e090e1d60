"""What the environments of ``conf/env/`` are to the rest of rlrun: a spec, and what it makes."""

from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlrun.envs.actions import ActionUnits


class ResumableVectorEnv(Protocol):
    """A ``gymnasium.vector.VectorEnv`` in mode SAME_STEP that can be saved and stepped in part."""

    num_envs: int
    metadata: dict[str, Any]
    single_observation_space: gym.Space
    single_action_space: gym.Space

    def reset(self, *, seed: int | Sequence[int] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment."""

    def step(
        self, actions: Any, rows: NDArray[np.intp] | None = None
    ) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Advance all environments or ``rows``; those that end begin their next episode."""

    def close(self) -> None:
        """Release what the environments hold."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future, in plain containers and new arrays."""

    def load_state_dict(self, state: dict[str, Any]) -> dict[int, Any] | None:
        """Continue from ``state``.

        Returns:
            The first observation of every environment, by its index, that could not be put back
            into the middle of its episode and began another one; empty or None if all could.
        """


class EnvironmentSpec(Protocol):
    """What a file of ``conf/env/`` names: it makes any number of one kind of environment.

    Attributes:
        id: Gymnasium id.
        action_units: what the numbers of a policy mean.
    """

    @property
    def id(self) -> str: ...  # noqa: D102

    @property
    def action_units(self) -> ActionUnits: ...  # noqa: D102

    @property
    def time_limit(self) -> int | None:
        """Steps after which an episode is truncated; None if it may go on for ever."""

    def remarks(self) -> list[str]:
        """Return what a user may not have meant, a line each."""

    def make(self, *, num_envs: int, threads: int) -> ResumableVectorEnv:
        """Make N environments in mode SAME_STEP.

        Raises:
            UserError: the environment cannot be made.
        """

    def make_single(self, *, render_mode: str | None) -> gym.Env:
        """Make one Gymnasium environment, as those of `make` are.

        Raises:
            UserError: the environment cannot be made.
        """
