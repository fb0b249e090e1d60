import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny import part_of

from rlrun.envs.control import ControlEnv
from rlrun.envs.flatten import fits_bytes
from rlrun.envs.problem import Problem
from rlrun.errors import UserError


def problem(**changes) -> Problem:
    settings = {
        "env_id": "CartPole-v1",
        "obs_size": 4,
        "action_space": gym.spaces.Discrete(2),
        "action_units": "raw",
        "time_limit": 500,
    }
    return Problem(**{**settings, **changes})


def test_what_kind_of_problem_it_is():
    assert problem().discrete
    assert not problem(action_space=gym.spaces.Box(-1, 1, (2,), np.float32)).discrete


@pytest.mark.parametrize(
    ("name", "max_episode_steps", "action_units", "expected"),
    [
        ("cartpole", None, "raw", problem()),
        ("cartpole", 30, "raw", problem(time_limit=30)),
        (
            "pendulum",
            None,
            "raw",
            problem(
                env_id="Pendulum-v1",
                obs_size=3,
                action_space=gym.spaces.Box(-2.0, 2.0, (1,), np.float32),
                time_limit=200,
            ),
        ),
        # Actions are in the units of the policy: the torques are -2 to 2.
        (
            "pendulum",
            70,
            "box",
            problem(
                env_id="Pendulum-v1",
                obs_size=3,
                action_space=gym.spaces.Box(-1.0, 1.0, (1,), np.float32),
                action_units="box",
                time_limit=70,
            ),
        ),
        # Its observation is three numbers, (32, 11, 2) choices in all, and no episode is cut.
        (
            "blackjack",
            None,
            "raw",
            problem(
                env_id="Blackjack-v1",
                obs_size=32 + 11 + 2,
                time_limit=None,
                state_sizes=(32, 11, 2),
                obs_dtype=torch.uint8,
            ),
        ),
    ],
)
def test_the_measures_of_an_environment(name, max_episode_steps, action_units, expected):
    spec = part_of("env", name, max_episode_steps=max_episode_steps, action_units=action_units)
    env = ControlEnv.make(spec, num_envs=2, threads=1)
    assert Problem.of(spec, env) == expected
    env.close()


def test_the_bounds_of_actions():
    box = problem(action_space=gym.spaces.Box(-0.5, 2.0, (3,), np.float32))
    low, high = box.bounds
    assert low.tolist() == [-0.5] * 3
    assert high.tolist() == [2.0] * 3
    assert (box.choices, box.action_shape) == (None, (3,))
    assert (problem().choices, problem().action_shape) == (2, ())
    with pytest.raises(UserError, match="a choice of 2, not a box"):
        _ = problem().bounds
    endless = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    with pytest.raises(UserError, match="its actions have no bounds"):
        _ = problem(action_space=endless).bounds


def test_what_fits_into_bytes():
    one, byte = gym.spaces.Discrete(3), gym.spaces.Box(0, 255, (4,), np.uint8)
    number = gym.spaces.Box(-1, 1, (2,), np.float32)
    for space in (one, byte, gym.spaces.MultiBinary(2), gym.spaces.Tuple([one, byte])):
        assert fits_bytes(space)
    for space in (number, gym.spaces.Dict({"a": one, "b": number})):
        assert not fits_bytes(space)
