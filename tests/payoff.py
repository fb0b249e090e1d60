"""A user's package: an environment that pays what its arguments say, whatever is done."""

import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Payoff(gym.Env):
    """Two steps in one state.

    Args:
        worth: the reward of each step; below 0 the first step raises.
        pause: seconds that a step takes.
    """

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, worth=1.0, pause=0.0):
        self.worth, self.pause = worth, pause
        self.elapsed = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.elapsed = 0
        return np.ones(1, np.float32), {}

    def step(self, action):
        if self.worth < 0:
            raise ArithmeticError("nothing is worth less than nothing")
        time.sleep(self.pause)
        self.elapsed += 1
        return np.ones(1, np.float32), self.worth, self.elapsed == 2, False, {}


gym.register("Payoff-v0", Payoff, max_episode_steps=10)
