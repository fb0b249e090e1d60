"""Estimators from Q(s, a), against arithmetic and plain loops."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from random_rollouts import assert_equal_where_it_counts, filled_in, segment, whole_episodes
from tiny import bare_rollout

from rlrun.advantages.action_values import advantage_q, q_value
from rlrun.advantages.columns import MissingColumn

GAMMA = 0.9
ESTIMATORS = {
    "q_value": q_value,
    "value": partial(advantage_q, baseline="value"),
    "policy_mean": partial(advantage_q, baseline="policy_mean"),
}
every_estimator = pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS)


def test_by_hand():
    rollout = bare_rollout(
        torch.tensor([[1.0], [2.0], [3.0]]),
        q=torch.tensor([[4.0], [5.0], [6.0]]),
        next_q=torch.tensor([[10.0], [20.0], [30.0]]),
        value=torch.tensor([[1.0], [1.5], [2.0]]),
        policy_q=torch.tensor([[3.0], [3.5], [7.0]]),
        terminated=torch.tensor([[False], [True], [False]]),
        truncated=torch.tensor([[False], [False], [True]]),
    )
    expected = {"q_value": [4, 5, 6], "value": [3, 3.5, 4], "policy_mean": [1, 1.5, -1]}
    for name, estimate in ESTIMATORS.items():
        advantage, target = estimate(rollout, gamma=0.5)
        assert advantage[:, 0].tolist() == expected[name]
        # 1 + ½·10;  2, nothing following;  3 + ½·30, since what was cut would have gone on
        assert target[:, 0].tolist() == [6.0, 2.0, 18.0]


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("rollout", [segment(12, 1), whole_episodes([3, 5, 1], 2, padding=2)])
def test_equals_a_plain_loop(name, rollout):
    advantage, target = ESTIMATORS[name](rollout, gamma=GAMMA)
    expected, expected_target = torch.zeros_like(advantage), torch.zeros_like(target)
    columns = rollout.columns
    for t, i in rollout.mask.nonzero().tolist():
        baseline = {"q_value": 0.0, "value": columns["value"][t, i]}
        expected[t, i] = columns["q"][t, i] - baseline.get(name, columns["policy_q"][t, i])
        following = 0.0 if rollout.terminated[t, i] else columns["next_q"][t, i]
        expected_target[t, i] = rollout.reward[t, i] + GAMMA * following
    assert_equal_where_it_counts(rollout, advantage, expected)
    assert_equal_where_it_counts(rollout, target, expected_target)


@every_estimator
def test_the_value_behind_a_terminal_state_is_never_used(estimate):
    # Not even when it is not a number: 0 · nan would be nan.
    rollout = segment(12, 3)
    assert rollout.terminated.any()
    lost = filled_in(
        rollout, next_q=torch.where(rollout.terminated, torch.nan, rollout.columns["next_q"])
    )
    for ours, theirs in zip(
        estimate(lost, gamma=GAMMA), estimate(rollout, gamma=GAMMA), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("estimate", "column"),
    [
        (q_value, "q"),
        (q_value, "next_q"),
        (ESTIMATORS["value"], "value"),
        (ESTIMATORS["policy_mean"], "policy_q"),
    ],
)
def test_what_is_missing_is_named(estimate, column):
    rollout = segment(3)
    others = {name: x for name, x in rollout.columns.items() if name != column}
    with pytest.raises(MissingColumn, match=f"no column '{column}'"):
        estimate(replace(rollout, columns=others), gamma=GAMMA)
