"""Times an algorithm of another library in this process; `throughput.py` runs it in the peers' own.

    python benchmarks/peers.py ppo sbx Hopper-v5 --num-envs 8 --steps 100000 --threads 1

Prints one line of JSON. Imports, start-up and the first iteration (where SBX compiles) do not
count. Observations and rewards are not normalised and nothing is evaluated or logged, which makes
these libraries faster than what rlrun does in the same time.
"""

import argparse
import json
import sys
import time
from importlib import import_module
from importlib.metadata import version

# The settings that `throughput.py` gives rlrun too (`measure.SETTINGS`).
STEPS_PER_ITERATION = {"ppo": 2048, "trpo": 2048, "a2c": 80}
HIDDEN_SIZES = [64, 64]
# Of the methods with a replay buffer: the steps before the clock starts, the first half of which
# are random and not learned from.
STEPS_BEFORE = 2000
PPO = {
    "batch_size": 64,
    "n_epochs": 10,
    "learning_rate": 3e-4,
    "clip_range": 0.2,
    "ent_coef": 0.0,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
}
TRPO = {
    "batch_size": 128,  # of the critic
    "n_critic_updates": 20,
    "learning_rate": 1e-3,
    "cg_max_steps": 15,
    "cg_damping": 0.1,
    "line_search_max_iter": 10,
    "target_kl": 0.01,
}
A2C = {"learning_rate": 7e-4, "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5}

REPLAY = {"batch_size": 256, "buffer_size": 1_000_000, "gamma": 0.99}
WIDE = [256, 256]
OFF_POLICY = ("dqn", "ddpg", "td3", "sac")

# By module that the algorithm is taken from.
PACKAGES = {
    "stable_baselines3": ["stable_baselines3"],
    "sb3_contrib": ["stable_baselines3", "sb3_contrib"],
    "sbx": ["stable_baselines3", "sbx-rl", "jax"],
}


def make_model(algorithm: str, library: str, env_id: str, *, num_envs: int):
    """Make a model with Stable-Baselines3's interface.

    Args:
        algorithm: ppo, trpo, a2c, dqn, ddpg, td3 or sac.
        library: module that has it: stable_baselines3, sb3_contrib or sbx.
        env_id: Gymnasium id.
        num_envs: environments stepped one after the other (DummyVecEnv).
    """
    from stable_baselines3.common.env_util import make_vec_env

    module = import_module(library)
    if algorithm in OFF_POLICY:
        return vars(module)[algorithm.upper()](
            "MlpPolicy",
            make_vec_env(env_id, n_envs=num_envs, seed=0),
            learning_starts=STEPS_BEFORE // 2,
            train_freq=1,
            # One update for each environment step.
            gradient_steps=num_envs,
            policy_kwargs={"net_arch": WIDE},
            device="cpu",
            seed=0,
            **REPLAY,
        )
    match algorithm:
        case "ppo":
            model, settings = module.PPO, PPO
        case "trpo":
            model, settings = module.TRPO, TRPO
        case "a2c":
            model, settings = module.A2C, A2C
    return model(
        "MlpPolicy",
        make_vec_env(env_id, n_envs=num_envs, seed=0),
        n_steps=STEPS_PER_ITERATION[algorithm] // num_envs,
        gamma=0.99,
        gae_lambda=0.95,
        # The activation is tanh in these libraries; policy and critic are two networks.
        policy_kwargs={"net_arch": {"pi": HIDDEN_SIZES, "vf": HIDDEN_SIZES}},
        device="cpu",
        seed=0,
        **settings,
    )


def measure(
    algorithm: str, library: str, env_id: str, *, num_envs: int, steps: int, threads: int
) -> dict:
    """Train for one iteration, then time the following ones.

    Args:
        algorithm: as for `make_model`, like the next three.
        library: module that has the algorithm.
        env_id: Gymnasium id.
        num_envs: environments stepped one after the other.
        steps: environment steps to time, rounded up to whole iterations.
        threads: of torch; SBX computes with JAX, which takes all cores.
    """
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    model = make_model(algorithm, library, env_id, num_envs=num_envs)
    model.learn(STEPS_PER_ITERATION.get(algorithm, STEPS_BEFORE))
    first = model.num_timesteps
    start = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    seconds = time.perf_counter() - start
    return {
        "steps_per_s": (model.num_timesteps - first) / seconds,
        "steps": model.num_timesteps - first,
        "seconds": seconds,
        # Of the last 100 training episodes.
        "return": float(np.mean([episode["r"] for episode in model.ep_info_buffer])),
    }


def main() -> None:
    """Measure, and print the result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("algorithm", choices=[*STEPS_PER_ITERATION, *OFF_POLICY])
    parser.add_argument("library", choices=PACKAGES)
    parser.add_argument("env_id")
    parser.add_argument("--num-envs", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    result = measure(**vars(arguments))
    result["versions"] = {
        "python": sys.version.split()[0],
        **{
            package: version(package)
            for package in [*PACKAGES[arguments.library], "torch", "gymnasium", "mujoco"]
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
