"""Trains Stable-Baselines3 with rlrun's settings; `sample_efficiency.py` runs it in the peers' own.

    peers/bin/python benchmarks/peer_curves.py sac Hopper-v5 --seed 10 --steps 100000 settings.json

Prints one line of JSON for each evaluation: step and mean return of greedy episodes.
"""

import argparse
import json
from pathlib import Path
from typing import Any


def make_model(algorithm: str, env_id: str, seed: int, given: dict[str, Any]):
    """Make a model that does what rlrun's settings say.

    Args:
        algorithm: ddpg, td3 or sac.
        env_id: Gymnasium id.
        seed: of all that is random.
        given: rlrun's settings of the algorithm.
    """
    import numpy as np
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.noise import NormalActionNoise

    env = make_vec_env(env_id, n_envs=1, seed=seed)
    replay = given["replay"]
    settings: dict[str, Any] = {
        # The policy's and the critics' are the same in rlrun's files.
        "learning_rate": given["critic_optimizer"]["learning_rate"],
        "buffer_size": replay["capacity"],
        "batch_size": replay["batch_size"],
        "learning_starts": replay["warmup_steps"],
        "gamma": given["gamma"],
        "tau": given["target_rate"],
        "train_freq": 1,
        "gradient_steps": 1,
        "policy_kwargs": {"net_arch": [256, 256]},
    }
    if "noise" in given:
        size = env.action_space.shape[0]
        settings["action_noise"] = NormalActionNoise(
            np.zeros(size), given["noise"]["std"] * np.ones(size)
        )
    if "policy_delay" in given:
        settings["policy_delay"] = given["policy_delay"]
        settings["target_policy_noise"] = given["target_noise"]
        settings["target_noise_clip"] = given["target_noise_clip"]
    model = vars(stable_baselines3)[algorithm.upper()]
    return model("MlpPolicy", env, seed=seed, device="cpu", **settings)


def main() -> None:
    """Train, and evaluate on the way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("algorithm", choices=["ddpg", "td3", "sac"])
    parser.add_argument("env_id")
    parser.add_argument("settings", type=Path, help="JSON of rlrun's settings of the algorithm")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--every", type=int, required=True, help="steps between evaluations")
    arguments = parser.parse_args()

    import gymnasium
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    torch.set_num_threads(1)
    given = json.loads(arguments.settings.read_text())
    model = make_model(arguments.algorithm, arguments.env_id, arguments.seed, given)
    env = Monitor(gymnasium.make(arguments.env_id))
    env.reset(seed=arguments.seed + 1000)

    class Evaluate(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % arguments.every == 0:
                mean, _ = evaluate_policy(self.model, env, n_eval_episodes=10)
                print(json.dumps({"step": self.num_timesteps, "return": float(mean)}), flush=True)
            return True

    model.learn(arguments.steps, callback=Evaluate())


if __name__ == "__main__":
    main()
