"""Measures what acting at random returns: the zero of normalised scores in ``published.yaml``.

    python benchmarks/random_returns.py

Actions are drawn uniformly from the action space, in Gymnasium's own environments, for 100 episodes
each. Prints the block ``scores`` of ``published.yaml``, with the best mean that stands there as 1.
"""

import argparse

import gymnasium
import numpy as np
import yaml
from published import best_mean, budgets

from rlrun.config.files import conf_directory

EPISODES = 100


def random_returns(env_id: str, episodes: int) -> np.ndarray:
    """Return the undiscounted returns of episodes with uniform actions, [episodes].

    Args:
        env_id: Gymnasium's id.
        episodes: how many; the first starts from seed 0, and its actions do, too.
    """
    env = gymnasium.make(env_id)
    env.action_space.seed(0)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        env.reset(seed=episode)
        over = False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            returns[episode] += float(reward)
            over = terminated or truncated
    env.close()
    return returns


def main() -> None:
    """Print what to put into the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--envs", nargs="+", default=list(budgets()))
    parser.add_argument("--episodes", type=int, default=EPISODES)
    arguments = parser.parse_args()
    print("scores:")
    for env in arguments.envs:
        env_id = yaml.safe_load((conf_directory() / "env" / f"{env}.yaml").read_text())["id"]
        worst = random_returns(env_id, arguments.episodes).mean()
        print(f"  {env_id}: {{min: {worst:.4g}, max: {best_mean(env):g}}}", flush=True)


if __name__ == "__main__":
    main()
