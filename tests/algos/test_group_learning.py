"""RLOO, GRPO, DAPO and GSPO learn, and with a flipped sign they do not."""

import pytest
from tiny import (
    Corridor,
    PointMass,
    control,
    estimator_of,
    greedy_return,
    learn,
    set_up,
    small_model,
)
from torch import Tensor

from rlrun.data.rollout import Rollout

every_algorithm = pytest.mark.parametrize("algo", ["rloo", "grpo", "dapo", "gspo"])
SETTINGS = {"epochs": 4, "episodes_per_minibatch": 8, "learning_rate": 1e-2}


def trained_return(algo: str, make_env, *, iterations: int, sign: int = 1) -> float:
    """The greedy policy's mean return after training; −1 as the sign is the classic mistake."""
    estimator = estimator_of(algo)

    def signed(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
        advantage, target = estimator(rollout, gamma=gamma)
        return sign * advantage, target

    env = control(make_env, 32)
    model = small_model(hidden_sizes=[16])
    algorithm, collector = set_up(
        env, algo, group_size=8, estimator=signed, model=model, **SETTINGS
    )
    learn(algorithm, collector, iterations)
    return greedy_return(make_env, algorithm)


# Four steps to the right end at 0.7; whoever does not arrive has -1.5.
@every_algorithm
def test_a_corridor_is_walked_to_its_end(algo):
    assert trained_return(algo, Corridor, iterations=15) == pytest.approx(0.7)


@every_algorithm
def test_with_the_sign_of_the_advantage_flipped_it_is_not(algo):
    assert trained_return(algo, Corridor, iterations=6, sign=-1) < 0.0


# Doing nothing pays 10·E[x²] = 10/3; driven away it is 10·4.
@every_algorithm
def test_a_point_is_brought_to_its_place(algo):
    assert trained_return(algo, PointMass, iterations=30) > -1.5


@every_algorithm
def test_with_the_sign_of_the_advantage_flipped_it_is_driven_away(algo):
    assert trained_return(algo, PointMass, iterations=12, sign=-1) < -10.0
