"""A user's package: Pendulum with a wrapper that hides where an episode is cut."""

import gymnasium as gym
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.envs.registration import WrapperSpec


class HideTruncation(gym.Wrapper):
    """Goes on where its environment is cut."""

    def step(self, action):
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, False, info


# Gymnasium wraps it around the one that counts the steps.
HIDING = WrapperSpec("HideTruncation", f"{__name__}:HideTruncation", kwargs={})
gym.register("Endless-v0", PendulumEnv, max_episode_steps=20, additional_wrappers=(HIDING,))
