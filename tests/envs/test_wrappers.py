"""Wrappers of a config: by name, checked, and part of what is saved."""

import inspect
import pickle
import sys
from collections import abc
from typing import TYPE_CHECKING, get_origin

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import wrappers
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.wrappers import NormalizeReward  # noqa: F401 (refused under this name, too)
from tiny import part_of

from rlrun.envs.control import ControlEnv
from rlrun.envs.gym_env import GymEnv
from rlrun.envs.mujoco.vector import MujocoVectorEnv
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.envs.wrappers import REFUSED, annotations, find, read_wrappers
from rlrun.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Hashable

HERE = [__name__]  # the plugins, in what follows

STACK = {"name": "FrameStackObservation", "stack_size": 4}


class Scaled(gym.RewardWrapper):
    """A user's own."""

    def __init__(self, env, scale: float = 2.0):
        super().__init__(env)
        self.scale = scale

    def reward(self, reward):
        return self.scale * reward


class OnlyForTypeCheckers(gym.Wrapper):
    def __init__(self, env, key: "Hashable"):
        super().__init__(env)
        self.key = key


class Filmed(wrappers.RecordVideo):
    pass


def spec(name: str, *nodes, **changes) -> GymEnv:
    """One of conf/env/ with these wrappers."""
    return part_of("env", name, wrappers=list(nodes), plugins=HERE, **changes)


# What a config may say, and what it means in Python.
SAME = {
    "a name": (["FlattenObservation"], wrappers.FlattenObservation),
    "its whole name": (["gymnasium.wrappers.FlattenObservation"], wrappers.FlattenObservation),
    "arguments": ([STACK], lambda env: wrappers.FrameStackObservation(env, 4)),
    "1e1 is a whole number": (
        [{**STACK, "stack_size": 1e1}],
        lambda env: wrappers.FrameStackObservation(env, 10),
    ),
    "the first is the innermost": (
        [{"name": "RescaleObservation", "min_obs": -1, "max_obs": 1}, STACK],
        lambda env: wrappers.FrameStackObservation(
            wrappers.RescaleObservation(env, np.float64(-1), np.float64(1)), 4
        ),
    ),
    "an array": (
        [{"name": "RescaleAction", "min_action": [-3], "max_action": [3.5]}],
        lambda env: wrappers.RescaleAction(env, np.array([-3.0]), np.array([3.5])),
    ),
    "a list": (
        [{"name": "DiscretizeObservation", "bins": [2, 3, 4]}],
        lambda env: wrappers.DiscretizeObservation(env, (2, 3, 4)),
    ),
    "a type by name": (
        [{"name": "DtypeObservation", "dtype": "float64"}],
        lambda env: wrappers.DtypeObservation(env, np.float64),
    ),
    "one bound": (
        [{"name": "ClipReward", "min_reward": -1}],
        lambda env: wrappers.ClipReward(env, -1.0),
    ),
    "one of the user's": ([{"name": f"{__name__}.Scaled", "scale": 3}], lambda env: Scaled(env, 3)),
}


@pytest.mark.parametrize("case", SAME)
def test_a_config_says_what_python_does(case):
    nodes, wrap = SAME[case]
    ours, theirs = spec("pendulum", *nodes).make_single(render_mode=None), gym.make("Pendulum-v1")
    theirs = wrap(theirs)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    theirs.action_space.seed(0)
    assert data_equivalence(ours.reset(seed=3), theirs.reset(seed=3), exact=True)
    for _ in range(10):
        action = theirs.action_space.sample()
        assert data_equivalence(ours.step(action), theirs.step(action), exact=True)


MISTAKES = {
    "FrameStack": "[0]: no wrapper 'FrameStack' in gymnasium.wrappers; did you mean 'FrameSt",
    "vector": "[0]: no wrapper 'vector' in gymnasium.wrappers",
    "": "[0]: no wrapper '' in gymnasium.wrappers",
    "os.system": "[0]: 'os.system' is not in gymnasium.wrappers; allow it with plugins=[os]",
    f"{__name__}.Scale": f"[0]: no wrapper 'Scale' in {__name__}; did you mean 'Scaled'?",
    f"{__name__}.spec": f"[0]: no wrapper 'spec' in {__name__}",
    f"{__name__}.gone.Scaled": f"[0]: {__name__}.gone is not imported: plugins=[{__name__}.gone]",
    f"{__name__}.Filmed": f"[0]: {__name__}.Filmed is refused: rlrun eval RUN --video",
    "TransformReward": "[0]: TransformReward needs a function (func), and a config has none: write",
    "FrameStackObservation": "[0]: FrameStackObservation needs a value of stack_size",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_name_that_is_none_is_one_line(name):
    with pytest.raises(UserError) as error:
        spec("pendulum", name)
    assert str(error.value).startswith(f"env.wrappers{MISTAKES[name]}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"stack_size": 4}, r"\[1\]: a wrapper has a name: {name: FrameStackObservation, "),
        ({**STACK, "stack_sise": 4}, r"\[1\]: .* has no argument 'stack_sise'; .* 'stack_size'?"),
        ({**STACK, "env": "x"}, r"\[1\]: FrameStackObservation has no argument 'env'"),
        ({**STACK, "stack_size": "four"}, r"\[1\].stack_size: expected a whole number, got 'four'"),
        ({**STACK, "stack_size": [4]}, r"\[1\].stack_size: expected a whole number, got \[4\]"),
        ({**STACK, "stack_size": 2.5}, r"\[1\].stack_size: expected a whole number, got 2.5"),
        (
            {"name": "RescaleAction", "min_action": [[1], [2, 3]], "max_action": 1},
            r"\[1\].min_action: expected numbers, got \[\[1\], \[2, 3\]\]",
        ),
        ({"name": "ClipReward", "min_reward": "low"}, r"\[1\].min_reward: expected a number"),
    ],
)
def test_arguments_are_checked_against_the_signature(node, message):
    with pytest.raises(UserError, match=rf"^env\.wrappers{message}"):
        spec("pendulum", "FlattenObservation", node)


@pytest.mark.parametrize("node", [3, None, ["FlattenObservation"]])
def test_a_wrapper_is_a_name_or_a_mapping(node):
    with pytest.raises(UserError, match=r"^env\.wrappers\[0\]: expected text or a mapping, got"):
        spec("pendulum", node)


@pytest.mark.parametrize(
    ("env", "node", "message"),
    [
        ("pendulum", {**STACK, "stack_size": -1}, r"env.wrappers\[0\]: .* ValueError: The stack_s"),
        ("pendulum", "GrayscaleObservation", r"env.wrappers\[0\]: .* requires an image"),
        ("pendulum", "AddRenderObservation", r"env.wrappers\[0\]: AddRenderObservation cannot be"),
        ("cartpole", {"name": "RescaleAction", "min_action": 0, "max_action": 1}, "TypeError: .*B"),
        (
            "pendulum",
            {"name": "DiscretizeAction", "bins": 3, "multidiscrete": True},
            r"action space MultiDiscrete\(\[3\]\) is not supported",
        ),
        ("pendulum", {**STACK, "stack_size": 500}, r"observations that are images \(500 x 3\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_does_not_fit_the_environment_is_one_line(env, node, message):
    with pytest.raises(UserError, match=message) as error:
        ControlEnv.make(spec(env, node), num_envs=2, threads=1)
    assert "\n" not in str(error.value)


def test_every_wrapper_of_gymnasium_is_known():
    """Each is refused, needs a function, or has annotations that arguments are checked against."""
    for name in wrappers.__all__:
        if name in ("vector", *REFUSED):
            continue
        wrapper = find(name, "env.wrappers[0]", [])
        _, *parameters = inspect.signature(wrapper).parameters.values()
        hints = annotations(wrapper)
        assert {parameter.name for parameter in parameters} <= hints.keys(), name
        needs_function = any(get_origin(hints[p.name]) is abc.Callable for p in parameters)
        assert needs_function == name.startswith("Transform"), name
    assert set(REFUSED) <= set(wrappers.__all__)


def test_a_refused_wrapper_says_what_rlrun_has_instead():
    for name, reason in REFUSED.items():
        with pytest.raises(UserError, match="is refused") as error:
            read_wrappers([name], [])
        assert reason in str(error.value)
    # Also where a plugin has imported it.
    with pytest.raises(UserError, match="NormalizeReward is refused"):
        read_wrappers([f"{__name__}.NormalizeReward"], HERE)


def test_a_name_that_is_read_back_imports_nothing():
    assert "antigravity" not in sys.modules
    for plugins in ([], ["antigravity"]):
        with pytest.raises(UserError):
            read_wrappers(["antigravity.Mine"], plugins)
        with pytest.raises(UserError, match="antigravity is not imported: plugins="):
            part_of("env", "pendulum", plugins=["antigravity"])
    assert "antigravity" not in sys.modules


def test_annotations_that_cannot_be_read_check_the_names_alone():
    node = {"name": f"{__name__}.OnlyForTypeCheckers", "key": 3}
    env = spec("pendulum", node).make_single(render_mode=None)
    assert env.key == 3
    with pytest.raises(UserError, match="has no argument 'kee'; did you mean 'key'"):
        spec("pendulum", {**node, "kee": 4})


@pytest.mark.parametrize(
    ("nodes", "limit"),
    [
        ([], 200),
        ([{"name": "TimeLimit", "max_episode_steps": 30}], 30),
        ([{"name": "TimeLimit", "max_episode_steps": 300}], 200),
        ([{"name": "RepeatAction", "num_repeats": 3}], 67),
        (["MaxAndSkipObservation"], 50),
        (
            [
                {"name": "TimeLimit", "max_episode_steps": 30},
                {"name": "RepeatAction", "num_repeats": 4},
            ],
            8,
        ),
        (
            [
                {"name": "RepeatAction", "num_repeats": 4},
                {"name": "TimeLimit", "max_episode_steps": 30},
            ],
            30,
        ),
    ],
)
def test_the_time_limit_is_that_of_the_wrapped_environment(nodes, limit):
    wrapped = spec("pendulum", *nodes)
    assert wrapped.time_limit == limit
    env = wrapped.make_single(render_mode=None)
    env.reset(seed=0)
    for step in range(1, limit + 1):
        *_, truncated, _ = env.step(env.action_space.sample())
        assert truncated == (step == limit)


def test_an_environment_without_a_limit_has_that_of_its_wrapper():
    assert spec("blackjack").time_limit is None
    limit = {"name": "TimeLimit", "max_episode_steps": 7}
    assert spec("blackjack", limit).time_limit == 7


# Wrappers with a memory of the episode, which a snapshot in its middle has to bring back.
REMEMBERING = {
    "stack": [STACK],
    "delay": [{"name": "DelayObservation", "delay": 3}],
    "time": [{"name": "TimeAwareObservation"}],
    "sticky": [
        {
            "name": "StickyAction",
            "repeat_action_probability": 0.5,
            "repeat_action_duration": [1, 4],
        }
    ],
    "repeat": [{"name": "RepeatAction", "num_repeats": 3}],
    "max and skip": ["MaxAndSkipObservation"],
    "limit": [{"name": "TimeLimit", "max_episode_steps": 17}],
}


@pytest.mark.parametrize("case", REMEMBERING)
@pytest.mark.parametrize("name", ["pendulum", "lunar_lander", "bipedal_walker", "hopper"])
def test_a_snapshot_has_the_state_of_the_wrappers(case, name, capsys):
    wrapped = spec(name, *REMEMBERING[case], max_episode_steps=60)
    original, restored = (wrapped.make(num_envs=2, threads=1) for _ in range(2))
    original.reset(seed=5)
    original.action_space.seed(5)
    actions = [original.action_space.sample() for _ in range(90)]
    for action in actions[:31]:
        original.step(action)
    assert restored.load_state_dict(pickle.loads(pickle.dumps(original.state_dict()))) == {}
    assert capsys.readouterr().err == ""
    for action in actions[31:]:
        assert data_equivalence(restored.step(action), original.step(action), exact=True)


def test_a_mujoco_task_with_wrappers_is_gymnasiums_own():
    assert isinstance(spec("hopper").make(num_envs=2, threads=1), MujocoVectorEnv)
    assert spec("hopper").remarks() == []
    wrapped = spec("hopper", STACK, options={"ctrl_cost_weight": 0.5})
    env = wrapped.make(num_envs=2, threads=1)
    assert isinstance(env, SerialVectorEnv)
    assert env.envs[0].unwrapped._ctrl_cost_weight == 0.5
    assert env.single_observation_space.shape == (4, 11)
    (line,) = wrapped.remarks()
    assert line.startswith("env.wrappers: each Hopper-v5 is stepped by itself")


def test_a_flat_stack_is_what_a_policy_sees():
    env = ControlEnv.make(spec("pendulum", STACK), num_envs=2, threads=1)
    first = env.reset(seed=0)
    assert first.shape == (2, 12)
    assert torch.equal(first[:, :3], first[:, 9:])  # four times the first observation
    step = env.step(torch.zeros(2, 1))
    assert torch.equal(step.obs[:, :9], first[:, 3:])
