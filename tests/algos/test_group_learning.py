"""RLOO, GRPO, DAPO, GSPO and CISPO learn, and with a flipped sign they do not."""

from functools import partial

import pytest
from tiny import (
    Corridor,
    PointMass,
    trained_return,
)

every_algorithm = pytest.mark.parametrize("algo", ["rloo", "grpo", "dapo", "gspo", "cispo"])
SETTINGS = {"epochs": 4, "episodes_per_minibatch": 8, "learning_rate": 1e-2}


RETURN = partial(trained_return, num_envs=32, group_size=8, **SETTINGS)


# Four steps to the right end at 0.7; whoever does not arrive has -1.5.
@every_algorithm
def test_a_corridor_is_walked_to_its_end(algo):
    assert RETURN(Corridor, algo, iterations=15) == pytest.approx(0.7)


@every_algorithm
def test_with_the_sign_of_the_advantage_flipped_it_is_not(algo):
    assert RETURN(Corridor, algo, iterations=6, sign=-1) < 0.0


# Doing nothing pays 10·E[x²] = 10/3; driven away it is 10·4.
@every_algorithm
def test_a_point_is_brought_to_its_place(algo):
    assert RETURN(PointMass, algo, iterations=30) > -1.5


@every_algorithm
def test_with_the_sign_of_the_advantage_flipped_it_is_driven_away(algo):
    assert RETURN(PointMass, algo, iterations=12, sign=-1) < -10.0
