import gymnasium as gym
import numpy as np
import pytest

from rlrun.envs.problem import Problem
from rlrun.errors import UserError


def problem(**changes) -> Problem:
    settings = {
        "env_id": "CartPole-v1",
        "obs_size": 4,
        "action_space": gym.spaces.Discrete(2),
        "time_limit": 500,
        "group_size": None,
    }
    return Problem(**{**settings, **changes})


@pytest.mark.parametrize(
    ("changes", "horizon", "length"),
    [
        ({}, 128, 128),
        ({"time_limit": None}, 128, 128),
        ({"group_size": 1}, None, 500),
        ({"group_size": 4}, None, 500),
        # No longer than an episode, whatever the horizon.
        ({"group_size": 4}, 500, 500),
        ({"group_size": 4}, 2048, 500),
    ],
)
def test_the_longest_rollout(changes, horizon, length):
    assert problem(**changes).rollout_length(horizon, num_envs=8) == length


@pytest.mark.parametrize(
    ("changes", "horizon", "message"),
    [
        (
            {},
            None,
            "algo.horizon=null is the length of an episode, and rollouts are whole episodes only "
            "with env.group_size=1 or more",
        ),
        ({"group_size": 3}, None, "algo.num_envs=8 is not a multiple of env.group_size=3"),
        (
            {"group_size": 4, "time_limit": None},
            None,
            "CartPole-v1 has no time limit, which whole episodes need: "
            "env.max_episode_steps=1000, say",
        ),
        (
            {"group_size": 4},
            499,
            "algo.horizon=499 is shorter than an episode, which may last 500 steps: "
            "algo.horizon=null is that",
        ),
    ],
)
def test_rollouts_that_cannot_be_are_refused(changes, horizon, message):
    with pytest.raises(UserError) as caught:
        problem(**changes).rollout_length(horizon, num_envs=8)
    assert str(caught.value) == message


def test_what_kind_of_problem_it_is():
    assert problem().discrete
    assert not problem(action_space=gym.spaces.Box(-1, 1, (2,), np.float32)).discrete
    assert [problem(group_size=size).whole_episodes for size in (None, 1, 8)] == [False, True, True]
