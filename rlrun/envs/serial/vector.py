"""N Gymnasium environments, stepped one after the other, that can be saved in mid-episode."""

import copy
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray

from rlrun.envs import outputs
from rlrun.envs.flatten import check_observation_space
from rlrun.envs.outputs import Misfit, batch_of, reset_problem, step_problem
from rlrun.envs.resets import seed_of_each, take_reset_mask
from rlrun.envs.serial.episodes import RunningEpisodes, replay_episode, set_generator_state
from rlrun.errors import EnvironmentFailure, InvalidOutput, UserError, say


class SerialVectorEnv(VectorEnv):
    """A vector environment in mode SAME_STEP with exact snapshots of any environment that replays.

    Returns what ``gymnasium.vector.SyncVectorEnv(..., autoreset_mode=SAME_STEP)`` returns, in new
    arrays at every step, at less cost; an environment that returns what its spaces do not allow
    is named.

    Most environments cannot be copied (a Box2D world lives in C++), but an episode can be made
    again: the state of the environment's random generator before the episode's reset, and the
    actions since, decide everything. A snapshot holds these, and loading it resets and replays.
    That takes the time of the steps, at most one episode an environment.

    What is restored is ``env.unwrapped.np_random``, the generator that Gymnasium's reset seeds
    and that its wrappers use too. An environment or wrapper with random numbers of another source,
    or with a state that outlives its reset, does not replay: the observation or the generator
    differs at the end. Then it says so on stderr and begins another episode.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]], *, first_index: int = 0):
        """Make the environments.

        Args:
            env_fns: one function an environment; all must make the same kind.
            first_index: what messages call the first of them, which may be a share of more.

        Raises:
            UserError: an action is not one array or number, or observations cannot be used.
            ValueError: the environments' spaces differ.
        """
        self.envs: list[gym.Env] = []
        self._first_index = first_index
        try:
            self.envs.extend(make_env() for make_env in env_fns)
            action_shape = self._look_at_spaces()
        except BaseException:
            self.close_extras()
            raise

        self._batch = batch_of(self.single_observation_space)
        # The latest observation of every environment.
        self._current: list[Any] = [None] * self.num_envs
        self._episodes = RunningEpisodes(action_shape, self.action_space.dtype)

    def _look_at_spaces(self) -> tuple[int, ...]:
        """Take what is the same for all from the first environment; return the actions' shape."""
        first = self.envs[0]
        check_observation_space(first.observation_space)
        self.num_envs = len(self.envs)
        self.spec = first.spec
        self.render_mode = first.render_mode
        self.metadata = {**first.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = first.observation_space
        self.single_action_space = first.action_space
        for index, env in enumerate(self.envs):
            if (env.observation_space, env.action_space) != (
                first.observation_space,
                first.action_space,
            ):
                first_index = self._first_index
                raise ValueError(
                    f"environment {first_index + index} has other spaces than environment "
                    f"{first_index}"
                )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        if self.action_space.shape is None:  # Tuple, Dict and the like: not one array a batch
            raise UserError(f"action space {self.single_action_space} is not supported")
        return self.action_space.shape

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment, or in some.

        Args:
            seed: one an environment; an int means seed, seed + 1, ...; None goes on with the
                generators as they are.
            options: of every environment's reset. Plain containers, if it is to be saved. Those
                that ``reset_mask``, [N] bool, leaves out go on with their episodes, as
                Gymnasium's do.

        Returns:
            Observations [N, ...] and infos.

        Raises:
            EnvironmentFailure: an environment raised, or returned what its spaces do not allow.
            gymnasium.error.ResetNeeded: the first reset leaves some out.
            TypeError, ValueError: wrong number of seeds, or a mask that is none.
        """
        seeds = seed_of_each(seed, self.num_envs)
        chosen, env_options = take_reset_mask(options, self.num_envs)
        rows = range(self.num_envs) if chosen is None else chosen.tolist()
        if any(obs is None and index not in rows for index, obs in enumerate(self._current)):
            raise gym.error.ResetNeeded("the first reset must be of all environments")
        infos: dict[str, Any] = {}
        for index in rows:
            try:
                info = self._begin(index, seeds[index], env_options)
            except InvalidOutput:
                raise
            except (Exception, SystemExit) as cause:
                raise self._failure(index, cause) from cause
            infos = self._add_info(infos, info, index)
        return self.observations(), infos

    def step(
        self, actions: Any, rows: NDArray[np.intp] | None = None
    ) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Advance environments by one step; those that end begin their next episode at once.

        Args:
            actions: [N, ...].
            rows: the environments to advance, in order; None: all. The others stay untouched:
                their observation is the one they had, their reward 0, their episode goes on.

        Returns:
            Observations [N, ...], rewards [N] float64, terminated [N], truncated [N], and infos,
            where ``final_obs`` and ``_final_obs`` hold the last observation of ended episodes.

        Raises:
            EnvironmentFailure: an environment raised, or returned what its spaces do not allow.
        """
        # Cast first: what is recorded must be what the environments are given.
        actions = np.asarray(actions, self.action_space.dtype)
        self._episodes.append(actions, rows)
        stepped: Sequence[int] = range(self.num_envs)
        given: Iterable[Any] = iterate(self.action_space, actions)
        if rows is not None:
            stepped = rows.tolist()
            given = itertools.compress(given, np.isin(np.arange(self.num_envs), rows))
        rewards, terminated, truncated = [], [], []
        finals: dict[int, Any] = {}  # the last observations of ended episodes
        infos: dict[str, Any] = {}
        index = 0
        try:
            for index, action in zip(stepped, given, strict=True):
                result = self.envs[index].step(action)
                problem = step_problem(result)
                if problem is not None:
                    raise self._invalid(index, problem)
                obs, reward, ended, cut, info = result
                self._current[index] = obs
                rewards.append(reward)
                terminated.append(ended)
                truncated.append(cut)
                if ended or cut:
                    # A copy, as many an environment writes its next observation over this one.
                    finals[index] = copy.deepcopy(obs)
                    final = {"final_obs": finals[index], "final_info": info}
                    infos = self._add_info(infos, final, index)
                    info = self._begin(index, seed=None, options=None)
                if info:
                    infos = self._add_info(infos, info, index)
        except InvalidOutput:
            raise
        except (Exception, SystemExit) as cause:
            raise self._failure(index, cause) from cause
        if finals:
            self._together(self._batch, list(finals.values()), list(finals))  # to check them
        outcome = (
            self._together(outputs.rewards, rewards, stepped),
            self._together(outputs.terminated, terminated, stepped),
            self._together(outputs.truncated, truncated, stepped),
        )
        observations = self.observations()
        reward, over, late = (self._spread(column, rows) for column in outcome)
        return observations, reward, over, late, infos

    def observations(self) -> Any:
        """Put the latest observations together, [N, ...].

        Raises:
            InvalidOutput: one is not of its space.
        """
        return self._together(self._batch, self._current)

    def render(self) -> tuple[Any, ...]:
        """One frame an environment."""
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()

    def state_dict(self) -> dict[str, Any]:
        """What makes the running episodes again, and what to compare the result with."""
        return {"environments": self._episodes.save(self.envs, self._current)}

    def load_state_dict(self, state: dict[str, Any]) -> dict[int, Any]:
        """Make the episodes of ``state_dict()`` again, and say so where that did not succeed.

        Returns:
            As `replay`.

        Raises:
            EnvironmentFailure: an environment raised.
        """
        restarted = self.replay(state["environments"])
        if restarted:
            say_restarted(self.name)
        return restarted

    def replay(self, saved_envs: Sequence[dict[str, Any]]) -> dict[int, Any]:
        """Make the episodes of ``state_dict()["environments"]`` again.

        Returns:
            The first observation of every environment, by its index, that did not arrive at the
            stored state and began another episode; empty if all did.

        Raises:
            EnvironmentFailure: an environment raised.
        """
        self._episodes.load(saved_envs)
        restarted = {}
        for index, (env, saved) in enumerate(zip(self.envs, saved_envs, strict=True)):
            try:
                self._current[index] = replay_episode(env, saved)
                if self._current[index] is None:
                    set_generator_state(env, saved["generator"])
                    self._begin(index, seed=None, options=None)
                    restarted[index] = self._current[index]
            except InvalidOutput:
                raise
            except (Exception, SystemExit) as cause:
                raise self._failure(index, cause) from cause
        return restarted

    @property
    def name(self) -> str:
        """What messages call this kind of environment."""
        return self.spec.id if self.spec else type(self.envs[0].unwrapped).__name__

    def _begin(
        self, index: int, seed: int | None, options: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Reset environment ``index``, remember how, and return the info."""
        env = self.envs[index]
        self._episodes.begin(index, env, seed, options)
        result = env.reset(seed=seed, options=options)
        problem = reset_problem(result)
        if problem is not None:
            raise self._invalid(index, problem)
        self._current[index], info = result
        return info

    def _together(
        self,
        batch: Callable[[Sequence[Any]], Any],
        values: Sequence[Any],
        rows: Sequence[int] | None = None,
    ) -> Any:
        """Put what some environments (None: all) returned together, or name the one at fault."""
        try:
            return batch(values)
        except Misfit as misfit:
            index = misfit.index if rows is None else rows[misfit.index]
            raise self._invalid(index, str(misfit)) from None

    def _spread(self, values: NDArray, rows: NDArray[np.intp] | None) -> NDArray:
        """Values of some environments (None: all) -> [N], zero for the others."""
        if rows is None:
            return values
        spread = np.zeros(self.num_envs, values.dtype)
        spread[rows] = values
        return spread

    def _failure(self, index: int, cause: BaseException) -> EnvironmentFailure:
        """Name the environment that raised."""
        return EnvironmentFailure(self._first_index + index, self._episodes.seed(index), cause)

    def _invalid(self, index: int, problem: str) -> InvalidOutput:
        """Name the environment that returned what cannot be used."""
        return InvalidOutput(self._first_index + index, self._episodes.seed(index), problem)


def say_restarted(name: str) -> None:
    """Say on stderr that episodes could not be made again.

    Args:
        name: of the kind of environment.
    """
    say(f"environment {name} does not replay exactly: its episode starts anew", sys.stderr)
