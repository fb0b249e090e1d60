"""Small environments, PPO for them, and torch's optimiser, that several tests share."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from rlrun.advantages import gae
from rlrun.algos.ppo import PPO
from rlrun.config import conf_directory
from rlrun.envs.control import ControlEnv
from rlrun.envs.serial import SerialVectorEnv
from rlrun.hardware import Hardware
from rlrun.learner import Learner
from rlrun.normalize import ObservationNormalizer, RewardNormalizer
from rlrun.rollout import Collector
from rlrun.seeding import Streams

CPU = Hardware(device="cpu", threads=1, learner_threads=1, compile="off")
DEFAULT_GAE = partial(gae, lam=0.95)


class Counting(gym.Env):
    """Observes (environment, episode, step), so that every row says where it comes from.

    Episodes are 1 to 4 steps long, in a pattern that differs between environments, and end in
    turns by termination and truncation. The reward is 100·environment + 10·episode + step.

    Attributes:
        received: the actions, as they reached the environment.
    """

    def __init__(self, index: int, action_space: spaces.Space):
        self.index = index
        self.action_space = action_space
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.episode = -1
        self.received: list[Any] = []

    @staticmethod
    def length(index: int, episode: int) -> int:
        """Steps of an episode."""
        return 1 + (index + 2 * episode) % 4

    def _obs(self) -> np.ndarray:
        return np.array([self.index, self.episode, self.elapsed], np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.elapsed = 0
        return self._obs(), {}

    def step(self, action):
        self.received.append(np.array(action))
        reward = 100 * self.index + 10 * self.episode + self.elapsed
        self.elapsed += 1
        over = self.elapsed == self.length(self.index, self.episode)
        terminates = self.episode % 2 == 0
        return self._obs(), float(reward), over and terminates, over and not terminates, {}


class Corridor(gym.Env):
    """Five places in a row: start in the first, win 1 in the last, pay 0.1 a step until then.

    The best return is 1 − 3·0.1 = 0.7; who never arrives is cut after 15 steps, at −1.5.
    """

    places, limit = 5, 15
    observation_space = spaces.Discrete(places)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.elapsed = 0, 0
        return self.place, {}

    def step(self, action):
        self.place = min(max(self.place + (1 if action == 1 else -1), 0), self.places - 1)
        self.elapsed += 1
        won = self.place == self.places - 1
        return self.place, 1.0 if won else -0.1, won, not won and self.elapsed == self.limit, {}


class PointMass(gym.Env):
    """A point in [−2, 2] that an action in [−1, 1] moves by 0.5·a; pays its squared distance from
    0 for 10 steps, then is cut."""

    observation_space = spaces.Box(-2.0, 2.0, (1,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1.0, 1.0, 1)
        self.elapsed = 0
        return self.place.copy(), {}

    def step(self, action):
        self.place = np.clip(self.place + 0.5 * action, -2.0, 2.0)
        self.elapsed += 1
        return self.place.copy(), -float(self.place[0] ** 2), False, self.elapsed == 10, {}


def control(make_env: Callable[[], gym.Env], num_envs: int) -> ControlEnv:
    """What the loops see of N of these environments."""
    return ControlEnv(SerialVectorEnv([make_env] * num_envs))


def counting(num_envs: int, action_space: spaces.Space) -> tuple[ControlEnv, list[Counting]]:
    """Counting environments, together and one by one."""
    envs = [Counting(index, action_space) for index in range(num_envs)]
    return ControlEnv(SerialVectorEnv([lambda env=env: env for env in envs])), envs


def ppo(**changes: Any) -> PPO:
    """PPO as in conf/algo/ppo.yaml, but small; and with some changes."""
    settings: dict[str, Any] = OmegaConf.to_container(
        OmegaConf.load(conf_directory() / "algo" / "ppo.yaml")
    )
    del settings["defaults"], settings["_target_"]
    small = {"num_envs": 4, "horizon": 8, "epochs": 2, "minibatch_size": 8, "hidden_sizes": [8]}
    return PPO(**{**settings, **small, **changes})


def set_up(
    env: ControlEnv,
    *,
    seed: int = 0,
    estimator: Callable = DEFAULT_GAE,
    hardware: Hardware = CPU,
    **changes: Any,
) -> tuple[PPO, Collector]:
    """PPO for these environments, and what collects its rollouts from them."""
    algorithm = ppo(num_envs=env.num_envs, **changes)
    streams = Streams.from_seed(seed)
    algorithm.setup(
        env.obs_size,
        env.action_space,
        hardware=hardware,
        streams=streams,
        estimator=estimator,
        compiled=hardware.should_compile(updates=0),
    )
    clip = algorithm.normalizer_clip
    collector = Collector(
        env,
        horizon=algorithm.horizon,
        observation_normalizer=ObservationNormalizer(
            env.obs_size, clip=clip, enabled=algorithm.normalize_observation
        ),
        reward_normalizer=RewardNormalizer(
            env.num_envs, gamma=algorithm.gamma, clip=clip, enabled=algorithm.normalize_reward
        ),
        device=torch.device("cpu"),
    )
    collector.reset(streams.env)
    return algorithm, collector


def torchs_step(
    learner: Learner, loss: Callable[[nn.Module], Tensor], learning_rate: float
) -> tuple[Tensor, float]:
    """A step of torch's own optimiser from where a learner stands, which stays there.

    Args:
        learner: its weights, moments and constants are taken.
        loss: of a network of the learner's kind, for autograd.
        learning_rate: step size.

    Returns:
        The new θ [P], and the norm of the gradient before it was clipped.
    """
    network = copy.deepcopy(learner.network)
    m, v = (learner.parameters.unflatten(moment) for moment in (learner.adam.m, learner.adam.v))
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, eps=learner.adam_epsilon)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(True)
        optimizer.state[parameter] = {
            "step": learner.adam.t.clone(),
            "exp_avg": m[name].clone(),
            "exp_avg_sq": v[name].clone(),
        }
    loss(network).backward()
    norm = clip_grad_norm_(network.parameters(), learner.max_grad_norm)
    optimizer.step()
    return torch.cat([p.detach().flatten() for p in network.parameters()]), norm.item()
