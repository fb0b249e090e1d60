"""Baselines leave the mean of the gradient as it is and lower its variance, exactly."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from tabular_mdp import (
    LOGITS,
    batches,
    gradients,
    judge,
    true_critic,
    wrong_critic,
)
from tiny import bare_rollout
from torch import Tensor
from torch.func import jacrev, vmap

from rlrun.advantages.action_values import advantage_q
from rlrun.advantages.episodes import (
    baseline_constant,
    baseline_optimal,
    reward_to_go,
    total_return,
)
from rlrun.advantages.groups import rloo, time_group
from rlrun.advantages.temporal import baseline_value
from rlrun.data.rollout import Rollout

# The bandit of systems.md, correction E7: without a baseline, a single sample of the gradient has
# a variance of 92.3, with b = E[R] .63, with the optimal constant .62. (Its arms are not recorded;
# these give the same figures.)
TWENTY_FIFTHS = torch.tensor([4, 1, 5, 5, 7, 3])
REWARD = torch.tensor([10.0, 11.0, 10.5, 11.5, 9.5, 12.5], dtype=torch.float64)
PROBABILITY = TWENTY_FIFTHS.double() / 25
ARMS = len(REWARD)
# ∇ log π(a), [a, logit], and its square, [a].
SCORE = jacrev(lambda logits: logits.log_softmax(-1))(PROBABILITY.log())
SCORE_SQUARE = SCORE.square().sum(-1)
TRUE_GRADIENT = jacrev(lambda logits: logits.softmax(-1) @ REWARD)(PROBABILITY.log())


def moments(probability: Tensor, gradient: Tensor) -> tuple[Tensor, float]:
    """Mean [P] and variance, summed over the P components, of gradients [B, P]."""
    mean = probability @ gradient
    return mean, (probability @ (gradient - mean).square().sum(-1)).item()


def with_constant(baseline: Tensor | float) -> tuple[Tensor, float]:
    """Mean and variance of (R − b) ∇ log π(a), a ~ π."""
    return moments(PROBABILITY, (REWARD - baseline)[:, None] * SCORE)


def pulls(arm: Tensor) -> Rollout:
    """Episodes of one step, in which these arms [N] were pulled, as one group."""
    return bare_rollout(
        REWARD[arm][None],
        terminated=torch.ones(1, len(arm), dtype=torch.bool),
        score_square=SCORE_SQUARE[arm][None],
        whole_episodes=True,
        group=torch.zeros(1, len(arm), dtype=torch.int64),
    )


def test_every_constant_leaves_the_mean():
    for baseline in (0.0, 3.0, 10.0, -50.0):
        mean, _ = with_constant(baseline)
        torch.testing.assert_close(mean, TRUE_GRADIENT)


def test_the_figures_of_the_bandit():
    expected_reward = PROBABILITY @ REWARD
    optimum = (PROBABILITY * SCORE_SQUARE * REWARD).sum() / (PROBABILITY * SCORE_SQUARE).sum()
    assert with_constant(0.0)[1] == pytest.approx(92.3, abs=0.05)
    assert with_constant(expected_reward)[1] == pytest.approx(0.63, abs=0.005)
    assert with_constant(optimum)[1] == pytest.approx(0.62, abs=0.005)
    # A minimum: flat there, and every step away adds E[‖∇ log π‖²] times its square.
    curvature = (PROBABILITY @ SCORE_SQUARE).item()
    for step in (-1.0, -0.01, 0.01, 1.0):
        rise = with_constant(optimum + step)[1] - with_constant(optimum)[1]
        assert rise == pytest.approx(curvature * step**2)


@pytest.mark.parametrize(
    ("estimate", "variance"),
    [
        (total_return, 92.28),
        (reward_to_go, 92.28),
        (baseline_constant, 0.6326),
        (rloo, 0.6326),
        (baseline_optimal, 0.6240),
    ],
)
def test_the_estimators_have_these_figures(estimate, variance):
    # Every arm as often as it is expected in 1,000 episodes: their leave-one-out baselines are
    # the exact ones but for one in a thousand.
    arm = torch.arange(ARMS).repeat_interleave(TWENTY_FIFTHS * 40)
    advantage, _ = estimate(pulls(arm), gamma=1.0)
    each = torch.full((len(arm),), 1 / len(arm), dtype=torch.float64)
    mean, ours = moments(each, advantage[0][:, None] * SCORE[arm])
    assert ours == pytest.approx(variance, rel=0.005)
    torch.testing.assert_close(mean, TRUE_GRADIENT, atol=2e-3, rtol=0)


def test_a_batch_of_four_gains_as_much():
    # Every batch that there can be: 92.3 / 4 without a baseline, a hundredth of that with one.
    arm = torch.cartesian_prod(*[torch.arange(ARMS)] * 4)  # [B, 4]
    probability = PROBABILITY[arm].prod(-1)
    found = {}
    for estimate in (reward_to_go, baseline_constant, baseline_optimal):
        advantage = vmap(lambda arm, f=estimate: f(pulls(arm), gamma=1.0)[0][0])(arm)
        gradient = (advantage[..., None] * SCORE[arm]).mean(1)
        mean, found[estimate] = moments(probability, gradient)
        torch.testing.assert_close(mean, TRUE_GRADIENT)
    assert found[reward_to_go] == pytest.approx(92.28 / 4, rel=1e-3)
    for estimate in (baseline_constant, baseline_optimal):
        assert found[estimate] < 0.011 * found[reward_to_go]


# ---------------------------------------------------------------------- episodes of several steps


def variance(estimate, episodes, critic=true_critic) -> float:
    """Of the gradient of one batch, all components together, at γ = 1."""
    advantage, _ = judge(estimate, episodes, gamma=1.0, critic=critic(1.0))
    gradient = gradients(advantage, episodes, gamma=1.0).flatten(1)
    return moments(episodes.probability(LOGITS), gradient)[1]


def test_each_step_of_the_ladder_takes_some_noise_away():
    # The rewards of the past, then the mean of the future, then (with the right Q) its luck.
    ladder = (
        total_return,
        reward_to_go,
        baseline_value,
        partial(advantage_q, baseline="value"),
    )
    found = [variance(estimate, batches(1)) for estimate in ladder]
    assert all(less < 0.6 * more for more, less in pairwise(found)), found


def test_a_constant_helps_even_if_it_is_the_mean_of_one_other_episode():
    two = batches(2)
    for estimate in (baseline_constant, baseline_optimal):
        assert variance(estimate, two) < 0.5 * variance(reward_to_go, two)


def test_a_wrong_value_costs_variance_not_bias():
    right, wrong = (
        variance(baseline_value, batches(1), critic) for critic in (true_critic, wrong_critic)
    )
    assert right < wrong


def test_a_group_takes_noise_away_and_more_if_it_looks_at_the_time():
    groups = batches(3, grouped=True)
    found = [variance(estimate, groups) for estimate in (total_return, rloo, time_group)]
    assert found[0] > 3 * found[1]
    assert found[1] > 1.1 * found[2]
