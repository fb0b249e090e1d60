"""Any environment that is registered with Gymnasium, by its id."""

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import DependencyNotInstalled, Error

from rlrun.config.types import Count
from rlrun.envs.actions import ActionUnits
from rlrun.envs.gymnasium_form import GymnasiumForm
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.envs.workers.vector import WorkerVectorEnv
from rlrun.errors import UserError, nearest


@dataclass(kw_only=True)
class GymEnv(GymnasiumForm):
    """A Gymnasium environment, N of which are stepped one after the other, or in workers.

    Attributes:
        id: as in ``gymnasium.make``, or ``module:Class`` of what is not registered; the module
            must be among the plugins.
        max_episode_steps: steps after which an episode is truncated; None: as registered.
        options: keyword arguments of the environment, as in ``gymnasium.make``.
        action_units: "box": a policy's −1…1 stands for low…high of a box of actions; "raw": its
            numbers are the actions (see :class:`~rlrun.envs.actions.ActionAdapter`).
        fresh_each_episode: make the environment anew for every episode, because its own reset
            leaves traces of earlier ones.
    """

    id: str
    max_episode_steps: Count | None
    options: dict[str, Any]
    action_units: ActionUnits
    fresh_each_episode: bool

    def __post_init__(self):
        """Check that there is such an environment, and its wrappers."""
        super().__post_init__()
        module, _, name = self.id.rpartition(":")
        if module and module not in sys.modules:
            # Not imported from here: an id that is read back from a run directory must not run
            # code that nobody asked for.
            raise ValueError(f"id {self.id!r} needs plugins=[{module}]")
        classes = environments_in(sys.modules[module]) if module else {}
        self._made_from: str | EnvSpec = self.id
        try:
            # The warning that an id is out of date comes again with the environment.
            with warnings.catch_warnings(action="ignore"):
                self._registered_limit = gym.spec(name).max_episode_steps
        except Error as error:
            if name not in classes:
                raise ValueError(
                    f"id {self.id!r} is not registered with Gymnasium"
                    f"{_remedy(name, module, classes)}"
                ) from error
            self._made_from = EnvSpec(name, entry_point=self.id)
            self._registered_limit = None

    @property
    def time_limit(self) -> int | None:
        """Steps after which an episode is truncated; None if it may go on for ever."""
        return self.limit(self.max_episode_steps or self._registered_limit)

    def remarks(self) -> list[str]:
        """Return what a user may not have meant: nothing."""
        return []

    def make(self, *, num_envs: int, threads: int) -> SerialVectorEnv | WorkerVectorEnv:
        """N environments in mode SAME_STEP.

        Args:
            num_envs: N.
            threads: not used: these environments are Python code, and only one thread at a time
                can run Python.

        Raises:
            UserError: the environment cannot be made.
        """
        del threads
        return self.make_vector(num_envs)

    def make_single(self, *, render_mode: str | None) -> gym.Env:
        """One Gymnasium environment with its wrappers.

        Args:
            render_mode: as in ``gymnasium.make``, e.g. ``"rgb_array"`` for video.

        Raises:
            UserError: the environment cannot be made.
        """
        if self.fresh_each_episode:
            return FreshEachEpisode(lambda: self._make(render_mode))
        return self._make(render_mode)

    def _make(self, render_mode: str | None) -> gym.Env:
        """``gymnasium.make``, with one line for every way in which it fails, and the wrappers."""
        # Not every environment takes a render_mode, so None is not passed on.
        rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        try:
            env = gym.make(
                self._made_from,
                max_episode_steps=self.max_episode_steps,
                **rendering,
                **self.options,
            )
        except DependencyNotInstalled as error:
            raise UserError(f"{self.id} needs a package: {_one_line(error)}") from error
        except Exception as error:
            # Anything else comes from the user's package or from the values in options.
            raise UserError(
                f"{self.id} cannot be made with options {self.options}: "
                f"{type(error).__name__}: {_one_line(error)}"
            ) from error
        return self.wrap(env)


class FreshEachEpisode(gym.Wrapper):
    """Makes its environment anew at every reset; only the random generator goes on.

    For environments whose reset leaves traces, such as Gymnasium's BipedalWalker-v3: it keeps one
    Box2D world, whose contacts come in an order that depends on earlier episodes, so an episode
    cannot be made again from its seed (LunarLander had the same fault: Gymnasium issue 728).
    """

    def __init__(self, make_env: Callable[[], gym.Env]):
        """Make the first environment."""
        super().__init__(make_env())
        self._make_env = make_env
        self._used = False

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]  # of a property, which mypy misses
        """What makes the environment again: this wrapper is no part of it."""
        return self.env.spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in a new environment."""
        if self._used:
            generator = self.env.unwrapped.np_random
            self.env.close()
            self.env = self._make_env()
            self.env.unwrapped.np_random = generator
        self._used = True
        return self.env.reset(seed=seed, options=options)


def environments_in(module: ModuleType) -> dict[str, type[gym.Env]]:
    """Return the environments that a module has, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, gym.Env)
    }


def _remedy(name: str, module: str, classes: Iterable[str]) -> str:
    """Ends a message with the id that looks most like this one, if any does.

    Args:
        name: what is no id.
        module: that is named with it, or nothing.
        classes: those that the module has.
    """
    ids = {registered.lower(): registered for registered in gym.registry}
    ids |= {each.lower(): f"{module}:{each}" for each in classes}
    match = nearest(name, ids)
    if match is None:
        return "; plugins=[package] imports the package that registers it; env.id=package:Class"
    return f"; did you mean '{ids[match]}'?"


def _one_line(error: Exception) -> str:
    """The message without its line breaks."""
    return " ".join(str(error).split())
