"""The biased estimators are off by what theory says, no more and no less."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from tabular_mdp import (
    LOGITS,
    Critic,
    batches,
    expected_gradient,
    gradients,
    judge,
    true_critic,
    true_gradient,
    wrong_critic,
)
from torch import Tensor

from rlrun.advantages.action_values import q_value
from rlrun.advantages.columns import column
from rlrun.advantages.episodes import baseline_constant, discounted_returns
from rlrun.advantages.groups import dr_grpo, grpo, reinforce_pp, rloo
from rlrun.advantages.temporal import gae, nstep, td
from rlrun.data.rollout import Rollout

GAMMAS = pytest.mark.parametrize("gamma", [1.0, 0.8])
ONE = batches(1)
TWO = batches(2)
GROUPS = {2: batches(2, grouped=True), 3: batches(3, grouped=True)}
every_size = pytest.mark.parametrize("size", GROUPS)


def expected_of_groups(estimate, size: int, gamma: float) -> Tensor:
    """What an estimator whose returns are discounted from the start expects, [S, A]."""
    critic = true_critic(gamma)
    return expected_gradient(estimate, GROUPS[size], gamma=gamma, critic=critic, weigh_states=False)


def cosine(x: Tensor, y: Tensor) -> float:
    """Between two gradients."""
    return torch.cosine_similarity(x.flatten(), y.flatten(), dim=0).item()


# ---------------------------------------------------------------------- groups


@every_size
@GAMMAS
def test_a_mean_with_the_own_return_in_it_shortens_the_gradient(size, gamma):
    # (K − 1)/K of it, in the same direction.
    ours = expected_of_groups(dr_grpo, size, gamma)
    torch.testing.assert_close(ours, (size - 1) / size * true_gradient(gamma))


@every_size
@pytest.mark.parametrize("ddof", [0, 1])
@GAMMAS
def test_a_division_by_the_spread_turns_the_gradient(size, ddof, gamma):
    ours = expected_of_groups(partial(grpo, ddof=ddof, epsilon=1e-4), size, gamma)
    assert 0.5 < cosine(ours, true_gradient(gamma)) < 0.999


def test_which_spread_it_is_changes_the_length_alone():
    sample, population = (
        expected_of_groups(partial(grpo, ddof=ddof, epsilon=1e-12), 3, 1.0) for ddof in (1, 0)
    )
    torch.testing.assert_close(sample, population * (2 / 3) ** 0.5)


@pytest.mark.parametrize("baseline", ["none", "group"])
def test_whitening_a_small_batch_turns_the_gradient(baseline):
    estimate = partial(reinforce_pp, baseline=baseline, epsilon=1e-8)
    ours = expected_of_groups(estimate, 3, 1.0)
    assert 0.5 < cosine(ours, true_gradient(1.0)) < 0.999


# ---------------------------------------------------------------------- baselines


@GAMMAS
def test_a_baseline_with_the_own_episode_in_it_biases(gamma):
    def mean_of_all(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
        returns = discounted_returns(rollout, gamma)
        return returns - (returns * rollout.mask).sum() / rollout.mask.sum(), returns

    critic = true_critic(gamma)
    biased, unbiased = (
        expected_gradient(estimate, TWO, gamma=gamma, critic=critic)
        for estimate in (mean_of_all, baseline_constant)
    )
    torch.testing.assert_close(unbiased, true_gradient(gamma))
    assert (biased - true_gradient(gamma)).abs().max() > 0.02


@GAMMAS
def test_the_shortened_gradient_is_what_leaving_one_out_repairs(gamma):
    own_in, left_out = (
        judge(estimate, GROUPS[3], gamma=gamma, critic=true_critic(gamma))[0]
        for estimate in (dr_grpo, rloo)
    )
    torch.testing.assert_close(left_out, 1.5 * own_in)


# ---------------------------------------------------------------------- wrong critics


def next_error(rollout: Rollout) -> Tensor:
    """e(s_{t+1}) = V̂ − V, if the columns of values are errors; none where an episode is over."""
    return torch.where(rollout.mask & ~rollout.terminated, column(rollout, "next_value"), 0.0)


def error_of_gae(rollout: Rollout, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """What a critic's errors e = V̂ − V add to Ψ_t, but for the baseline −e(s_t).

    γ (1 − λ) Σ_l (γλ)^l e(s_{t+l+1}), up to the end of the episode.
    """
    error = next_error(rollout)
    bias = torch.zeros_like(error)
    for t in range(len(error)):
        for reach in range(len(error) - t):
            bias[t] += gamma * (1 - lam) * (gamma * lam) ** reach * error[t + reach]
    return bias, bias


def error_of_two_steps(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """γ² e(s_{t+2}); nothing follows the last row."""
    error = next_error(rollout)
    bias = gamma**2 * torch.cat([error[1:], torch.zeros_like(error[:1])])
    return bias, bias


@GAMMAS
@pytest.mark.parametrize(
    ("estimate", "bias"),
    [
        (td, partial(error_of_gae, lam=0.0)),
        (partial(gae, lam=0.0), partial(error_of_gae, lam=0.0)),
        (partial(gae, lam=0.7), partial(error_of_gae, lam=0.7)),
        (partial(nstep, n=2), error_of_two_steps),
    ],
    ids=["td", "gae of lambda 0", "gae of lambda 0.7", "nstep of 2"],
)
def test_bootstrapping_from_wrong_values_adds_their_errors(estimate, bias, gamma):
    true, wrong = true_critic(gamma), wrong_critic(gamma)
    errors = Critic(wrong.value - true.value, wrong.q - true.q)
    ours = expected_gradient(estimate, ONE, gamma=gamma, critic=wrong)
    known = expected_gradient(bias, ONE, gamma=gamma, critic=errors)
    assert known.abs().max() > 0.02
    torch.testing.assert_close(ours, true_gradient(gamma) + known)


def test_the_bias_of_gae_falls_to_nothing_as_lambda_rises_to_one():
    # λ = 0 has the most bias, λ = 1 none (systems.md, correction E6).
    wrong, truth = wrong_critic(0.8), true_gradient(0.8)
    off = [
        (expected_gradient(partial(gae, lam=lam), ONE, gamma=0.8, critic=wrong) - truth).norm()
        for lam in (0.0, 0.5, 0.9, 0.99, 1.0)
    ]
    assert all(later < earlier for earlier, later in pairwise(off))
    assert off[-1] < 1e-12


@GAMMAS
def test_a_wrong_action_value_adds_its_errors(gamma):
    true, wrong = true_critic(gamma), wrong_critic(gamma)
    ours = expected_gradient(q_value, ONE, gamma=gamma, critic=wrong)
    errors = Critic(wrong.value - true.value, wrong.q - true.q)
    known = expected_gradient(q_value, ONE, gamma=gamma, critic=errors)
    assert known.abs().max() > 0.02
    torch.testing.assert_close(ours, true_gradient(gamma) + known)


def test_a_baseline_that_looks_at_the_action_biases():
    # E_a[∇ log π(a|s) b(s, a)] = ∇ E_a[b(s, a)] is not zero (systems.md, R26).
    advantage, _ = judge(q_value, ONE, gamma=1.0, critic=true_critic(1.0))
    shifted = gradients(advantage - 2.0 * ONE.action, ONE, gamma=1.0)
    ours = torch.einsum("b,bsa->sa", ONE.probability(LOGITS), shifted)
    assert (ours - true_gradient(1.0)).abs().max() > 0.1
