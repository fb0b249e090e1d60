"""Environments for vector environments; light, as worker processes import them."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Corridor(gym.Env):
    """A position as a Dict, moved by the action and by noise; ends after 5 to 9 steps."""

    observation_space = spaces.Dict(
        {
            "position": spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "door": spaces.Tuple((spaces.Discrete(3, start=1), spaces.MultiBinary(2))),
        }
    )
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def _obs(self):
        door = (int(self.left % 3) + 1, np.array([self.left % 2, 1], np.int8))
        return {"position": self.position.copy(), "door": door}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=2) + (options or {}).get("shift", 0.0)
        self.left = int(self.np_random.integers(5, 10))
        return self._obs(), {"left": self.left}

    def step(self, action):
        self.left -= 1
        self.position += action + self.np_random.normal(size=2)
        reward = float(self.position[0])
        return self._obs(), reward, self.left == 0, False, {"left": self.left}


class Unrepeatable(Corridor):
    """Draws its noise from a generator that no reset touches."""

    noise = np.random.default_rng()

    def step(self, action):
        return super().step(action + self.noise.normal(size=2))


class Breaks(Corridor):
    """Raises in the ``when``-th call of ``where``."""

    def __init__(self, where: str, when: int, error: type[BaseException] = ZeroDivisionError):
        self.where, self.when, self.calls, self.error = where, when, 0, error

    def _call(self, where):
        self.calls += where == self.where
        if self.calls == self.when and where == self.where:
            raise self.error("the corridor collapsed")

    def reset(self, *, seed=None, options=None):
        self._call("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self._call("step")
        return super().step(action)


class Chatty(Corridor):
    """Says a lot besides: numbers, arrays, texts, and some of it only now and then."""

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        info |= {"position": self.position.copy(), "nest": {"deep": {"left": self.left}}}
        if self.left % 3 == 0:
            info |= {"word": "three", "flag": True, "list": [self.left], "ratio": self.left / 3}
        return obs, reward, terminated, truncated, info


class Secretive(Corridor):
    """Has something in its infos that cannot leave the process."""

    def step(self, action):
        return *super().step(action)[:4], {"lock": threading.Lock()}


class Odd(Corridor):
    """Returns what its space does not allow, in environments that were given an odd seed."""

    def reset(self, *, seed=None, options=None):
        self.odd = seed is not None and seed % 2 == 1
        return super().reset(seed=seed, options=options)

    def step(self, action):
        obs, *others = super().step(action)
        return ({**obs, "position": np.zeros(3)} if self.odd else obs), *others


class Witness(gym.Env):
    """Observes its process: id, whether torch is imported, whether it may be interrupted."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self, closed=None):
        self.closed = closed

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return np.array([os.getpid(), "torch" in sys.modules, ignored], np.float64), {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}

    def close(self):
        if self.closed is not None:
            Path(self.closed, f"{os.getpid()}").touch()


class Sleepy(Witness):
    """Takes its time for a step."""

    def __init__(self, seconds, closed=None):
        super().__init__(closed)
        self.seconds = seconds

    def step(self, action):
        time.sleep(self.seconds)
        return super().step(action)


class Random(Witness):
    """Has spaces of its own."""

    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(-np.inf, np.inf, (1 + os.getpid() % 1000,), np.float64)


class Dies(Corridor):
    """Ends its process in the third step of its first episode, if its seed says so."""

    def __init__(self, how):
        self.how = how

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.fatal = seed == 43
            self.elapsed = 0
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.elapsed += 1
        if self.fatal and self.elapsed == 3:
            self.how()
        return super().step(action)


def exit_at_once():
    os._exit(3)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def crash():
    signal.raise_signal(signal.SIGSEGV)


def cannot_be_made(how):
    how()
