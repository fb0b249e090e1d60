"""The model that an environment has of itself."""

import gymnasium as gym
import pytest
import torch
from gymnasium import spaces
from running import experiment

from rlrun.envs.tabular import Grid, read_grid, read_table
from rlrun.errors import UserError


def table(*words: str):
    return read_table(experiment(["algo=ppo", *words]).env)


def grid(*words: str, states: int):
    return read_grid(experiment(["algo=ppo", *words]).env, states)


def test_frozen_lakes_ice_leads_to_three_places():
    model = table("env=frozen_lake")
    assert model.transition.shape == (16, 4, 16)
    assert model.transition.dtype == model.reward.dtype == torch.float64
    # From the start, left: half of the sideways slips stay in the corner as well.
    assert model.transition[0, 0].tolist() == pytest.approx([2 / 3, 0, 0, 0, 1 / 3] + [0] * 11)
    # Beside a hole the episode may end there, which leaves a part of the probability out.
    assert model.transition[4, 2].sum() == pytest.approx(2 / 3)
    # Right of the last field but one is the present, which ends the episode.
    assert model.reward[14, 2] == pytest.approx(1 / 3)
    assert model.reward.sum() == model.reward[14].sum()
    assert not model.transition[15].any()
    assert grid("env=frozen_lake", "env.options.map_name=8x8", states=64) == Grid((8, 8), "←↓→↑")


def test_off_the_cliff_one_starts_anew():
    model = table("env=cliff_walking")
    assert model.reward[36, 1] == -100
    assert model.transition[36, 1, 36] == 1
    assert model.reward[35, 2] == -1
    assert not model.transition[35, 2].any()
    assert grid("env=cliff_walking", states=48) == Grid((4, 12), "↑→↓←")


def test_a_taxis_states_are_numbers_and_a_hands_have_parts():
    model = table("env=taxi")
    assert model.reward.shape == (500, 6)
    assert grid("env=taxi", states=500) == Grid((500,))
    assert grid("env=blackjack", states=704) == Grid((32, 11, 2))
    # Those of somebody's own, by a wrapper, say, or of an algorithm that counts by itself.
    assert grid("env=frozen_lake", states=32) == Grid((32,))
    assert grid("env=cartpole", states=9) == Grid((9,))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=blackjack"], r"Blackjack-v1 does not say its transitions \(P\), .* algo=q_learning"),
        (["env=hopper"], "Hopper-v5 is no table: its states and actions cannot be counted"),
    ],
)
def test_an_environment_without_a_table_says_why(words, message):
    with pytest.raises(UserError, match=message):
        table(*words)


class Two(gym.Env):
    """Two states and one action, with a table of somebody's."""

    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(1)

    def __init__(self, **attributes):
        vars(self).update(attributes)


class Spec:
    """What makes such an environment."""

    id = "Two-v0"

    def __init__(self, **attributes):
        self.attributes = attributes

    def make_single(self, *, render_mode):
        return Two(**self.attributes)


WHOLE = {0: {0: [(1.0, 1, 0.5, False)]}, 1: {0: [(0.25, 0, 1.0, False), (0.75, 1, 2.0, True)]}}


def test_outcomes_are_summed_up():
    model = read_table(Spec(P=WHOLE))
    assert model.transition.tolist() == [[[0.0, 1.0]], [[0.25, 0.0]]]
    assert model.reward.tolist() == [[0.5], [1.75]]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, r"^Two-v0 does not say its transitions \(P\), which planning and exact values need"),
        (
            {"P": WHOLE, "observation_space": spaces.MultiDiscrete([2, 1])},
            "^Two-v0: its P is of numbered states, which it does not show",
        ),
        ({"P": {0: WHOLE[0]}}, r"^Two-v0: P\[1\]\[0\] is no list of \(probability, next state"),
        ({"P": {**WHOLE, 1: {0: [(1.0, 0)]}}}, r"P\[1\]\[0\] is no list"),
        ({"P": {**WHOLE, 1: {0: [(0.5, 0, 1.0, False)]}}}, r"of P\[1\]\[0\] sum to 0\.5"),
        ({"P": {**WHOLE, 1: {0: [(1.0, 2, 1.0, False)]}}}, r"P\[1\]\[0\] leads to state 2"),
        ({"P": {**WHOLE, 1: {0: [(1.0, 0, float("nan"), False)]}}}, "a reward of P is not finite"),
    ],
)
def test_a_table_that_is_none_is_named(attributes, message):
    with pytest.raises(UserError, match=message):
        read_table(Spec(**attributes))
