"""DAPO's fine for overlong episodes: how large it is, and that each return has it in full."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import (
    TIME_LIMIT,
    Corridor,
    bare_rollout,
    control,
    counting,
    rollout_of,
    set_up,
)

from rlrun.advantages.episodes import discounted_returns
from rlrun.algos.groups.dapo import overlong_penalties
from rlrun.collectors.dynamic_sampling import DynamicSampling
from rlrun.errors import UserError

CHOICE = spaces.Discrete(3)


def test_the_fine_grows_towards_the_time_limit():
    lengths = torch.tensor([1, 60, 80, 85, 90, 99, 100])
    fines = overlong_penalties(lengths, longest=100, buffer=20, factor=2.0)
    torch.testing.assert_close(fines, torch.tensor([0.0, 0.0, 0.0, -0.5, -1.0, -1.9, -2.0]))


def test_without_a_discount_the_fine_is_taken_from_the_last_step():
    env, _ = counting(4, CHOICE)  # of 1 to 4 steps
    # 2 for each step above 2.
    changes = {"overlong_buffer": 13, "overlong_penalty": 26.0, "gamma": 1.0}
    algorithm, collector = set_up(env, "dapo", group_size=2, **changes)
    rollout = rollout_of(algorithm, collector.collect(algorithm.agent.actor))
    assert set(rollout.mask.sum(0).tolist()) == {1, 2, 3, 4}
    difference = rollout.reward - algorithm.shaped(rollout).reward
    for i, length in enumerate(rollout.mask.sum(0).tolist()):
        expected = torch.zeros(len(difference))
        expected[length - 1] = 2.0 * max(length - 2, 0)
        torch.testing.assert_close(difference[:, i], expected)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.99, 1.0])
def test_the_fine_is_in_every_return_in_full(gamma):
    settings = {"overlong_buffer": 200, "gamma": gamma}
    algorithm, _ = set_up(control(Corridor, 4), "dapo", group_size=2, time_limit=500, **settings)
    lengths = torch.tensor([500, 400, 301, 250])
    step = torch.arange(500)[:, None]
    rollout = bare_rollout(
        torch.zeros(500, 4),
        mask=step < lengths,
        truncated=step == lengths - 1,
        whole_episodes=True,
    )
    returns = discounted_returns(algorithm.shaped(rollout), gamma)
    fined = torch.tensor([-1.0, -0.5, -0.005, 0.0])
    torch.testing.assert_close(returns, fined * rollout.mask, atol=1e-5, rtol=0.0)


def test_by_default_there_is_no_fine():
    env, _ = counting(4, CHOICE)
    algorithm, collector = set_up(env, "dapo", group_size=2)
    rollout = rollout_of(algorithm, collector.collect(algorithm.agent.actor))
    assert algorithm.shaped(rollout) is rollout


def test_the_fine_reaches_the_advantage():
    class Dawdle(gym.Env):
        """Ends when the action says so, after 15 steps at the latest; pays nothing."""

        observation_space = spaces.Box(0.0, 1.0, (1,), np.float64)
        action_space = spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.elapsed = 0
            return np.ones(1), {}

        def step(self, action):
            self.elapsed += 1
            return np.ones(1), float(self.elapsed == 1), action == 1, self.elapsed == 15, {}

    settings = {"overlong_buffer": 15, "epochs": 1}
    sampling = DynamicSampling(group_size=8, max_refills=0, spread_tolerance=0.0)
    algorithm, collector = set_up(control(Dawdle, 8), "dapo", collector=sampling, **settings)
    # All returns are 1: without a spread of raw returns there is nothing to learn, fined or not.
    assert collector.collect(algorithm.agent.actor).mask.shape[1] == 0
    algorithm, collector = set_up(control(Dawdle, 8), "dapo", group_size=8, **settings)
    rollout = rollout_of(algorithm, collector.collect(algorithm.agent.actor))
    advantage, _ = algorithm.agent.estimate(algorithm.shaped(rollout))
    lengths = rollout.mask.sum(0)
    assert advantage[0, lengths.argmin()] > 0 > advantage[0, lengths.argmax()]


def test_a_buffer_longer_than_an_episode_is_refused():
    message = r"^algo\.overlong_buffer=16 is longer than an episode, which may last 15 steps$"
    assert TIME_LIMIT == 15
    with pytest.raises(UserError, match=message):
        set_up(control(Corridor, 4), "dapo", group_size=2, overlong_buffer=16)
