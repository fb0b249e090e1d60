import io
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from rlrun.envs.actions import ActionUnits
from rlrun.envs.control import ControlEnv
from rlrun.envs.gym_env import GymEnv
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.errors import EnvironmentFailure, NonFiniteError, UserError

INFINITE = np.full(2, np.inf, np.float32)


class Echo(gym.Env):
    """Observes what it is given; counts its steps and ends after ``length`` of them.

    Observation: (episode, step, action...), so every array says where it comes from.
    """

    def __init__(
        self,
        length: int = 3,
        *,
        action_space: gym.Space | None = None,
        truncates: bool = False,
        reward: float = 0.1,
    ):
        self.length, self.truncates, self.reward = length, truncates, reward
        self.action_space = action_space or spaces.Discrete(3)
        self.observation_space = spaces.Box(
            -np.inf, np.inf, (2 + spaces.flatdim(self.action_space),), np.float64
        )
        self.episode = -1

    def _obs(self, action):
        flat = spaces.flatten(self.action_space, action)
        return np.concatenate([[self.episode, self.elapsed], flat]).astype(np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.elapsed = 0
        return np.array([self.episode, 0.0, *[0.0] * (self.observation_space.shape[0] - 2)]), {}

    def step(self, action):
        self.elapsed += 1
        over = self.elapsed == self.length
        terminated, truncated = over and not self.truncates, over and self.truncates
        return self._obs(action), self.reward, terminated, truncated, {}


class Still(gym.Env):
    """Has the spaces that it is given and never moves."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}


def control(*envs: gym.Env, units: ActionUnits = "raw") -> ControlEnv:
    vector_env = SerialVectorEnv([lambda env=env: env for env in envs])
    return ControlEnv(vector_env, action_units=units)


def gym_env(env_id: str, limit: int | None) -> GymEnv:
    return GymEnv(
        id=env_id,
        max_episode_steps=limit,
        options={},
        action_units="raw",
        fresh_each_episode=False,
    )


def actions(*values: int) -> Tensor:
    return torch.tensor(values)


def rows(*indices: int) -> Tensor:
    return torch.tensor(indices, dtype=torch.int64)


def test_successors_are_true_ones():
    env = control(Echo(length=2), Echo(length=3, truncates=True))
    assert (env.num_envs, env.obs_size) == (2, 5)
    assert env.reset(seed=0)[:, :2].tolist() == [[0, 0], [0, 0]]

    step = env.step(actions(0, 1))
    assert step.obs.dtype == step.next_obs.dtype == step.reward.dtype == torch.float32
    assert step.terminated.dtype == step.truncated.dtype == torch.bool
    assert {column.device for column in step} == {env.device}
    assert step.obs.tolist() == [[0, 1, 1, 0, 0], [0, 1, 0, 1, 0]]
    assert step.next_obs.tolist() == step.obs.tolist()

    step = env.step(actions(2, 1))
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [False, False]
    assert step.obs[:, :2].tolist() == [[1, 0], [0, 2]]  # the next episode's first
    assert step.next_obs[:, :2].tolist() == [[0, 2], [0, 2]]  # this episode's last
    assert step.next_obs[0, 2:].tolist() == [0, 0, 1]
    assert env.obs is step.obs

    step = env.step(actions(0, 0))
    assert step.terminated.tolist() == [False, False]
    assert step.truncated.tolist() == [False, True]
    assert step.obs[:, :2].tolist() == [[1, 1], [1, 0]]
    assert step.next_obs[:, :2].tolist() == [[1, 1], [0, 3]]


class Reusing(SerialVectorEnv):
    """Returns the same arrays at every step, as some vector environments do."""

    arrays: tuple = ()

    def step(self, actions):
        *results, infos = super().step(actions)
        self.arrays = self.arrays or tuple(results)
        for array, result in zip(self.arrays, results, strict=True):
            array[...] = result
        return *self.arrays, infos


def test_tensors_are_new_at_every_step():
    env = ControlEnv(
        Reusing([lambda: Echo(length=2), lambda: Echo(length=3, truncates=True)]),
        action_units="raw",
    )
    env.reset(seed=0)
    steps = [env.step(actions(0, 1)) for _ in range(6)]
    copies = [[column.clone() for column in step] for step in steps]
    for _ in range(7):
        env.step(actions(2, 2))
    for step, copied in zip(steps, copies, strict=True):
        for column, copy in zip(step, copied, strict=True):
            assert torch.equal(column, copy)


def test_episodes_are_counted_in_double_precision():
    env = control(Echo(length=1000, reward=0.1), Echo(length=600, reward=1e9 + 1))
    env.reset(seed=0)
    for _ in range(1000):
        env.step(actions(0, 0))
    short, long = env.drain_episodes()
    assert short == (600 * (1e9 + 1), 600)
    assert long == (pytest.approx(100.0, abs=1e-9), 1000)
    assert env.drain_episodes() == []
    for _ in range(200):
        env.step(actions(0, 0))
    assert env.drain_episodes() == [(600 * (1e9 + 1), 600)]


def test_reset_forgets_the_running_episodes_but_not_the_ended_ones():
    env = control(Echo(length=3))
    env.reset(seed=0)
    for _ in range(4):
        env.step(actions(0))
    env.reset(seed=0)
    assert [length for _, length in env.drain_episodes()] == [3]
    for _ in range(3):
        env.step(actions(0))
    assert [length for _, length in env.drain_episodes()] == [3]


def test_observes_a_tuple_as_one_hot():
    spec = gym_env("Blackjack-v1", limit=None)
    env = ControlEnv.make(spec, num_envs=4, threads=1)
    assert env.obs_size == 32 + 11 + 2
    obs = env.reset(seed=0)
    for _ in range(20):
        assert (obs.sum(axis=1) == 3).all()
        step = env.step(actions(0, 1, 0, 1))
        assert (step.next_obs.sum(axis=1) == 3).all()
        # Who sticks sees the same hand at the end, not the next deal.
        assert (step.next_obs[::2] == obs[::2]).all()
        obs = step.obs


def test_actions_are_clipped_to_the_box_and_only_there():
    low = np.array([[-0.5, -np.inf], [-1.0, 0.0]])
    high = np.array([[0.1, np.inf], [np.inf, 2.0]])
    env = control(*[Echo(action_space=spaces.Box(low, high, dtype=np.float64)) for _ in range(2)])
    assert env.action_space == spaces.Box(
        low.ravel().astype(np.float32), high.ravel().astype(np.float32)
    )
    env.reset(seed=0)
    action = torch.tensor([[-9, -1e9, 1e9, 9], [9, 3, -9, -9]])
    step = env.step(action)
    assert step.obs[:, 2:].tolist() == [
        [-0.5, -1e9, 1e9, 2.0],
        [np.float32(0.1), 3.0, -1.0, 0.0],
    ]
    assert action[0, 0] == -9  # the caller's tensor is left alone


def test_clips_in_the_precision_of_the_environment():
    class Strict(Echo):
        def step(self, action):
            assert self.action_space.contains(action)
            return super().step(action)

    env = control(Strict(action_space=spaces.Box(-0.1, 0.1, (1,), np.float64)))
    env.reset(seed=0)
    env.step(torch.tensor([[0.1]]))  # float32(0.1) > 0.1


def test_discrete_actions_count_from_zero():
    env = control(Echo(action_space=spaces.Discrete(3, start=-1)))
    assert env.action_space == spaces.Discrete(3)
    env.reset(seed=0)
    for action, one_hot in ((0, [1, 0, 0]), (2, [0, 0, 1])):
        assert env.step(actions(action)).obs[0, 2:].tolist() == one_hot


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Box(0, 9, (2,), np.int64),
        spaces.Dict({"steer": spaces.Discrete(3)}),
    ],
    ids=str,
)
def test_refuses_actions(space):
    with pytest.raises(UserError, match=rf"action space {type(space).__name__}.*not supported"):
        control(Still(spaces.Box(-INFINITE, INFINITE), space))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_refuses_other_autoreset_modes(mode):
    with pytest.raises(UserError, match=rf"SyncVectorEnv.*{mode.name}.*needs.*SAME_STEP"):
        ControlEnv(SyncVectorEnv([Echo], autoreset_mode=mode), action_units="raw")


def test_takes_gymnasiums_own_vector_environment():
    vector_env = SyncVectorEnv([Echo] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    env = ControlEnv(vector_env, action_units="raw")
    env.reset(seed=0)
    for _ in range(3):
        step = env.step(actions(0, 1))
    assert step.next_obs[:, :2].tolist() == [[0, 3], [0, 3]]
    assert step.obs[:, :2].tolist() == [[1, 0], [1, 0]]
    env.close()


class Sick(Echo):
    """Gives a value that is not finite in its last step, or in the reset after it."""

    values: ClassVar = {"first_obs": 0.0, "last_obs": 0.0, "reward": 0.0}

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed, options=options)
        return obs + (self.values["first_obs"] if self.episode else 0.0), info

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        if terminated:
            obs += self.values["last_obs"]
            reward += self.values["reward"]
        return obs, reward, terminated, truncated, info


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("where", "quantity"),
    [("first_obs", "observation"), ("last_obs", "observation"), ("reward", "reward")],
)
def test_names_what_is_not_finite(where, quantity, value):
    sick = Sick(length=2)
    sick.values = {**Sick.values, where: value}
    env = control(Echo(length=5), sick, Echo(length=5))
    env.reset(seed=0)
    env.step(actions(0, 0, 0))
    with pytest.raises(NonFiniteError, match=f"^{quantity} of environment 1 is not finite$"):
        env.step(actions(0, 0, 0))


def test_refuses_actions_that_are_not_finite():
    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    env = control(*[Echo(action_space=box) for _ in range(3)])
    env.reset(seed=0)
    action = torch.zeros(3, 2)
    action[2, 1] = torch.nan
    with pytest.raises(NonFiniteError, match=r"^action of environment 2 is not finite$"):
        env.step(action)
    # It never reached the environments.
    assert env.step(torch.zeros(3, 2)).obs[:, 1].tolist() == [1, 1, 1]


def test_equal_seeds_begin_equally():
    env = ControlEnv.make(gym_env("CartPole-v1", limit=None), num_envs=4, threads=1)
    first = env.reset([5, 5, 6, 5])
    assert (first[[1, 3]] == first[0]).all()
    assert (first[2] != first[0]).any()
    assert (env.reset(5)[:2] == first[[0, 2]]).all()
    with pytest.raises(ValueError, match="3 seeds for 4 environments"):
        env.reset([1, 2, 3])


def test_steps_a_subset():
    env = control(Echo(length=2), Echo(length=3, truncates=True), Echo(length=4))
    env.reset(seed=0)
    env.step(actions(0, 1, 2))
    step = env.step(actions(2, 2, 2), rows(0, 2))
    assert step.obs.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 2, 0, 0, 1]]
    assert step.next_obs[:, :2].tolist() == [[0, 2], [0, 1], [0, 2]]
    assert step.reward.tolist() == pytest.approx([0.1, 0.0, 0.1])
    assert step.terminated.tolist() == [True, False, False]
    assert env.obs is step.obs
    assert env.drain_episodes() == [(pytest.approx(0.2), 2)]

    for elapsed in (2, 3):
        step = env.step(actions(0, 0, 0), rows(1))
        assert step.next_obs[:, :2].tolist() == [[1, 0], [0, elapsed], [0, 2]]
    assert step.terminated.tolist() == [False, False, False]
    assert step.truncated.tolist() == [False, True, False]
    assert env.drain_episodes() == [(pytest.approx(0.3), 3)]
    # None of them: nothing happens.
    step = env.step(actions(0, 0, 0), rows())
    assert step.obs[:, :2].tolist() == [[1, 0], [1, 0], [0, 2]]
    assert not step.reward.any()
    for _ in range(2):
        env.step(actions(0, 0, 0))
    assert sorted(length for _, length in env.drain_episodes()) == [2, 4]


def test_the_actions_of_paused_environments_count_for_nothing():
    box = spaces.Box(-1.0, 1.0, (1,), np.float32)
    env = control(*[Echo(action_space=box) for _ in range(3)])
    env.reset(seed=0)
    action = torch.tensor([[0.5], [torch.nan], [0.5]])
    step = env.step(action, rows(0, 2))
    assert step.obs[:, 1:].tolist() == [[1, 0.5], [0, 0], [1, 0.5]]
    with pytest.raises(NonFiniteError, match=r"^action of environment 1 is not finite$"):
        env.step(action, rows(1, 2))


def test_continues_from_a_snapshot_where_some_are_paused():
    spec = gym_env("CartPole-v1", limit=40)
    original = ControlEnv.make(spec, num_envs=3, threads=1)
    original.reset(seed=0)
    rng = torch.Generator().manual_seed(0)
    for some in (None, None, rows(0, 2), rows(2)):
        latest = original.step(torch.randint(2, (3,), generator=rng), some)
    restored = ControlEnv.make(spec, num_envs=3, threads=1)
    restored.load_state_dict(original.state_dict())
    assert (restored.obs == latest.obs).all()
    for some in (rows(2), rows(1), *[None] * 60):
        action = torch.randint(2, (3,), generator=rng)
        expected, got = original.step(action, some), restored.step(action, some)
        for name in expected._fields:
            assert (getattr(got, name) == getattr(expected, name)).all(), name
    episodes = original.drain_episodes()
    assert len(episodes) > 3
    assert restored.drain_episodes() == episodes


def test_an_environments_error_names_it():
    class Breaks(Echo):
        def step(self, action):
            raise ZeroDivisionError("boom")

    env = control(Echo(), Breaks())
    env.reset(seed=10)
    with pytest.raises(EnvironmentFailure, match=r"environment 1 \(seed 11\).*boom"):
        env.step(actions(0, 0))


def test_continues_from_a_snapshot_in_mid_episode():
    spec = gym_env("CartPole-v1", limit=40)
    original = ControlEnv.make(spec, num_envs=3, threads=1)
    original.reset(seed=0)
    rng = torch.Generator().manual_seed(0)
    for _ in range(100):
        original.step(torch.randint(2, (3,), generator=rng))
    assert original.state_dict()["episodes"]  # some are not drained yet
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)

    restored = ControlEnv.make(spec, num_envs=3, threads=1)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert (restored.obs == original.obs).all()
    for _ in range(100):
        action = torch.randint(2, (3,), generator=rng)
        expected, got = original.step(action), restored.step(action)
        for name in expected._fields:
            assert (getattr(got, name) == getattr(expected, name)).all(), name
    episodes = original.drain_episodes()
    assert len(episodes) > 5
    assert restored.drain_episodes() == episodes


def test_an_episode_that_starts_anew_is_counted_anew(capsys):
    class Unrepeatable(Echo):
        def reset(self, *, seed=None, options=None):
            obs, info = super().reset(seed=seed, options=options)
            self.offset = np.random.random()
            return obs + self.offset, info

        def _obs(self, action):
            return super()._obs(action) + self.offset

    def make():
        return control(Echo(length=9), Unrepeatable(length=9))

    original = make()
    original.reset(seed=0)
    for _ in range(4):
        original.step(actions(0, 0))
    restored = make()
    restored.load_state_dict(original.state_dict())
    assert "does not replay" in capsys.readouterr().err
    assert restored.obs[0].tolist() == original.obs[0].tolist()
    assert restored.obs[1, 1] < 1.0  # step 0 of a new episode
    for _ in range(9):
        restored.step(actions(0, 0))
    assert [length for _, length in restored.drain_episodes()] == [9, 9]


def test_an_environment_that_is_refused_is_closed():
    closed = []

    class Closes(Echo):
        def close(self):
            closed.append(self)

    class Spec:
        id, action_units, time_limit = "Closes-v0", "raw", None

        def make(self, *, num_envs, threads):
            space = spaces.MultiBinary(2)
            return SerialVectorEnv([lambda: Closes(action_space=space)] * num_envs)

    with pytest.raises(UserError, match="action space MultiBinary"):
        ControlEnv.make(Spec(), num_envs=3, threads=1)
    assert len(closed) == 3
