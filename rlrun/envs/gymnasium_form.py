"""What the environments that Gymnasium makes have in common: wrappers, and who steps them."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import gymnasium as gym
from annotated_types import Ge, Le

from rlrun.config.types import PositiveOrInfinite
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.envs.workers.vector import WorkerVectorEnv
from rlrun.envs.wrappers import limit_of_wrapped, read_wrappers, wrap
from rlrun.errors import UserError

# More processes than any machine has cores, and few enough that it can start them.
Workers = Annotated[int, Ge(0), Le(1024)]


@dataclass(kw_only=True)
class GymnasiumForm(ABC):
    """How an environment's Gymnasium form is wrapped, and which processes step it.

    Configs of before these settings have none of them.

    Attributes:
        wrappers: around each environment, the first one innermost: names, or mappings with a name
            and the wrapper's arguments.
        plugins: the user's packages, imported, that environments and wrappers may be from.
        workers: processes that step the environments; 0: that of the run.
        worker_timeout: seconds that one call of an environment in a worker may take.
    """

    wrappers: list[str | dict[str, Any]] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    workers: Workers = 0
    worker_timeout: PositiveOrInfinite = 300.0

    def __post_init__(self):
        """Check the wrappers.

        Raises:
            UserError: there is no such wrapper, or it has other arguments.
        """
        for plugin in self.plugins:
            # Not imported from here, nor in a worker: a config that is read back from a run
            # directory must not run code that nobody asked for.
            if plugin not in sys.modules:
                raise UserError(f"env.plugins: {plugin} is not imported: plugins=[{plugin}]")
        self._wrappings = read_wrappers(self.wrappers, self.plugins)

    @abstractmethod
    def make_single(self, *, render_mode: str | None) -> gym.Env:
        """Make one environment with its wrappers."""

    def wrap(self, env: gym.Env) -> gym.Env:
        """Put the wrappers around an environment, which is closed if one does not fit.

        Raises:
            UserError: one does not.
        """
        try:
            return wrap(env, self._wrappings)
        except UserError:
            env.close()
            raise

    def limit(self, registered: int | None) -> int | None:
        """Return the steps after which an episode is truncated.

        Args:
            registered: those of the environment without its wrappers; None: it has no limit.
        """
        return limit_of_wrapped(registered, self._wrappings)

    def make_vector(self, num_envs: int) -> SerialVectorEnv | WorkerVectorEnv:
        """Make N environments in mode SAME_STEP.

        Raises:
            UserError: the environment cannot be made, or not in a worker.
        """
        make_env = partial(self.make_single, render_mode=None)
        if self.workers == 0:
            return SerialVectorEnv([make_env] * num_envs)
        return WorkerVectorEnv(
            make_env,
            num_envs=num_envs,
            workers=min(self.workers, num_envs),
            timeout=self.worker_timeout,
            plugins=self.plugins,
        )
