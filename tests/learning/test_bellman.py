"""Bellman's equations, by hand."""

import pytest
import torch

from rlrun.envs.tabular import TabularModel
from rlrun.errors import UserError
from rlrun.learning.bellman import action_values, exact_value, greedy, of_policy

# Two states. In the first, one stays for 1 or goes on for 0; in the second, one stays for 2 and
# ends half of the time, or goes back for 0.
MODEL = TabularModel(
    transition=torch.tensor([[[1.0, 0], [0, 1]], [[0, 0.5], [1, 0]]], dtype=torch.float64),
    reward=torch.tensor([[1.0, 0], [2, 0]], dtype=torch.float64),
)
GAMMA = 0.5


def test_values_of_actions():
    values = action_values(MODEL, torch.tensor([4.0, 8.0], dtype=torch.float64), GAMMA)
    assert values.tolist() == [[1 + 0.5 * 4, 0.5 * 8], [2 + 0.5 * 0.5 * 8, 0.5 * 4]]


@pytest.mark.parametrize(
    ("policy", "value"),
    [
        ([0, 0], [2.0, 2 / 0.75]),  # V0 = 1 + V0/2, V1 = 2 + V1/4
        ([1, 0], [4 / 3, 8 / 3]),  # V0 = V1/2
        ([1, 1], [0.0, 0.0]),
    ],
)
def test_the_value_of_a_policy_solves_its_equations(policy, value):
    policy = torch.tensor(policy)
    solved = exact_value(MODEL, policy, GAMMA)
    assert solved.tolist() == pytest.approx(value)
    again = of_policy(action_values(MODEL, solved, GAMMA), policy)
    torch.testing.assert_close(solved, again, rtol=0, atol=1e-12)


@pytest.mark.parametrize("states", [2, 3, 7, 10])
def test_a_policy_that_never_arrives_has_no_value(states):
    """LAPACK meets a pivot that is rounded, and not zero: it would return 1e15."""
    generator = torch.Generator().manual_seed(states)
    weight = torch.rand(states, states, states, generator=generator, dtype=torch.float64)
    reward = torch.ones(states, states, dtype=torch.float64)
    model = TabularModel(weight / weight.sum(-1, keepdim=True), reward)
    policy = torch.full((states, states), 1 / states, dtype=torch.float64)
    with pytest.raises(UserError, match="some of its episodes never end"):
        exact_value(model, policy, 1.0)
    assert exact_value(model, policy, 0.9).tolist() == pytest.approx([10.0] * states)


def test_of_two_that_are_as_good_the_present_action_stays():
    values = torch.tensor([[1.0, 1.0 + 1e-12], [0.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    assert greedy(values).tolist() == [1, 1, 0]
    present = torch.tensor([0, 0, 1])
    assert greedy(values, present, tolerance=1e-10).tolist() == [0, 1, 0]
    assert greedy(torch.ones(3, 2), torch.tensor([1, 0, 1])).tolist() == [1, 0, 1]
    assert greedy(torch.ones(3, 2)).tolist() == [0, 0, 0]
