"""Estimators of groups, against arithmetic, closed forms, plain loops and others' formulas."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from random_rollouts import assert_equal_where_it_counts, returns_by_loop, whole_episodes
from tiny import bare_rollout
from torch import Tensor

from rlrun.advantages.groups import dr_grpo, grpo, reinforce_pp, rloo, time_group, whiten
from rlrun.data.rollout import Rollout

GAMMA = 0.9
SIZES = [3, 2, 4]
LENGTHS = [4, 1, 7, 5, 5, 2, 6, 3, 1]

ESTIMATORS = {
    "rloo": rloo,
    "dr_grpo": dr_grpo,
    "grpo": partial(grpo, ddof=1, epsilon=1e-4),
    "grpo_population": partial(grpo, ddof=0, epsilon=1e-6),
    "reinforce_pp": partial(reinforce_pp, baseline="group", epsilon=1e-8),
    "time_group": time_group,
}
every_estimator = pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS)


def one_step(returns: list[float], sizes: list[int]) -> Rollout:
    """Episodes of a single step, in groups."""
    reward = torch.tensor([returns], dtype=torch.float64)
    return bare_rollout(
        reward,
        terminated=torch.ones(reward.shape, dtype=torch.bool),
        whole_episodes=True,
        group=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))[None],
    )


# ---------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        # Groups 1, 2, 6 (mean 3) and 5, 7 (mean 6).
        (rloo, [-3.0, -1.5, 4.5, -2.0, 2.0]),
        (time_group, [-3.0, -1.5, 4.5, -2.0, 2.0]),
        (dr_grpo, [-2.0, -1.0, 3.0, -1.0, 1.0]),
        # σ² = (4 + 1 + 9)/2 = 7 and (1 + 1)/1 = 2
        (
            partial(grpo, ddof=1, epsilon=0.0),
            [-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5, -(0.5**0.5), 0.5**0.5],
        ),
        # σ² = 14/3 and 1
        (
            partial(grpo, ddof=0, epsilon=1.0),
            [*(x / (1 + (14 / 3) ** 0.5) for x in (-2, -1, 3)), -0.5, 0.5],
        ),
        # The differences to the means have mean 0 and Σ² = 4 + 1 + 9 + 1 + 1 = 16, over 4.
        (
            partial(reinforce_pp, baseline="group", epsilon=0.0),
            [-1.0, -0.5, 1.5, -0.5, 0.5],
        ),
        # With ε in the variance: √(4 + 5) = 3
        (
            partial(reinforce_pp, baseline="group", epsilon=5.0),
            [-2 / 3, -1 / 3, 1.0, -1 / 3, 1 / 3],
        ),
        # 1, 2, 6, 5, 7 have mean 4.2 and Σ² = 10.24 + 4.84 + 3.24 + .64 + 7.84 = 26.8, over 4.
        (
            partial(reinforce_pp, baseline="none", epsilon=0.0),
            [x / 6.7**0.5 for x in (-3.2, -2.2, 1.8, 0.8, 2.8)],
        ),
    ],
)
def test_by_hand(estimate, expected):
    advantage, target = estimate(one_step([1, 2, 6, 5, 7], [3, 2]), gamma=GAMMA)
    assert advantage[0].tolist() == pytest.approx(expected)
    assert target[0].tolist() == [1, 2, 6, 5, 7]


def test_returns_are_discounted_from_the_first_step():
    # R = 1 + .5·2 + .25·4 = 3 against 8; a group of two: ±5/2 around the mean.
    reward = torch.tensor([[1.0, 8.0], [2.0, 0.0], [4.0, 0.0]])
    ends = torch.tensor([[0, 1], [0, 0], [1, 0]], dtype=torch.bool)
    group = torch.zeros(3, 2, dtype=torch.int64)
    rollout = bare_rollout(reward, truncated=ends, whole_episodes=True, group=group)
    assert dr_grpo(rollout, gamma=0.5)[0].tolist() == [[-2.5, 2.5]] * 3
    # G = 3, 4, 4 against 8, 0, 0: an episode that is over has nothing to come.
    assert time_group(rollout, gamma=0.5)[0].tolist() == [[-5, 5], [4, -4], [4, -4]]


# ---------------------------------------------------------------------- plain loops


def by_loop(rollout: Rollout, name: str, gamma: float) -> Tensor:
    """Ψ of each step: one group after the other, with torch's own mean and std."""
    returns = returns_by_loop(rollout, gamma)
    advantage = torch.zeros_like(returns)
    group = rollout.group[0]
    for i in range(len(group)):
        mine = [j for j in range(len(group)) if group[j] == group[i]]
        others = [j for j in mine if j != i]
        total = returns[0]
        for t in range(len(returns)):
            advantage[t, i] = {
                "rloo": total[i] - total[others].mean(),
                "dr_grpo": total[i] - total[mine].mean(),
                "grpo": (total[i] - total[mine].mean()) / (total[mine].std() + 1e-4),
                "grpo_population": (total[i] - total[mine].mean())
                / (total[mine].std(correction=0) + 1e-6),
                "reinforce_pp": total[i] - total[mine].mean(),
                "time_group": returns[t, i] - returns[t, others].mean(),
            }[name]
    if name == "reinforce_pp":
        counted = advantage[rollout.mask]
        advantage = (advantage - counted.mean()) / (counted.var() + 1e-8).sqrt()
    return advantage


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("gamma", [0.9, 1.0])
@pytest.mark.parametrize("padding", [0, 3])
def test_equals_a_plain_loop(name, gamma, padding):
    rollout = whole_episodes(LENGTHS, seed=7, sizes=SIZES, padding=padding)
    advantage, target = ESTIMATORS[name](rollout, gamma=gamma)
    assert_equal_where_it_counts(rollout, advantage, by_loop(rollout, name, gamma))
    assert_equal_where_it_counts(rollout, target, returns_by_loop(rollout, gamma))


def test_without_a_baseline_the_reward_to_go_is_whitened_and_groups_are_no_matter():
    rollout = whole_episodes(LENGTHS, seed=8, padding=2)
    advantage, target = reinforce_pp(rollout, gamma=GAMMA, baseline="none", epsilon=1e-8)
    returns = returns_by_loop(rollout, GAMMA)
    counted = returns[rollout.mask]
    expected = (returns - counted.mean()) / (counted.var() + 1e-8).sqrt()
    assert_equal_where_it_counts(rollout, advantage, expected)
    assert_equal_where_it_counts(rollout, target, returns)


@every_estimator
def test_groups_are_told_by_their_numbers_wherever_their_members_stand(estimate):
    rollout = whole_episodes(LENGTHS, seed=9, sizes=SIZES)
    order = torch.randperm(len(LENGTHS), generator=torch.Generator().manual_seed(0))
    names = torch.tensor([5, -1, 70])
    moved = {name: x[:, order] for name, x in vars(rollout).items() if isinstance(x, Tensor)}
    moved["group"] = names[moved["group"]]
    ours, _ = estimate(replace(rollout, **moved), gamma=GAMMA)
    torch.testing.assert_close(ours, estimate(rollout, gamma=GAMMA)[0][:, order])


# ---------------------------------------------------------------------- closed forms


def test_rloo_is_the_difference_to_the_mean_enlarged():
    # Ψ = K/(K − 1) (R − R̄) (systems.md, correction E4)
    rollout = whole_episodes(LENGTHS, seed=10, sizes=SIZES)
    size = torch.tensor(SIZES).repeat_interleave(torch.tensor(SIZES))
    total = returns_by_loop(rollout, GAMMA)[0]
    sums = torch.zeros(3, dtype=total.dtype).index_add(0, rollout.group[0], total)
    expected = size / (size - 1) * (total - (sums / torch.tensor(SIZES))[rollout.group[0]])
    torch.testing.assert_close(rloo(rollout, gamma=GAMMA)[0][0], expected)


@pytest.mark.parametrize("name", ["rloo", "dr_grpo", "grpo", "grpo_population"])
def test_the_advantages_of_a_group_add_up_to_nothing(name):
    rollout = whole_episodes(LENGTHS, seed=11, sizes=SIZES)
    advantage, _ = ESTIMATORS[name](rollout, gamma=GAMMA)
    assert advantage[0].abs().min() > 1e-3
    for members in advantage[0].split(SIZES):
        assert members.sum().abs() < 1e-12


@pytest.mark.parametrize(("size", "factor"), [(2, 0.71), (8, 0.94)])
def test_the_sample_spread_gives_smaller_advantages(size, factor):
    # By √((K − 1)/K) (systems.md, correction E25); of two, ±1/√2 whatever the returns are.
    rollout = whole_episodes(list(range(1, size + 1)), seed=12, sizes=[size])
    sample, population = (
        grpo(rollout, gamma=GAMMA, ddof=ddof, epsilon=0.0)[0][0] for ddof in (1, 0)
    )
    torch.testing.assert_close(sample, population * math.sqrt((size - 1) / size))
    assert (sample / population).mean().item() == pytest.approx(factor, abs=0.005)
    assert population.square().mean().item() == pytest.approx(1.0)


@every_estimator
def test_a_group_of_equal_returns_has_no_advantage_at_all(estimate):
    # In single precision the means of these are off by a rounding, and so would be their spread.
    sizes = [3, 7, 2]
    rollout = one_step([999.9] * 3 + [500.1] * 7 + [1.0, 2.0], sizes)
    rollout = replace(rollout, reward=rollout.reward.float())
    equal, others = estimate(rollout, gamma=GAMMA)[0][0].split([10, 2])
    assert equal.abs().max() <= (1e-4 if estimate is time_group else 0.0)
    assert others.abs().min() > 0.3


@pytest.mark.parametrize("baseline", ["none", "group"])
def test_whitened_advantages_have_mean_zero_and_variance_one(baseline):
    rollout = whole_episodes(LENGTHS, seed=13, sizes=SIZES, padding=4)
    advantage, _ = reinforce_pp(rollout, gamma=GAMMA, baseline=baseline, epsilon=0.0)
    counted = advantage[rollout.mask]
    assert counted.mean().abs() < 1e-12
    assert counted.var().item() == pytest.approx(1.0)


def test_whitening_is_finite_whatever_there_is_to_whiten():
    one = torch.tensor([[3.0, 9.0]])
    assert whiten(one, torch.tensor([[True, False]]), 1e-8)[0, 0] == 0.0
    assert whiten(torch.full((2, 2), 0.1), torch.ones(2, 2, dtype=torch.bool), 1e-8).abs().max() < 1


def test_rewards_of_the_past_do_not_reach_later_steps_of_time_group():
    # Those of all members, as the whole return of rloo has them.
    rollout = whole_episodes([5, 6, 7], seed=14, sizes=[3])
    past = torch.arange(7)[:, None] < 3
    changed = replace(rollout, reward=torch.where(past, 100.0, rollout.reward))
    for estimate, causal in ((time_group, True), (rloo, False)):
        before, after = (estimate(r, gamma=GAMMA)[0] for r in (rollout, changed))
        assert torch.equal(before[3:], after[3:]) is causal
        assert not torch.equal(before[:3], after[:3])


def test_groups_do_not_mix():
    rollout = whole_episodes(LENGTHS, seed=15, sizes=SIZES)
    changed = replace(rollout, reward=torch.where(rollout.group == 1, 9.0, rollout.reward))
    for name, estimate in ESTIMATORS.items():
        before, after = (estimate(r, gamma=GAMMA)[0] for r in (rollout, changed))
        others = rollout.mask & (rollout.group != 1)
        # Whitening over the batch is there to mix them.
        assert torch.equal(before[others], after[others]) is (name != "reinforce_pp")


# ---------------------------------------------------------------------- mistakes


@every_estimator
def test_episodes_without_a_common_start_are_refused(estimate):
    with pytest.raises(ValueError, match="compares episodes from one start"):
        estimate(whole_episodes([3, 4]), gamma=GAMMA)
