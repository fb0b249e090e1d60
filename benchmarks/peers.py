"""Times PPO of another library in this process; `throughput.py` runs it in the peers' interpreter.

    python benchmarks/peers.py stable_baselines3 Hopper-v5 --num-envs 8 --steps 100000 --threads 1

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

# The settings that `throughput.py` gives rlrun too.
STEPS_PER_ITERATION = 2048
EPOCHS = 10
MINIBATCH_SIZE = 64
HIDDEN_SIZES = [64, 64]


def measure(library: str, env_id: str, *, num_envs: int, steps: int, threads: int) -> dict:
    """Train for one iteration, then time the following ones.

    Args:
        library: module with Stable-Baselines3's interface: stable_baselines3 or sbx.
        env_id: Gymnasium id.
        num_envs: environments stepped one after the other (DummyVecEnv).
        steps: environment steps to time, rounded up to whole iterations.
        threads: of torch; SBX computes with JAX, which takes all cores.
    """
    import numpy as np
    import torch
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(threads)
    model = import_module(library).PPO(
        "MlpPolicy",
        make_vec_env(env_id, n_envs=num_envs, seed=0),
        n_steps=STEPS_PER_ITERATION // num_envs,
        batch_size=MINIBATCH_SIZE,
        n_epochs=EPOCHS,
        learning_rate=3e-4,
        gamma=0.99,
        gae_lambda=0.95,
        clip_range=0.2,
        ent_coef=0.0,
        vf_coef=0.5,
        max_grad_norm=0.5,
        # The activation is tanh in both libraries; policy and critic are two networks.
        policy_kwargs={"net_arch": {"pi": HIDDEN_SIZES, "vf": HIDDEN_SIZES}},
        device="cpu",
        seed=0,
    )
    model.learn(STEPS_PER_ITERATION)
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
    parser.add_argument("library", choices=["stable_baselines3", "sbx"])
    parser.add_argument("env_id")
    parser.add_argument("--num-envs", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    result = measure(
        arguments.library,
        arguments.env_id,
        num_envs=arguments.num_envs,
        steps=arguments.steps,
        threads=arguments.threads,
    )
    packages = ["stable_baselines3", "torch", "gymnasium", "mujoco"]
    if arguments.library == "sbx":
        packages += ["sbx-rl", "jax"]
    result["versions"] = {
        "python": sys.version.split()[0],
        **{package: version(package) for package in packages},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
