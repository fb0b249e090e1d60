"""Estimators of whole episodes without a critic, against arithmetic and plain loops."""

from dataclasses import replace

import pytest
import torch
from random_rollouts import (
    assert_equal_where_it_counts,
    filled_in,
    returns_by_loop,
    segment,
    whole_episodes,
    with_columns,
)
from tiny import bare_rollout
from torch import Tensor

from rlrun.advantages.episodes import (
    baseline_constant,
    baseline_optimal,
    reward_to_go,
    total_return,
)
from rlrun.data.rollout import Rollout

GAMMA = 0.9
EVERY = (total_return, reward_to_go, baseline_constant, baseline_optimal)
every_estimator = pytest.mark.parametrize("estimate", EVERY)
every_baseline = pytest.mark.parametrize("estimate", [baseline_constant, baseline_optimal])


def three_episodes() -> Rollout:
    """Rewards 1, 2, 3 | 4 | 8, 6; with γ = ½ the returns 2.75, 3.5, 3 | 4 | 11, 6."""
    never = torch.zeros(3, 3, dtype=torch.bool)
    ends = torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=torch.bool)
    return bare_rollout(
        torch.tensor([[1.0, 4.0, 8.0], [2.0, 0.0, 6.0], [3.0, 0.0, 0.0]]),
        # Behind an episode's end, squared scores are those of some padding.
        score_square=torch.tensor([[1.0, 2.0, 1.0], [1.0, 9.0, 3.0], [2.0, 9.0, 9.0]]),
        terminated=ends,
        truncated=never,
        mask=torch.tensor([[1, 1, 1], [1, 0, 1], [1, 0, 0]], dtype=torch.bool),
        whole_episodes=True,
    )


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (total_return, [[2.75] * 3, [4.0], [11.0] * 2]),
        (reward_to_go, [[2.75, 3.5, 3.0], [4.0], [11.0, 6.0]]),
        # b₀ = (4 + 11 + 6)/3 = 7;  b₁ = (9.25 + 17)/5 = 5.25;  b₂ = (9.25 + 4)/4 = 3.3125
        (baseline_constant, [[-4.25, -3.5, -4.0], [-1.25], [7.6875, 2.6875]]),
        # Episode by episode, Σ ‖∇ log π‖² G = 2.75 + 3.5 + 6 = 12.25, 8, 11 + 18 = 29 over a
        # Σ ‖∇ log π‖² of 4, 2, 4:  b₀ = 37/6;  b₁ = 41.25/8 = 5.15625;  b₂ = 20.25/6 = 3.375
        (
            baseline_optimal,
            [[2.75 - 37 / 6, 3.5 - 37 / 6, 3 - 37 / 6], [-1.15625], [7.625, 2.625]],
        ),
    ],
)
def test_by_hand(estimate, expected):
    advantage, target = estimate(three_episodes(), gamma=0.5)
    for column, (ours, theirs) in enumerate(zip(advantage.T, expected, strict=True)):
        assert ours[: len(theirs)].tolist() == pytest.approx(theirs), column
    assert target.T.tolist() == [[2.75, 3.5, 3.0], [4.0, 0.0, 0.0], [11.0, 6.0, 0.0]]


def by_loop(rollout: Rollout, estimate, gamma: float) -> Tensor:
    """Ψ of each step, every mean written out."""
    returns = returns_by_loop(rollout, gamma)
    advantage = torch.zeros_like(returns)
    rows = [tuple(row) for row in rollout.mask.nonzero().tolist()]
    for t, i in rows:
        others = [(u, j) for u, j in rows if j != i]
        if estimate is total_return:
            advantage[t, i] = returns[0, i]
        elif estimate is reward_to_go:
            advantage[t, i] = returns[t, i]
        else:
            constant = estimate is baseline_constant
            weights = [
                1.0 if constant else rollout.columns["score_square"][row].item() for row in others
            ]
            total = sum(w * returns[row] for w, row in zip(weights, others, strict=True))
            advantage[t, i] = returns[t, i] - total / sum(weights)
    return advantage


@every_estimator
@pytest.mark.parametrize("gamma", [0.9, 1.0])
@pytest.mark.parametrize(("lengths", "padding"), [([3, 1, 7, 4], 0), ([1, 1], 2), ([5, 6, 5], 3)])
def test_equals_a_plain_loop(estimate, gamma, lengths, padding):
    rollout = whole_episodes(lengths, seed=len(lengths), padding=padding)
    advantage, target = estimate(rollout, gamma=gamma)
    assert_equal_where_it_counts(rollout, advantage, by_loop(rollout, estimate, gamma))
    assert_equal_where_it_counts(rollout, target, returns_by_loop(rollout, gamma))


@every_estimator
def test_a_truncated_episode_ends_as_a_terminated_one_does(estimate):
    # There is no value to go on with: the return within the time limit is what counts.
    over = whole_episodes([3, 5, 4], seed=1)
    ends = over.done
    never = torch.zeros_like(ends)
    cut = replace(over, terminated=never, truncated=ends)
    over = replace(over, terminated=ends, truncated=never)
    for ours, theirs in zip(estimate(cut, gamma=GAMMA), estimate(over, gamma=GAMMA), strict=True):
        assert torch.equal(ours, theirs)


@every_estimator
def test_nothing_leaks_back_from_behind_an_end(estimate):
    rollout = whole_episodes([3, 5, 4], seed=6, padding=2)
    filled = replace(rollout, reward=torch.where(rollout.mask, rollout.reward, 1e6))
    for ours, expected in zip(
        estimate(filled, gamma=GAMMA), estimate(rollout, gamma=GAMMA), strict=True
    ):
        assert_equal_where_it_counts(rollout, ours, expected)


@every_baseline
def test_an_episode_has_no_part_in_its_own_baseline(estimate):
    rollout = whole_episodes([4, 2, 3], seed=2)
    changed = replace(rollout, reward=rollout.reward + torch.tensor([100.0, 0.0, 0.0]))
    changed = replace(changed, reward=changed.reward * rollout.mask)
    before, after = (
        (returns - advantage)[0]  # the baseline of each episode, [N]
        for advantage, returns in (estimate(r, gamma=GAMMA) for r in (rollout, changed))
    )
    torch.testing.assert_close(before[0], after[0])
    assert (after[1:] - before[1:] > 10).all()


@every_baseline
def test_a_baseline_is_the_same_at_every_step(estimate):
    advantage, returns = estimate(whole_episodes([6, 6, 6], seed=3), gamma=GAMMA)
    baseline = returns - advantage
    torch.testing.assert_close(baseline, baseline[:1].expand_as(baseline))


def test_with_equal_scores_the_optimal_constant_is_the_mean():
    rollout = whole_episodes([4, 2, 3], seed=4)
    rollout = filled_in(rollout, score_square=torch.full_like(rollout.reward, 0.3))
    optimal, _ = baseline_optimal(rollout, gamma=GAMMA)
    constant, _ = baseline_constant(rollout, gamma=GAMMA)
    torch.testing.assert_close(optimal, constant)


def test_the_optimal_constant_is_finite_where_the_policy_is_certain():
    rollout = three_episodes()
    rollout = filled_in(rollout, score_square=torch.zeros_like(rollout.reward))
    advantage, _ = baseline_optimal(rollout, gamma=GAMMA)
    assert advantage.isfinite().all()


def test_one_episode_of_large_scores_does_not_swamp_its_own_baseline():
    # All minus the own one would be 1e12 + 2e-6 − 1e12, which is 0 in single precision.
    rollout = three_episodes()
    scores = torch.tensor([1e12, 1e-6, 1e-6]).expand(3, 3)
    advantage, returns = baseline_optimal(filled_in(rollout, score_square=scores), gamma=0.5)
    assert (returns - advantage)[0, 0].item() == pytest.approx(7.0)  # (4 + 11 + 6)/3


@every_baseline
def test_an_episode_that_is_left_out_has_no_part_in_a_baseline(estimate):
    rollout = whole_episodes([4, 2, 3, 5], seed=5)
    masked = replace(rollout, mask=rollout.mask & torch.tensor([True, True, True, False]))
    dropped = with_columns(rollout, lambda column: column[:, :3])
    advantage, _ = estimate(masked, gamma=GAMMA)
    torch.testing.assert_close(advantage[:, :3], estimate(dropped, gamma=GAMMA)[0])


@every_baseline
def test_one_episode_has_nothing_to_be_compared_with(estimate):
    message = "^this estimator compares episodes: algo.num_envs must be at least 2$"
    with pytest.raises(ValueError, match=message):
        estimate(whole_episodes([3]), gamma=GAMMA)


@every_estimator
def test_segments_are_refused(estimate):
    with pytest.raises(ValueError, match="this estimator needs whole episodes"):
        estimate(segment(5), gamma=GAMMA)
