"""Records what Stable-Baselines3's off-policy updates do, for ``test_off_policy_peer.py``.

python -m venv peer && peer/bin/pip install stable-baselines3==2.9.2
peer/bin/python tests/algos/oracles/sb3_updates.py > tests/algos/oracles/sb3_updates.json

Each algorithm takes its updates on given minibatches and given noise; recorded are the weights
before and after.
"""

import copy
import json
from collections.abc import Iterator
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples

BATCH, OBS, ACTIONS, UPDATES = 6, 3, 2, 2
LEARNING_RATE, GAMMA, TAU = 1e-2, 0.9, 0.1
COMMON = {
    "learning_rate": LEARNING_RATE,
    "gamma": GAMMA,
    "tau": TAU,
    "batch_size": BATCH,
    "buffer_size": 10,
    "policy_kwargs": {"net_arch": [5, 4], "activation_fn": torch.nn.ReLU},
    "seed": 1,
    "device": "cpu",
}


class Space(gym.Env):
    """An environment that has spaces and nothing else."""

    observation_space = spaces.Box(-np.inf, np.inf, (OBS,), np.float32)

    def __init__(self, action_space: spaces.Space):
        self.action_space = action_space


def batches(discrete: bool) -> list[dict[str, torch.Tensor]]:
    """Make minibatches, some of whose rows are terminal."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    made = []
    for _ in range(UPDATES):
        action = normal(BATCH, ACTIONS).tanh()
        if discrete:
            action = torch.randint(ACTIONS, (BATCH, 1), generator=generator)
        made.append(
            {
                "observations": normal(BATCH, OBS),
                "actions": action,
                "next_observations": normal(BATCH, OBS),
                "dones": (torch.arange(BATCH) % 3 == 0).float().unsqueeze(-1),
                "rewards": normal(BATCH, 1),
            }
        )
    return made


def plain(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return numbers in place of tensors."""
    return {name: tensor.tolist() for name, tensor in tensors.items()}


def record(model: Any, discrete: bool, updates: int, noises: int) -> dict[str, Any]:
    """Have a model take its updates, and return all that is needed to take them again."""
    data = batches(discrete)[:updates]
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(updates, noises, BATCH, ACTIONS, generator=generator)
    drawn: Iterator[torch.Tensor] = iter(noise.flatten(0, 1))
    samples = iter(data)

    def normal_(tensor: torch.Tensor, mean: float = 0, std: float = 1) -> torch.Tensor:
        return tensor.copy_(mean + std * next(drawn))

    def rsample(self: torch.distributions.Normal, shape: Any = ()) -> torch.Tensor:
        return self.loc + self.scale * next(drawn)

    if isinstance(model, SAC):
        # Its log(1 − tanh² u + 1e-6) is not quite the density's.
        model.actor.action_dist.epsilon = 0.0
    model.replay_buffer.sample = lambda *_, **__: ReplayBufferSamples(**next(samples))
    model._logger = Logger(None, [])
    # Targets that differ from the networks.
    for name, parameter in model.policy.named_parameters():
        if "target" in name:
            with torch.no_grad():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    before = plain(model.policy.state_dict())
    with (
        mock.patch.object(torch.Tensor, "normal_", normal_),
        mock.patch.object(torch.distributions.Normal, "rsample", rsample),
    ):
        model.train(gradient_steps=updates, batch_size=BATCH)
    result = {
        "batches": [plain(batch) for batch in data],
        "noise": noise.tolist(),
        "before": before,
        "after": plain(model.policy.state_dict()),
    }
    if isinstance(model, SAC):
        result["log_temperature"] = model.log_ent_coef.item()
    return result


def main() -> None:
    """Print the record."""
    box = Space(spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32))
    choice = Space(spaces.Discrete(ACTIONS))
    quiet = {"target_policy_noise": 0.2, "target_noise_clip": 0.3}
    records = {
        # SB3 draws for the policy first, then for the target.
        "sac": record(
            SAC("MlpPolicy", box, ent_coef="auto_0.5", **copy.deepcopy(COMMON)), False, 2, 2
        ),
        "td3": record(
            TD3("MlpPolicy", box, policy_delay=2, **quiet, **copy.deepcopy(COMMON)), False, 2, 1
        ),
        "ddpg": record(DDPG("MlpPolicy", box, **copy.deepcopy(COMMON)), False, 2, 1),
        "dqn": record(
            DQN("MlpPolicy", choice, max_grad_norm=0.5, **copy.deepcopy(COMMON)), True, 2, 0
        ),
    }
    settings = {"learning_rate": LEARNING_RATE, "gamma": GAMMA, "tau": TAU}
    version = {"stable_baselines3": stable_baselines3.__version__, "torch": torch.__version__}
    print(json.dumps({**version, "settings": settings, **records}))


if __name__ == "__main__":
    main()
