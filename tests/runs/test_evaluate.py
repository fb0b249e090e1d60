"""Evaluation on an environment whose returns can be counted by hand."""

import re
from contextlib import closing
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from running import PLAIN, experiment

from rlrun.envs.control import ControlEnv
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.runs.evaluate import Episodes, play_episodes, which_limit
from rlrun.runs.setup.assembly import Assembly


class Countdown(gym.Env):
    """An episode after ``reset(seed=s)`` has s steps; every later one has 1.

    A step pays 2 ** (number of the episode) if the action is right, and 0 if it is not.
    """

    observation_space = gym.spaces.Box(0, 100, (2,))
    action_space = gym.spaces.Discrete(3)
    episode = -1

    def __init__(self, truncates):
        self.truncates = truncates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode = 0 if seed is not None else self.episode + 1
        self.left = 1 if seed is None else seed
        return self.obs(), {}

    def step(self, action):
        self.left -= 1
        # The right action depends on the observation before the step.
        reward = 2.0**self.episode * (action == (self.left + 1) % 3)
        ended = self.left == 0
        return self.obs(), reward, ended and not self.truncates, ended and self.truncates, {}

    def obs(self):
        return np.array([self.left, self.episode], np.float32)


def environment(count, truncates=False):
    vector_env = SerialVectorEnv([lambda: Countdown(truncates)] * count)
    return ControlEnv(vector_env, action_units="raw")


play = partial(play_episodes, max_length=100)


def right(obs):
    return (obs[:, 0] % 3).long()


@pytest.mark.parametrize("truncates", [False, True])
def test_one_whole_episode_in_each_environment(truncates):
    env = environment(4, truncates)
    # Episodes of 3, 4, 5 and 6 steps; while the longest runs, the others begin their next ones.
    assert play(right, env, seed=3) == Episodes([3.0, 4.0, 5.0, 6.0], [3, 4, 5, 6])
    # And again from the start, whatever was left of the last evaluation.
    assert play(right, env, seed=1) == Episodes([1.0, 2.0, 3.0, 4.0], [1, 2, 3, 4])


def test_the_policy_sees_each_environments_own_observation():
    def always_zero(obs):
        return torch.zeros(len(obs), dtype=torch.int64)

    # Right where 3 divides what is left: at 3 and at 6.
    assert play(always_zero, environment(4), seed=3).returns == [
        1.0,
        1.0,
        1.0,
        2.0,
    ]


def test_the_summary():
    metrics = Episodes([1.0, 2.0, 6.0], [10, 20, 30]).metrics()
    assert metrics == {
        "eval/return": 3.0,
        "eval/return_std": pytest.approx((14 / 3) ** 0.5),
        "eval/length": 20.0,
    }


def test_an_episode_that_never_ends_is_over_after_the_longest_length():
    def always_zero(obs):
        return torch.zeros(len(obs), dtype=torch.int64)

    env = environment(2)
    assert play(right, env, seed=3, max_length=2).lengths == [2, 2]
    assert play(always_zero, env, seed=3, max_length=3).lengths == [3, 3]


@pytest.mark.parametrize(
    ("time_limit", "max_length", "said"),
    [
        (500, 10_000, None),
        (500, 500, None),
        (500, 100, "after evaluation.max_length=100 steps, before Maze-v0's time limit of 500"),
        (None, 100, "Maze-v0 has no time limit: .* after evaluation.max_length=100 steps, one of"),
    ],
)
def test_says_which_limit_counts(time_limit, max_length, said):
    line = which_limit("Maze-v0", time_limit, max_length)
    if said is None:
        assert line is None
    else:
        assert re.search(said, line)
        assert "\n" not in line


@pytest.mark.parametrize("model", ["transformer", "mlp"])
def test_single_steps_of_language_are_evaluated_on_prompts_that_training_never_sees(model):
    words = ("algo=ppo", "env=add", "collector=segments", f"model={model}", *PLAIN)
    assembly = Assembly(experiment(list(words)), None)
    task, count = assembly.experiment.env, 40
    with closing(assembly), closing(assembly.evaluator.make(count)) as env:
        observed = {True: env.reset(0), False: assembly.env.reset(0)}
        for held_out, obs in observed.items():
            shape = (obs.shape[0], -1, task.language.size + 1)
            for places in obs.view(shape).argmax(-1).tolist():
                prompt = task.vocabulary.decode(p for p in places if p != task.language.size)
                assert task.is_held_out(prompt) is held_out
        assert len(assembly.evaluator.play(count, seed=0).returns) == count
