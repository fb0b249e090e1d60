"""N environments of one MuJoCo task, stepped in lockstep on threads."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_env import expand_model_path
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from rlrun.envs.mujoco.contact import STATE_FIELDS, ContactForceBatch
from rlrun.envs.mujoco.tasks.task import Bools, Floats, State, Task
from rlrun.envs.resets import seed_of_each, take_reset_mask
from rlrun.errors import EnvironmentFailure

# The kinds of warning, the last of MuJoCo's, after which it has reset the simulation (bad position,
# velocity or acceleration) or dropped the controls (bad control): NaN, infinite or beyond 1e10.
BAD_NUMBERS = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjNWARNING))


class MujocoVectorEnv(VectorEnv[Floats, Floats, NDArray[Any]]):
    """A ``gymnasium.vector.VectorEnv`` over a batch of MuJoCo simulations, in mode SAME_STEP.

    Observations, rewards, endings and resets equal those of ``gymnasium.vector.SyncVectorEnv`` over
    ``gymnasium.make(id)`` with the same seeds and actions. An episode that ends begins anew within
    the same step; ``infos["final_obs"]`` (an object array) and ``infos["_final_obs"]`` then hold
    the final observations and where they are. The arrays that ``reset`` and ``step`` return are
    new ones: a later step does not change them. Gymnasium's other infos (positions, the parts of
    the reward) are left out.

    A simulation that diverges raises, where MuJoCo resets it with a warning and Gymnasium goes on.

    Attributes:
        spec: Gymnasium's spec of one environment.
        task: what is simulated and paid for.
    """

    spec: EnvSpec

    def __init__(
        self,
        task: Task,
        *,
        num_envs: int,
        threads: int,
        spec: EnvSpec,
        render_mode: str | None = None,
    ):
        """Load the model and make the simulations.

        Args:
            task: what is simulated and paid for.
            num_envs: N, number of environments.
            threads: threads that simulate, the caller's included.
            spec: Gymnasium's of one environment; its ``max_episode_steps`` is the time limit.
            render_mode: None or "rgb_array".

        Raises:
            OSError: the model file is not there.
            ValueError: the model file is not a valid model.
            KeyError: the model lacks a body that the task looks for.
        """
        self.spec = spec
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.task = task
        self._model = model = load_model(task.xml_file)
        batch_type = ContactForceBatch if "cfrc_ext" in task.reads else Batch
        self._batch = batch_type(model, num_envs, min(threads, num_envs))
        # Integration state of a simulation at the model's defaults, as mj_resetData leaves it.
        self._default_state = self._batch.state[0].copy()
        # [N, 4], live: how often each simulation came upon a bad number since ``reset``.
        self._bad_numbers = self._batch.warning[:, BAD_NUMBERS, 1]
        self._ctrl = self._batch.bind("ctrl")
        fields = {name: self._batch.bind(name) for name in task.reads}
        self._state = State(model, task.frame_skip, fields)
        # To be saved too: they describe an earlier substep, so the state does not determine them.
        self._derived = {name: fields[name] for name in fields if name not in STATE_FIELDS}
        for field in self._derived.values():
            field.setflags(write=True)
        # What the reward compares with: copies, as the fields themselves change with the step.
        self._compared = {name: fields[name] for name in task.compares}
        self._before_fields = {name: field.copy() for name, field in self._compared.items()}
        self._before = State(model, task.frame_skip, self._before_fields)

        self._seeds: list[int | None] = [None] * num_envs
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._elapsed = np.zeros(num_envs, np.int64)
        limit = spec.max_episode_steps
        self._time_limit = np.iinfo(np.int64).max if limit is None else limit
        self._reset_needed = True
        self._painter: gym.Env | None = None

        low, high = model.actuator_ctrlrange.astype(np.float32).T
        # Both are evaluated here, so that a model that lacks what the task looks for fails at once.
        obs_size = task.observe(self._state).shape[1]
        task.outcome(self._before, np.zeros((num_envs, model.nu), np.float32), self._state)
        self.single_action_space = gym.spaces.Box(low, high, dtype=np.float32)
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (obs_size,), np.float64)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.metadata = {
            "autoreset_mode": AutoresetMode.SAME_STEP,
            "render_modes": ["rgb_array"],
            "render_fps": round(1.0 / self._state.dt),
        }

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode in every environment, or in some.

        Args:
            seed: environment i is seeded with ``seed + i``, or with ``seed[i]``; None goes on with
                the environment's random numbers.
            options: those that ``reset_mask``, [N] bool, leaves out go on with their episodes, as
                Gymnasium's do. No others are known.

        Returns:
            The first observations [N, D] float64, and no infos.

        Raises:
            EnvironmentFailure: a simulation failed.
            gymnasium.error.ResetNeeded: the first reset, or that after a failure, leaves some out.
            TypeError, ValueError: wrong number of seeds, a mask that is none, or other options.
        """
        seeds = seed_of_each(seed, self.num_envs)
        rows, others = take_reset_mask(options, self.num_envs)
        if others:
            raise ValueError(f"MujocoVectorEnv has no reset options but reset_mask, got {others}")
        if rows is None:
            rows = np.arange(self.num_envs)
            self._batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)  # clears the warnings
        elif self._reset_needed:
            raise gym.error.ResetNeeded("the first reset must be of all environments")
        for index in rows.tolist():
            value = seeds[index]
            if value is not None:
                self._generators[index], self._seeds[index] = seeding.np_random(value)
        self._begin_episodes(rows)
        self._remember()
        self._reset_needed = False
        return self.task.observe(self._state), {}

    def step(
        self, actions: Floats, rows: NDArray[np.intp] | None = None
    ) -> tuple[Floats, Floats, Bools, Bools, dict[str, Any]]:
        """Advance environments by one step; those that end begin their next episode.

        Args:
            actions: [N, A]; MuJoCo limits them to the control range.
            rows: the environments to advance, in order; None: all. The others stay untouched:
                their observation is the one they had, their reward 0, their episode goes on.

        Returns:
            Observations [N, D] float64, rewards [N] float64, terminated [N], truncated [N], infos.

        Raises:
            EnvironmentFailure: a simulation raised, diverged or was given NaN as action.
            gymnasium.error.ResetNeeded: before the first reset, or after a failure.
            ValueError: the actions have another shape.
        """
        if self._reset_needed:
            raise gym.error.ResetNeeded("reset the environment before its first step")
        action = np.asarray(actions)
        if action.shape != self.action_space.shape:
            raise ValueError(f"actions of shape {action.shape} for {self.action_space.shape}")

        if rows is None:
            self._ctrl[:] = action
            self._elapsed += 1
        else:
            self._ctrl[rows] = action[rows]
            self._elapsed[rows] += 1
        self._simulate(self._batch.step, rows, nstep=self.task.frame_skip)
        obs = self.task.observe(self._state)
        reward, terminated = self.task.outcome(self._before, action, self._state)
        truncated = self._elapsed >= self._time_limit
        if rows is not None:
            advanced = np.isin(np.arange(self.num_envs), rows)
            reward = np.where(advanced, reward, 0.0)
            terminated, truncated = terminated & advanced, truncated & advanced

        infos: dict[str, Any] = {}
        ended = terminated | truncated
        if np.count_nonzero(ended):
            (ended_rows,) = ended.nonzero()
            final_obs = np.empty(self.num_envs, dtype=object)  # filled with None
            for row in ended_rows.tolist():
                final_obs[row] = obs[row]
            infos = {"final_obs": final_obs, "_final_obs": ended}
            self._begin_episodes(ended_rows)
            # The other rows have not changed, so that observing all is observing these rows.
            obs = self.task.observe(self._state)
        self._remember()
        return obs, reward, terminated, truncated, infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Draw every environment with Gymnasium's camera; None without a render mode."""
        if self.render_mode is None:
            return None
        if self._painter is None:
            self._painter = gym.make(self.spec, render_mode=self.render_mode)
        painter: Any = self._painter.unwrapped
        frames = []
        for state in self._batch.state:
            mujoco.mj_setState(
                painter.model, painter.data, state, mujoco.mjtState.mjSTATE_INTEGRATION
            )
            mujoco.mj_forward(painter.model, painter.data)
            frames.append(painter.render())
        return tuple(frames)

    def close_extras(self, **kwargs: Any) -> None:
        """Release the renderer."""
        if self._painter is not None:
            self._painter.close()

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The random generator of every environment."""
        return tuple(self._generators)

    @property
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]
        """The seed of every environment; None for those that never got one."""
        return tuple(self._seeds)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides the future, in plain containers and new arrays."""
        return {
            "simulations": self._batch.state.copy(),
            "derived": {name: field.copy() for name, field in self._derived.items()},
            "elapsed": self._elapsed.copy(),
            "seeds": list(self._seeds),
            "generators": [generator.bit_generator.state for generator in self._generators],
            "reset_needed": self._reset_needed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()`` of the same task and number of environments."""
        self._batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)  # clears the warnings
        self._batch.state[:] = state["simulations"]
        for name, field in self._derived.items():
            field[:] = state["derived"][name]
        self._remember()
        self._elapsed[:] = state["elapsed"]
        self._seeds = list(state["seeds"])
        for generator, numbers in zip(self._generators, state["generators"], strict=True):
            generator.bit_generator.state = numbers
        self._reset_needed = state["reset_needed"]

    def _begin_episodes(self, rows: NDArray[np.intp]) -> None:
        """Reset some environments, as Gymnasium's ``reset`` does; the others stay untouched."""
        qpos, qvel = self._state.qpos, self._state.qvel
        self._batch.state[rows] = self._default_state
        for row in rows.tolist():  # indexing by Python's integers is faster than by NumPy's
            qpos[row], qvel[row] = self.task.draw_start(self._model, self._generators[row])
        self._simulate(self._batch.forward, rows)
        self._elapsed[rows] = 0

    def _remember(self) -> None:
        """Keep what the next step's reward compares with."""
        for name, field in self._compared.items():
            np.copyto(self._before_fields[name], field)

    def _simulate(self, compute: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Call the physics; a failing simulation becomes an EnvironmentFailure."""
        try:
            compute(*args, **kwargs)
        except SimulationError as error:
            self._reset_needed = True
            index = int(error.ids[0])
            raise EnvironmentFailure(index, self._seeds[index], error) from error
        if np.count_nonzero(self._bad_numbers):
            self._reset_needed = True
            index, kind = np.argwhere(self._bad_numbers)[0]
            kind += BAD_NUMBERS.start
            cause = mujoco.mju_warningText(int(kind), int(self._batch.warning[index, kind, 0]))
            raise EnvironmentFailure(int(index), self._seeds[index], FloatingPointError(cause))


def load_model(xml_file: str) -> mujoco.MjModel:
    """Read a model: a file of Gymnasium's assets by its name, or any by a path that begins so.

    From here on MuJoCo does not write its messages to MUJOCO_LOG.TXT in the working directory.
    """
    log = mujoco.MjLogConfig.get()
    log.logto_file = False
    # Some of Gymnasium's models use deprecated words, which is not this user's business.
    console, log.logto_console = log.logto_console, False
    log.set()
    try:
        return mujoco.MjModel.from_xml_path(expand_model_path(xml_file))
    finally:
        log.logto_console = console
        log.set()
