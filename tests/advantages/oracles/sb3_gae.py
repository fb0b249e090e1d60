"""Records what Stable-Baselines3 makes of a rollout, as an oracle for ``test_advantages.py``.

python -m venv peer && peer/bin/pip install stable-baselines3==2.9.2
peer/bin/python tests/advantages/oracles/sb3_gae.py > tests/advantages/oracles/sb3_gae.json
"""

import json

import numpy as np
import stable_baselines3
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.buffers import RolloutBuffer

STEPS, ENVS, GAMMA = 13, 3, 0.97


def advantages(
    reward: np.ndarray, value: np.ndarray, done: np.ndarray, last_value: np.ndarray, lam: float
) -> np.ndarray:
    """Return SB3's advantages, [T, N]."""
    box = Box(-1, 1, (1,))
    buffer = RolloutBuffer(STEPS, box, box, gae_lambda=lam, gamma=GAMMA, n_envs=ENVS)
    blank = np.zeros((ENVS, 1))
    for t in range(STEPS):
        started = done[t - 1] if t > 0 else np.ones(ENVS)
        buffer.add(blank, blank, reward[t], started, torch.tensor(value[t]), torch.zeros(ENVS))
    buffer.compute_returns_and_advantage(torch.tensor(last_value), done[-1])
    return buffer.advantages


def main() -> None:
    """Draw a rollout with both kinds of episode ends and print it with SB3's answers."""
    generator = np.random.default_rng(0)
    reward, value, final = (generator.normal(size=(STEPS, ENVS)).round(2) for _ in range(3))
    terminated = generator.random((STEPS, ENVS)) < 0.15
    truncated = ~terminated & (generator.random((STEPS, ENVS)) < 0.15)
    terminated[-1], truncated[-1] = [True, False, False], [False, True, False]
    done = terminated | truncated
    # V(s_{t+1}): of the final observation where an episode ended, else of the next row.
    next_value = np.where(done, final, np.vstack([value[1:], final[-1:]]))
    # SB3 has one flag; its PPO adds γ V(final observation) to the reward of a truncated step.
    bootstrapped = reward + GAMMA * truncated * next_value
    record = {
        "stable_baselines3": stable_baselines3.__version__,
        "gamma": GAMMA,
        "reward": reward.tolist(),
        "value": value.tolist(),
        "next_value": next_value.tolist(),
        "terminated": terminated.tolist(),
        "truncated": truncated.tolist(),
        "advantage": {
            str(lam): advantages(bootstrapped, value, done, final[-1], lam).tolist()
            for lam in (0.0, 0.5, 0.95, 1.0)
        },
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
