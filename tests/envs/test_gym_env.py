import importlib
import inspect
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import corridors  # noqa: F401 (a plugin, in what follows)
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import load_env_creator
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode
from omegaconf import OmegaConf
from tiny import part_of

from rlrun.envs.control import ControlEnv
from rlrun.envs.gym_env import FreshEachEpisode, GymEnv
from rlrun.errors import UserError

CONF = Path(__file__).parents[2] / "conf" / "env"

NAMES = sorted(
    path.stem
    for path in CONF.glob("*.yaml")
    if OmegaConf.load(path)._target_ == "rlrun.envs.gym_env.GymEnv" and path.stem != "gym"
)


def config(name: str) -> dict:
    """The values of a file in conf/env itself, without its target."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert values.pop("_target_") == "rlrun.envs.gym_env.GymEnv"
    del values["defaults"]
    return values


def cartpole(**changes) -> GymEnv:
    return GymEnv(**{**config("cartpole"), **changes})


def test_every_environment_that_is_promised_has_a_file():
    promised = """acrobot bipedal_walker blackjack cartpole cliff_walking frozen_lake lunar_lander
        lunar_lander_continuous mountain_car mountain_car_continuous pendulum taxi"""
    assert promised.split() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_files_make_what_gymnasium_makes(name):
    spec = GymEnv(**config(name))
    registered = gym.spec(spec.id)
    # The options in the file say what Gymnasium would do without them.
    creator = load_env_creator(registered.entry_point)
    parameters = inspect.signature(creator).parameters
    for key, value in spec.options.items():
        assert value == registered.kwargs.get(key, parameters[key].default), key
    # The comment on the limit says what is registered.
    comment = (CONF / f"{name}.yaml").read_text().partition("max_episode_steps")[0]
    if spec.max_episode_steps is None:
        assert f"as registered, {str(registered.max_episode_steps).lower()}" in comment

    ours, theirs = spec.make_single(render_mode=None), gym.make(spec.id)
    theirs.action_space.seed(0)
    first, expected = ours.reset(seed=5)[0], theirs.reset(seed=5)[0]
    assert np.array_equal(first, expected)
    for _ in range(30):
        action = theirs.action_space.sample()
        got, expected = ours.step(action), theirs.step(action)
        assert np.array_equal(got[0], expected[0])
        assert got[1:4] == expected[1:4]
        if got[2] or got[3]:
            break


@pytest.mark.parametrize("name", [*NAMES, "gym", "../stepping/gymnasium"])
def test_files_are_explained(name):
    lines = (CONF / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    for before, line in itertools.pairwise(lines):
        if line and not line.lstrip().startswith(("#", "_target_:")):
            assert before.lstrip().startswith("# "), f"no comment above {line!r}"


@pytest.mark.parametrize("name", NAMES)
def test_files_can_be_trained_on(name):
    env = ControlEnv.make(GymEnv(**config(name)), num_envs=2, threads=1)
    assert env.reset(seed=0).shape == (2, env.obs_size)
    for _ in range(5):
        actions = np.stack([env.action_space.sample() for _ in range(2)])
        step = env.step(torch.from_numpy(actions))
        assert step.obs.shape == (2, env.obs_size)
    env.close()


def test_makes_a_vector_environment():
    env = cartpole(max_episode_steps=7).make(num_envs=3, threads=2)
    assert isinstance(env, gym.vector.VectorEnv)
    assert env.num_envs == 3
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset(seed=0)
    for _ in range(7):
        _, _, _, truncated, _ = env.step(np.array([0, 1, 0]))
    assert truncated.all()


def test_options_reach_the_environment():
    spec = GymEnv(**{**config("pendulum"), "options": {"g": 3.5}})
    assert spec.make_single(render_mode=None).unwrapped.g == 3.5


def test_one_environment_renders():
    env = cartpole().make_single(render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().ndim == 3
    env.close()


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ("Hoper-v5", "did you mean 'Hopper-v5'?"),
        ("hopper", "did you mean 'Hopper-v5'?"),
        ("Taxi-v3", "did you mean 'Taxi-v4'?"),
        ("Cartpol", "did you mean 'CartPole-v1'?"),
        ("CartPole-v7", "did you mean 'CartPole-v1'?"),
        ("gymnasium:LunarLandr-v3", "did you mean 'LunarLander-v3'?"),
        ("two words", "plugins=[package]"),
        ("", "plugins=[package]"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_an_unknown_id_is_one_line_with_the_nearest_one(wrong, remedy):
    with pytest.raises(ValueError, match="is not registered with Gymnasium") as error:
        cartpole(id=wrong)
    assert str(error.value).startswith(f"id {wrong!r}")
    assert remedy in str(error.value)


@pytest.mark.parametrize("module", ["no_such_package", "antigravity"])
def test_an_id_imports_nothing_by_itself(module):
    with pytest.raises(ValueError, match=rf"needs plugins=\[{module}\]"):
        cartpole(id=f"{module}:CartPole-v1")
    assert module not in sys.modules


def test_a_limit_is_at_least_one_step():
    with pytest.raises(UserError, match=r"env\.max_episode_steps must be at least 1, got 0"):
        part_of("env", "cartpole", max_episode_steps=0)


@pytest.mark.filterwarnings("error")
def test_the_time_limit_is_the_given_or_the_registered_one():
    assert cartpole(max_episode_steps=7).time_limit == 7
    assert cartpole(max_episode_steps=None).time_limit == 500
    assert GymEnv(**{**config("blackjack"), "max_episode_steps": None}).time_limit is None


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("LunarLander-v3", {"windd": 1}, "LunarLander-v3 .*unexpected keyword argument 'windd'"),
        ("FrozenLake-v1", {"map_name": "9x9"}, "FrozenLake-v1 .*KeyError: '9x9'"),
        ("CartPole-v1", {"max_episode_steps": 3}, "multiple values .*'max_episode_steps'"),
    ],
)
def test_a_wrong_option_is_one_line(env_id, options, message):
    spec = cartpole(id=env_id, options=options)
    with pytest.raises(UserError, match=message) as error:
        spec.make(num_envs=2, threads=1)
    assert "\n" not in str(error.value)


def test_a_missing_package_is_one_line():
    def needs_more(**options):
        raise DependencyNotInstalled("flight is not installed,\nrun `pip install flight`")

    gym.register("NeedsMore-v0", entry_point=needs_more)
    try:
        with pytest.raises(
            UserError, match=r"NeedsMore-v0 needs a package: .* `pip install flight`"
        ):
            cartpole(id="NeedsMore-v0", options={}).make(num_envs=1, threads=1)
    finally:
        del gym.registry["NeedsMore-v0"]


def test_an_id_may_name_the_module_of_a_plugin(tmp_path, monkeypatch):
    (tmp_path / "gridworlds.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "gymnasium.register('Grid-v0', entry_point=PendulumEnv, max_episode_steps=9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("gridworlds")
    try:
        spec = cartpole(id="gridworlds:Grid-v0", max_episode_steps=None, options={"g": 1.0})
        assert spec.time_limit == 9
        assert spec.make(num_envs=2, threads=1).spec.id == "Grid-v0"
    finally:
        del sys.modules["gridworlds"], gym.registry["Grid-v0"]


def test_a_class_needs_no_registration():
    spec = cartpole(id="corridors:Corridor", options={}, max_episode_steps=4)
    assert spec.time_limit == 4
    assert cartpole(id="corridors:Corridor", max_episode_steps=None).time_limit is None
    for workers in (0, 1):
        env = replace(spec, workers=workers, plugins=["corridors"]).make(num_envs=2, threads=1)
        env.reset(seed=0)
        for step in range(1, 5):
            *_, truncated, _ = env.step(env.action_space.sample())
            assert truncated.all() == (step == 4)
        env.close()


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ("corridors:Coridor", "did you mean 'corridors:Corridor'?"),
        ("corridors:os", "env.id=package:Class"),
        ("sys:path", "env.id=package:Class"),
    ],
)
def test_a_class_that_is_none_is_one_line(wrong, remedy):
    with pytest.raises(ValueError, match=f"id '{wrong}' is not registered") as error:
        cartpole(id=wrong)
    assert remedy in str(error.value)


class Traces(gym.Env):
    """Remembers how often it was reset."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.resets = 0
        self.closed = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets += 1
        return np.array([self.resets, self.np_random.random()]), {}

    def step(self, action):
        return np.zeros(2), 0.0, False, False, {}

    def close(self):
        self.closed = True


def test_a_fresh_environment_has_no_past_but_the_generator():
    made = []

    def make():
        made.append(Traces())
        return made[-1]

    fresh, plain = FreshEachEpisode(make), Traces()
    for seed in (3, None, None, 3, None):
        (resets, number), _ = fresh.reset(seed=seed)
        assert resets == 1
        assert number == plain.reset(seed=seed)[0][1]
    assert len(made) == 5
    assert [env.closed for env in made] == [True] * 4 + [False]
    fresh.close()
    assert made[-1].closed
