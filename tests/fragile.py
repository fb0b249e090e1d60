"""A user's package: CartPole that goes wrong in the middle of an episode, once a file says how."""

import ctypes
import math
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Fragile(CartPoleEnv):
    """CartPole; files in a directory, ``raise``, ``nan``, ``hang`` ..., are its orders."""

    instances: ClassVar = 0

    def __init__(self, directory, most_instances=math.inf, render_mode=None):
        super().__init__(render_mode=render_mode)
        Fragile.instances += 1
        if Fragile.instances > most_instances:
            raise OSError("no licence left for another simulator")
        self.directory = Path(directory)
        self.elapsed = 0

    def reset(self, *, seed=None, options=None):
        self.elapsed = 0
        if (self.directory / "raise at reset").exists():
            raise ArithmeticError("the simulator does not start")
        return super().reset(seed=seed, options=options)

    def step(self, action):
        obs, *others = super().step(action)
        self.elapsed += 1
        if self.elapsed == 10:
            if (self.directory / "raise").exists():
                raise ArithmeticError("the simulator broke")
            if (self.directory / "nan").exists():
                obs = np.full_like(obs, np.nan)
            if (self.directory / "hang").exists():
                time.sleep(60)
            if (self.directory / "exit").exists():
                os._exit(3)
            if (self.directory / "kill").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            if (self.directory / "crash").exists():
                ctypes.string_at(0)
            if (self.directory / "stop").exists():
                (self.directory / "stop").unlink()
                signal.raise_signal(signal.SIGTERM)
        return obs, *others


class Blind(Fragile):
    """CartPole that draws nothing."""

    def render(self):
        raise NotImplementedError


gym.register("Blind-v0", Blind, max_episode_steps=500)
gym.register("Fragile-v0", Fragile, max_episode_steps=500)
