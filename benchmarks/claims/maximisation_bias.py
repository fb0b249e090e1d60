"""Claim 6: the largest of noisy values is too large, and a second table takes that away.

    python benchmarks/claims/maximisation_bias.py

Sutton & Barto 2018, example 6.7 and figure 6.5. In A, `right` ends the episode with reward 0,
`left` leads to B with reward 0, where each of ten actions ends it with a reward of N(−0.1, 1):
`left` is worth −0.1, and an ε-greedy policy should take it as seldom as ε allows. Q-learning and
double Q-learning of rlrun, tables of 0 at the start, α = 0.1, ε = 0.1, γ = 1. The update is theirs;
the script acts by their tables, as A has two actions and B has ten.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from common import COLORS, Study, make_run, parse, side_by_side, tidy
from gymnasium import spaces
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlrun.envs.control import EnvStep
from rlrun.runs.setup.assembly import Assembly

REPETITIONS, EPISODES, EPSILON, STEP_SIZE = 2_000, 300, 0.1, 0.1
A, B, END = range(3)
LEFT, RIGHT = range(2)
MOVES = {A: 2, B: 10}
METHODS = {"q_learning": "Q-learning", "double_q_learning": "double Q-learning"}
CHUNKS = 8  # processes' worth of repetitions


class Places(gym.Env):
    """A, B and the end: says how large the tables are. The script makes the steps up."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(max(MOVES.values()))


def one_hot(state: int) -> torch.Tensor:
    """Return the observation of a state, [1, 3]."""
    return torch.eye(3)[[state]]


def choose(values: NDArray, generator: np.random.Generator) -> int:
    """Draw an ε-greedy action from values [A], one of the best at random."""
    if generator.random() < EPSILON:
        return int(generator.integers(len(values)))
    return int(generator.choice(np.flatnonzero(values == values.max())))


def repeat(run: Assembly, seed: int, episodes: int) -> NDArray:
    """Return whether each episode of a new learner went left, [episodes] (bool)."""
    generator = np.random.default_rng(seed)
    again = Assembly(replace(run.experiment, seed=seed), checkpoint=None)
    learner: Any = again.algorithm  # of the online loop
    went_left = np.zeros(episodes, bool)
    values = learner.agent.action_value.numpy()
    for episode in range(episodes):
        state = A
        while state != END:
            action = choose(values[state, : MOVES[state]], generator)
            went_left[episode] |= (state, action) == (A, LEFT)
            successor = B if (state, action) == (A, LEFT) else END
            reward = generator.normal(-0.1, 1.0) if state == B else 0.0
            step = EnvStep(
                obs=one_hot(successor),
                next_obs=one_hot(successor),
                reward=torch.tensor([reward]),
                terminated=torch.tensor([successor == END]),
                truncated=torch.tensor([False]),
            )
            learner.learn(one_hot(state), torch.tensor([action]), step, progress=0.0)
            state = successor
    again.close()
    return went_left


def count(point: tuple[str, range], episodes: int) -> NDArray:
    """Return how many repetitions of a method went left in each episode, [episodes]."""
    method, seeds = point
    torch.set_num_threads(1)
    gym.register("Places-v0", entry_point=lambda **_: Places(), max_episode_steps=2)
    words = [f"algo={method}", "env=gym", "env.id=Places-v0", "logger=none"]
    run = make_run([*words, f"algo.step_size={STEP_SIZE}"])
    counts = np.zeros(episodes, int)
    for seed in seeds:
        counts += repeat(run, seed, episodes)
    run.close()
    return counts


def shares(study: Study, repetitions: int, episodes: int) -> dict[str, list[float]]:
    """Return the share of repetitions that went left, by method and episode."""
    size = repetitions // CHUNKS
    chunks = [range(first, first + size) for first in range(0, size * CHUNKS, size)]
    points = [(method, chunk) for method in METHODS for chunk in chunks]
    counts = side_by_side(study, partial(count, episodes=episodes), points)
    return {
        method: (np.sum(counts[first : first + CHUNKS], axis=0) / (size * CHUNKS)).tolist()
        for first, method in zip(range(0, len(points), CHUNKS), METHODS, strict=True)
    }


def main() -> None:
    """Learn and draw."""
    study = parse(__file__, __doc__)
    repetitions, episodes = (CHUNKS, 20) if study.quick else (REPETITIONS, EPISODES)
    left = shares(study, repetitions, episodes)
    figure = Figure(figsize=(6, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (method, curve), color in zip(left.items(), COLORS, strict=False):
        percent = 100 * np.array(curve)
        axes.plot(np.arange(episodes) + 1, percent, color=color, lw=1.2, label=METHODS[method])
    axes.axhline(100 * EPSILON / 2, color="0.4", ls="--", lw=1, label="as seldom as ε allows")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, fontsize=8)
    tidy(
        axes,
        title=f"A to the left, {repetitions:,} repetitions (Sutton & Barto, figure 6.5)",
        x="episode",
        y="% of repetitions that go left",
    )
    result = {
        "repetitions": repetitions,
        "epsilon": EPSILON,
        "step_size": STEP_SIZE,
        "left": left,
        "last_100": {method: float(np.mean(curve[-100:])) for method, curve in left.items()},
        "highest": {method: max(curve) for method, curve in left.items()},
    }
    study.write(result, figure)
    print(result["last_100"], result["highest"])


if __name__ == "__main__":
    main()
