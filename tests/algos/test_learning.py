"""Whether it learns: seconds of training, thresholds with a margin, fixed seeds."""

from collections.abc import Callable
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from tiny import (
    Corridor,
    PointMass,
    control,
    learn,
    rollout_of,
    set_up,
    small_model,
    trained_return,
)

from rlrun.advantages.temporal import baseline_value, gae, nstep, td

ESTIMATORS = {
    "td": td,
    "nstep": partial(nstep, n=5),
    "gae": partial(gae, lam=0.95),
    "baseline_value": baseline_value,
}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
SETTINGS = {
    "horizon": 32,
    "epochs": 5,
    "minibatch_size": 64,
    "learning_rate": 1e-2,
    "gamma": 0.9,
}


# Four steps to the right end at 0.7; whoever does not arrive has -1.5. The only reward for going
# right is at the end, so the estimate must carry it back.
CORRIDOR = partial(trained_return, Corridor, iterations=15, **SETTINGS)


@every_estimator
def test_a_corridor_is_walked_to_its_end(estimator):
    assert CORRIDOR(estimator=estimator) == pytest.approx(0.7)


@every_estimator
def test_with_the_sign_of_the_advantage_flipped_it_is_not(estimator):
    assert CORRIDOR(estimator=estimator, sign=-1) < 0.0


# Doing nothing pays 10·E[x²] = 10/3; the best policy jumps to 0 within two steps, which leaves less
# than E[max(|x| − ½, 0)²] + … < 0.1.
POINT_MASS = partial(trained_return, PointMass, iterations=25, **SETTINGS)


@every_estimator
def test_a_point_is_brought_to_its_place(estimator):
    assert POINT_MASS(estimator=estimator) > -0.5


@every_estimator
def test_with_the_sign_of_the_advantage_flipped_it_is_driven_away(estimator):
    assert POINT_MASS(estimator=estimator, sign=-1) < -10.0


# An untrained policy keeps the pole up for about 20 steps of 500.
CARTPOLE = partial(
    trained_return,
    lambda: gym.make("CartPole-v1"),
    iterations=20,
    estimator=ESTIMATORS["gae"],
    width=32,
    **{**SETTINGS, "horizon": 128, "minibatch_size": 256, "gamma": 0.99},
)


def test_a_pole_is_balanced():
    assert CARTPOLE() > 400


def test_with_the_sign_of_the_advantage_flipped_it_falls():
    assert CARTPOLE(iterations=5, sign=-1) < 50


class Waiting(gym.Env):
    """Pays 1 a step, whatever is done, and ends after four steps in one of the two ways."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, terminates: bool):
        self.terminates = terminates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.elapsed = 0
        return np.ones(1, np.float32), {}

    def step(self, action):
        self.elapsed += 1
        over = self.elapsed == 4
        flags = over and self.terminates, over and not self.terminates
        return np.ones(1, np.float32), 1.0, *flags, {}


def learned_value(estimator: Callable, *, terminates: bool) -> float:
    """What the critic thinks of the one state that Waiting shows, at γ = 0.8."""
    raw = {"normalization.reward": False, "normalization.observation": False}
    settings = {**SETTINGS, "gamma": 0.8, "learning_rate": 3e-2, "minibatch_size": 256}
    env = control(lambda: Waiting(terminates), 8)
    model = small_model(hidden_sizes=[16])
    algorithm, collector = set_up(env, estimator=estimator, model=model, **settings, **raw)
    learn(algorithm, collector, 40)
    rollout = rollout_of(algorithm, collector.collect(algorithm.agent.actor))
    return rollout.columns["value"].mean().item()


@every_estimator
def test_a_truncated_episode_would_have_gone_on(estimator):
    # V = 1 + γV for ever: 1/(1 − γ) = 5
    assert learned_value(estimator, terminates=False) == pytest.approx(5.0, abs=0.05)


@pytest.mark.parametrize(("name", "decay"), [("td", 0.0), ("nstep", 0.8), ("gae", 0.8 * 0.95)])
def test_a_terminated_episode_is_worth_what_it_paid(name, decay):
    # δ = 1 + γV − V before the last step and 1 − V there. With the decay c the advantages of the
    # four steps, which look alike, sum to A·(1 − V/5) + B·(1 − V) and to 0 where V settles.
    a = 3 + 2 * decay + decay**2  # δ₀, δ₁ (1 + c) and δ₂ (1 + c + c²)
    b = 1 + decay + decay**2 + decay**3
    # 2.5 for td, where V bootstraps from itself; 2.048 = mean of 1, 1.8, 2.44, 2.952 for c = γ
    value = (a + b) / (a / 5 + b)
    assert learned_value(ESTIMATORS[name], terminates=True) == pytest.approx(value, abs=0.05)
