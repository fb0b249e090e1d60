"""N Gymnasium environments in worker processes, each of which steps its share of them."""

import itertools
import selectors
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlrun.envs.resets import seed_of_each, take_reset_mask
from rlrun.envs.serial.vector import SerialVectorEnv, say_restarted
from rlrun.envs.workers.joined import joined, joined_infos
from rlrun.envs.workers.process import Kind, replay
from rlrun.envs.workers.worker import Worker
from rlrun.errors import UserError, WorkerFailure

# Seconds that a worker may take to start before it calls its first environment.
STARTING_S = 120.0

# Seconds between two looks at whether workers that have not answered are at work, at most.
LOOK_S = 1.0

# Seconds that all have to close their environments before they are killed.
CLOSING_S = 10.0


class WorkerVectorEnv(VectorEnv):
    """What `SerialVectorEnv` is, with the environments in processes of their own.

    Seeds, data and states are the same, whatever the number of workers. An environment that takes
    its process with it, or hangs, is named like one that raises.
    """

    def __init__(
        self,
        make_env: Callable[[], gym.Env],
        *,
        num_envs: int,
        workers: int,
        timeout: float,
        plugins: Sequence[str],
    ):
        """Start the processes, and have them make the environments.

        Args:
            make_env: makes one environment; is sent to the workers.
            num_envs: N.
            workers: processes, at most N.
            timeout: seconds that one call of an environment may take.
            plugins: the user's packages, which the workers import first.

        Raises:
            UserError: the environments cannot be made, or not in processes of their own.
            WorkerFailure: a process ended, or hung, before it had made them.
            ValueError: their spaces differ.
        """
        self.num_envs = num_envs
        self._timeout = timeout
        self._seeds: list[int | None] = [None] * num_envs
        self._workers: list[Worker] = []
        # The processes that are gone or killed, and why.
        self._lost: dict[Worker, Exception] = {}
        self._selector = selectors.DefaultSelector()
        bounds = [num_envs * k // workers for k in range(workers + 1)]
        try:
            for start, stop in itertools.pairwise(bounds):
                worker = Worker(make_env, range(start, stop), plugins)
                self._workers.append(worker)
                self._selector.register(worker.connection, selectors.EVENT_READ, worker)
            self._look_at_spaces(self._answers(self._workers))
        except OSError as error:
            self.close_extras()
            raise UserError(f"env.workers={workers}: {error}") from error
        except BaseException:
            self.close_extras()
            raise
        # The latest observations of each worker's environments.
        self._latest: dict[Worker, Any] = {}

    def _look_at_spaces(self, kinds: Sequence[Kind]) -> None:
        """Take what is the same for all from the first worker."""
        first = kinds[0]
        spaces = first.observation_space, first.action_space
        self.name = first.name
        self.metadata = first.metadata
        self.single_observation_space = first.observation_space
        self.single_action_space = first.action_space
        for worker, kind in zip(self._workers, kinds, strict=True):
            if (kind.observation_space, kind.action_space) != spaces:
                raise ValueError(
                    f"environment {worker.rows[0]} has other spaces than environment 0"
                )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment, or in some: see `SerialVectorEnv.reset`.

        Raises:
            EnvironmentFailure: an environment raised, or returned what its spaces do not allow.
            gymnasium.error.ResetNeeded: the first reset leaves some out.
            TypeError, ValueError: wrong number of seeds, or a mask that is none.
        """
        seeds = seed_of_each(seed, self.num_envs)
        chosen, env_options = take_reset_mask(options, self.num_envs)
        if chosen is None:
            chosen = np.arange(self.num_envs)
        elif len(self._latest) < len(self._workers):
            raise gym.error.ResetNeeded("the first reset must be of all environments")
        for index in chosen.tolist():
            if seeds[index] is not None:
                self._seeds[index] = seeds[index]
        asked = []
        for worker in self._workers:
            mask = np.isin(worker.rows, chosen)
            if mask.any():
                asked.append(worker)
                mine = env_options
                if not mask.all():
                    mine = {**(env_options or {}), "reset_mask": mask}
                share = seeds[worker.rows.start : worker.rows.stop]
                worker.ask(SerialVectorEnv.reset, seed=share, options=mine)
        infos = {}
        for worker, (obs, info) in zip(asked, self._answers(asked), strict=True):
            self._latest[worker] = obs
            infos[worker.rows] = info
        return self._observations(), joined_infos(infos, self.num_envs)

    def step(
        self, actions: Any, rows: NDArray[np.intp] | None = None
    ) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Advance environments by one step: see `SerialVectorEnv.step`.

        Raises:
            EnvironmentFailure: an environment raised, or returned what its spaces do not allow.
        """
        actions = np.asarray(actions, self.action_space.dtype)
        asked = []
        for worker in self._workers:
            start, stop = worker.rows.start, worker.rows.stop
            mine = None
            if rows is not None:
                mine = rows[(start <= rows) & (rows < stop)] - start
                if len(mine) == 0:
                    continue
            worker.ask(SerialVectorEnv.step, actions[start:stop], mine)
            asked.append(worker)
        rewards = np.zeros(self.num_envs, np.float64)
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        infos = {}
        for worker, answer in zip(asked, self._answers(asked), strict=True):
            share = slice(worker.rows.start, worker.rows.stop)
            self._latest[worker], rewards[share], terminated[share], truncated[share], info = answer
            infos[worker.rows] = info
        return (
            self._observations(),
            rewards,
            terminated,
            truncated,
            joined_infos(infos, self.num_envs),
        )

    def state_dict(self) -> dict[str, Any]:
        """What `SerialVectorEnv.state_dict` returns."""
        for worker in self._workers:
            worker.ask(SerialVectorEnv.state_dict)
        states = self._answers(self._workers)
        return {"environments": [saved for state in states for saved in state["environments"]]}

    def load_state_dict(self, state: dict[str, Any]) -> dict[int, Any]:
        """Make the episodes of a ``state_dict()`` again: see `SerialVectorEnv.load_state_dict`.

        Raises:
            EnvironmentFailure: an environment raised.
        """
        saved_envs = state["environments"]
        self._seeds = [saved["seed"] for saved in saved_envs]
        for worker in self._workers:
            share = saved_envs[worker.rows.start : worker.rows.stop]
            worker.ask(replay, share)
        restarted: dict[int, Any] = {}
        for worker, answer in zip(self._workers, self._answers(self._workers), strict=True):
            self._latest[worker], first_observations = answer
            restarted |= {worker.rows[i]: obs for i, obs in first_observations.items()}
        if restarted:
            say_restarted(self.name)
        return restarted

    def close_extras(self, **kwargs: Any) -> None:
        """Have the workers close their environments and end."""
        for worker in self._workers:
            worker.let_go()
        deadline = time.monotonic() + CLOSING_S
        for worker in self._workers:
            worker.join(deadline - time.monotonic())
        self._selector.close()

    def _observations(self) -> Any:
        """Put the latest observations of all workers together, [N, ...]."""
        return joined([self._latest[worker] for worker in self._workers])

    def _answers(self, asked: Sequence[Worker]) -> list[Any]:
        """Wait for the answers of the workers that were asked, in their order.

        Raises:
            UserError, WorkerFailure: of the first one that has none.
        """
        for lost in self._lost.values():
            raise lost
        answers: dict[Worker, Any] = {}
        failures: dict[Worker, Exception] = {}
        # How many calls each had begun, and for how many seconds it is silent since. Waited for,
        # and not by the clock, which goes on where all processes are suspended.
        waiting = {worker: (worker.calls, 0.0) for worker in asked}
        look = min(LOOK_S, self._timeout / 4)
        while waiting:
            ready = self._selector.select(look)
            for key, _ in ready:
                worker = key.data
                waiting.pop(worker, None)  # one that was not asked can have ended all the same
                try:
                    answers[worker] = worker.answer()
                except WorkerFailure as error:
                    failures[worker] = error
                except UserError as error:
                    self._lose(worker, error)
                except (EOFError, OSError):
                    problem = f"its worker process {worker.how_it_ended()}"
                    self._lose(worker, self._failure(worker, problem))
            if not ready:
                self._count_silence(waiting, look)
        failures |= self._lost
        for worker in self._workers:
            if worker in failures:
                raise failures[worker]
        return [answers[worker] for worker in asked]

    def _count_silence(self, waiting: dict[Worker, tuple[int, float]], seconds: float) -> None:
        """Kill the workers whose environments do not come back from a call.

        Args:
            waiting: see `_answers`; is brought up to date.
            seconds: for which none of them has answered.
        """
        for worker, (calls, silent) in list(waiting.items()):
            limit = self._timeout if worker.calls else max(self._timeout, STARTING_S)
            silent = silent + seconds if worker.calls == calls else 0.0
            waiting[worker] = (worker.calls, silent)
            if silent >= limit:
                del waiting[worker]
                worker.kill()
                problem = f"it hangs: no end of a call after {limit:g} s (env.worker_timeout)"
                self._lose(worker, self._failure(worker, problem))

    def _lose(self, worker: Worker, reason: Exception) -> None:
        """Expect no more of a worker."""
        self._selector.unregister(worker.connection)
        self._lost[worker] = reason

    def _failure(self, worker: Worker, problem: str) -> WorkerFailure:
        """Name the environment that a worker called last."""
        index = worker.last_called
        seed = self._seeds[index]
        return WorkerFailure(index, seed, f"environment {index} (seed {seed}): {problem}")
