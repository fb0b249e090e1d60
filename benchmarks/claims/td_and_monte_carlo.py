"""Claim 12: Monte Carlo's targets have no bias, TD's less variance; which predicts better?

    python benchmarks/claims/td_and_monte_carlo.py

Sutton & Barto 2018, example 6.2. Five states in a row; an episode begins in the middle and walks
left or right by a coin, until it leaves on the left for 0 or on the right for 1. The value of a
state is the chance to leave on the right: 1/6 to 5/6. `td_prediction` and `mc_prediction` of rlrun
learn from the same walks, from values of 0.5 on, with γ = 1 and the steps of the book's figure.
"""

from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from common import BLUE, ORANGE, Study, make_run, parse, side_by_side, tidy
from gymnasium import spaces
from matplotlib.figure import Figure

from rlrun.envs.control import EnvStep

REPETITIONS, EPISODES, STATES = 100, 100, 5
STEP_SIZES = {
    "td_prediction": (0.15, 0.1, 0.05),
    "mc_prediction": (0.04, 0.03, 0.02, 0.01),
}
NAMES = {"td_prediction": "TD(0)", "mc_prediction": "Monte Carlo"}


class Walk(gym.Env):
    """The walk, as a table: both of its actions are the coin."""

    observation_space = spaces.Discrete(STATES)
    action_space = spaces.Discrete(2)
    P: ClassVar = {
        s: {
            a: [
                (0.5, max(s - 1, 0), 0.0, s == 0),
                (0.5, min(s + 1, STATES - 1), float(s == STATES - 1), s == STATES - 1),
            ]
            for a in range(2)
        }
        for s in range(STATES)
    }


def one_hot(state: int) -> torch.Tensor:
    """Return the observation of a state, [1, 5]."""
    return torch.eye(STATES)[[state]]


def walk(generator: np.random.Generator) -> list[int]:
    """Return the states of an episode, and −1 or 5 behind them."""
    states = [STATES // 2]
    while 0 <= states[-1] < STATES:
        states.append(states[-1] + int(generator.choice([-1, 1])))
    return states


def learn_from(learner: Any, states: list[int]) -> None:
    """Have a method learn from the steps of an episode."""
    for state, successor in pairwise(states):
        over = not 0 <= successor < STATES
        step = EnvStep(
            obs=one_hot(STATES // 2 if over else successor),
            next_obs=one_hot(state if over else successor),
            reward=torch.tensor([float(successor == STATES)]),
            terminated=torch.tensor([over]),
            truncated=torch.tensor([False]),
        )
        learner.learn(one_hot(state), torch.tensor([0]), step, progress=0.0)


def mean_error(point: tuple[str, float], repetitions: int, episodes: int) -> list[float]:
    """Return the root mean square error over states, before and after each episode.

    It is the mean over repetitions, in each of which all methods learn from the same episodes.
    """
    method, step_size = point
    torch.set_num_threads(1)
    gym.register("Walk-v0", entry_point=lambda **_: Walk(), max_episode_steps=1_000)
    words = [f"algo={method}", "env=gym", "env.id=Walk-v0", "logger=none", "algo.gamma=1"]
    every = ["algo.visits=every"] if method == "mc_prediction" else []
    run = make_run([*words, *every, f"algo.step_size={step_size}"])
    learner: Any = run.algorithm
    value, exact = learner.agent.value, learner.body.exact
    errors = np.zeros((repetitions, episodes + 1))
    for repetition in range(repetitions):
        generator = np.random.default_rng(repetition)
        value.fill_(0.5)
        for episode in range(episodes + 1):
            errors[repetition, episode] = (value - exact).square().mean().sqrt()
            learn_from(learner, walk(generator))
    run.close()
    return [float(error) for error in errors.mean(0)]


def main() -> None:
    """Learn and draw."""
    study: Study = parse(__file__, __doc__)
    repetitions, episodes = (2, 10) if study.quick else (REPETITIONS, EPISODES)
    points = [(method, size) for method, sizes in STEP_SIZES.items() for size in sizes]
    function = partial(mean_error, repetitions=repetitions, episodes=episodes)
    curves = dict(zip(points, side_by_side(study, function, points), strict=True))
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (method, size), curve in curves.items():
        sizes = STEP_SIZES[method]
        color = BLUE if method == "td_prediction" else ORANGE
        alpha = 1 - 0.2 * sizes.index(size)
        axes.plot(curve, color=color, lw=1.3, alpha=alpha, label=f"{NAMES[method]}, α = {size:g}")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=7, ncols=2)
    title = f"random walk, mean of {repetitions} repetitions (Sutton & Barto, example 6.2)"
    tidy(axes, title=title, x="episodes", y="RMS error of V over the states")
    result = {
        "repetitions": repetitions,
        "errors": {f"{method} {size:g}": curve for (method, size), curve in curves.items()},
        "lowest": {f"{method} {size:g}": min(curve) for (method, size), curve in curves.items()},
    }
    study.write(result, figure)
    print(result["lowest"])


if __name__ == "__main__":
    main()
