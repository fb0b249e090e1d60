"""An environment whose groups have a spread, or none."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Moods(gym.Env):
    """Three steps of a mood that a start's seed decides, which is observed beside the seed.

    The reward of a step is the action in one mood, and always 1 in the other: a group of the
    second has no spread.

    Args:
        matters: whether the action matters, by the seed.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(3)

    def __init__(self, matters=lambda seed: seed % 2 == 0):
        self.matters = matters

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        seed = seed or 0  # none for the episode that nobody will play
        self.obs = np.array([self.matters(seed), seed % 1000], np.float64)
        self.elapsed = 0
        return self.obs.copy(), {}

    def step(self, action):
        self.elapsed += 1
        reward = float(action) if self.obs[0] else 1.0
        return self.obs.copy(), reward, False, self.elapsed == 3, {}
