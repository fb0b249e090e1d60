"""The expected gradient of each unbiased estimator is the gradient, exactly."""

from functools import partial

import pytest
import torch
from tabular_mdp import (
    LOGITS,
    batches,
    critic_of,
    expected_gradient,
    judge,
    objective,
    true_critic,
    true_gradient,
    wrong_critic,
)

from rlrun.advantages.action_values import advantage_q, q_value
from rlrun.advantages.episodes import (
    baseline_constant,
    baseline_optimal,
    reward_to_go,
    total_return,
)
from rlrun.advantages.groups import rloo, time_group
from rlrun.advantages.off_policy import vtrace
from rlrun.advantages.temporal import baseline_value, gae, nstep, td

GAMMAS = pytest.mark.parametrize("gamma", [1.0, 0.8])
ONE = batches(1)
TWO = batches(2)
THREE = batches(3)
PAIRS = batches(2, grouped=True)
TRIPLES = batches(3, grouped=True)
on_policy_vtrace = partial(vtrace, rho_bar=1.0, c_bar=1.0)

# Discounted from step t, so that the sum over steps weighs them with γ^t.
FROM_THE_STEP = {
    "reward_to_go": (reward_to_go, ONE, wrong_critic),
    "baseline_constant of two": (baseline_constant, TWO, wrong_critic),
    "baseline_constant of three": (baseline_constant, THREE, wrong_critic),
    "baseline_optimal of two": (baseline_optimal, TWO, wrong_critic),
    "baseline_optimal of three": (baseline_optimal, THREE, wrong_critic),
    # No baseline biases, however wrong (systems.md, correction E10) …
    "baseline_value, V wrong": (baseline_value, ONE, wrong_critic),
    "gae of lambda 1, V wrong": (partial(gae, lam=1.0), ONE, wrong_critic),
    "nstep to the end, V wrong": (partial(nstep, n=3), ONE, wrong_critic),
    "vtrace with mu = pi, V wrong": (on_policy_vtrace, ONE, wrong_critic),
    # … and to bootstrap from the right V does not either.
    "td": (td, ONE, true_critic),
    "nstep": (partial(nstep, n=2), ONE, true_critic),
    "gae": (partial(gae, lam=0.7), ONE, true_critic),
    "q_value": (q_value, ONE, true_critic),
    "advantage_q, value": (partial(advantage_q, baseline="value"), ONE, true_critic),
    "advantage_q, policy_mean": (partial(advantage_q, baseline="policy_mean"), ONE, true_critic),
    "time_group of two": (time_group, PAIRS, wrong_critic),
    "time_group of three": (time_group, TRIPLES, wrong_critic),
}

# Discounted from the start of the episode.
FROM_THE_START = {
    "total_return": (total_return, ONE, wrong_critic),
    "rloo of two": (rloo, PAIRS, wrong_critic),
    "rloo of three": (rloo, TRIPLES, wrong_critic),
}


@GAMMAS
@pytest.mark.parametrize(
    ("estimate", "episodes", "critic"), FROM_THE_STEP.values(), ids=[*FROM_THE_STEP]
)
def test_unbiased(estimate, episodes, critic, gamma):
    ours = expected_gradient(estimate, episodes, gamma=gamma, critic=critic(gamma))
    torch.testing.assert_close(ours, true_gradient(gamma))


@GAMMAS
@pytest.mark.parametrize(
    ("estimate", "episodes", "critic"), FROM_THE_START.values(), ids=[*FROM_THE_START]
)
def test_unbiased_without_another_discount(estimate, episodes, critic, gamma):
    ours = expected_gradient(
        estimate, episodes, gamma=gamma, critic=critic(gamma), weigh_states=False
    )
    torch.testing.assert_close(ours, true_gradient(gamma))


@GAMMAS
def test_q_and_v_may_be_off_by_what_depends_on_the_state_alone(gamma):
    # Q + c(s) is a baseline too, and Q − Σ_a π Q does not even see it.
    true, offset = true_critic(gamma), wrong_critic(gamma).value
    moved = type(true)(true.value, true.q + offset[:-1, :-1, None])
    for estimate in (q_value, partial(advantage_q, baseline="value")):
        ours = expected_gradient(estimate, ONE, gamma=gamma, critic=moved)
        torch.testing.assert_close(ours, true_gradient(gamma))
    both = [
        judge(partial(advantage_q, baseline="policy_mean"), ONE, gamma=gamma, critic=critic)[0]
        for critic in (true, moved)
    ]
    torch.testing.assert_close(*(advantage[ONE.mask] for advantage in both))


@GAMMAS
@pytest.mark.parametrize("estimate", [total_return, reward_to_go, baseline_constant])
def test_a_time_limit_that_truncates_is_the_end_of_the_objective_without_a_critic(estimate, gamma):
    weigh_states = estimate is not total_return
    ours = expected_gradient(
        estimate,
        TWO,
        gamma=gamma,
        critic=wrong_critic(gamma),
        weigh_states=weigh_states,
        time_limit_truncates=True,
    )
    torch.testing.assert_close(ours, true_gradient(gamma))


@GAMMAS
@pytest.mark.parametrize(
    "estimate", [baseline_value, partial(gae, lam=1.0), on_policy_vtrace, partial(nstep, n=3)]
)
def test_with_a_critic_the_objective_goes_on_behind_a_truncation(estimate, gamma):
    # E[Σ_t γ^t r_t + γ^H V(s_H)], with whatever the critic says of the state of the cut.
    critic = wrong_critic(gamma)
    worth = critic.value[-1].clone()
    worth[-1] = 0.0  # the terminal state
    goes_on = true_gradient(gamma, at_the_limit=worth)
    assert (goes_on - true_gradient(gamma)).abs().max() > 0.01
    ours = expected_gradient(estimate, ONE, gamma=gamma, critic=critic, time_limit_truncates=True)
    torch.testing.assert_close(ours, goes_on)


@GAMMAS
def test_targets_have_the_true_value_as_their_mean(gamma):
    # E[target | s_t = s] = V(s): of the reward-to-go whatever V is, of a bootstrap if it is right.
    probability, true = ONE.probability(LOGITS), true_critic(gamma)
    for estimate, critic in (
        (reward_to_go, wrong_critic),
        (baseline_value, wrong_critic),
        (on_policy_vtrace, wrong_critic),
        (td, true_critic),
        (partial(gae, lam=0.7), true_critic),
        (q_value, true_critic),
    ):
        _, target = judge(estimate, ONE, gamma=gamma, critic=critic(gamma))
        for t in range(3):
            for state in range(2):
                visits = probability * ONE.mask[:, t, 0] * (ONE.state[:, t, 0] == state)
                mean = (visits * target[:, t, 0]).sum() / visits.sum()
                torch.testing.assert_close(mean, true.value[t, state])


# ---------------------------------------------------------------------- is there anything to prove


@pytest.mark.parametrize("episodes", [ONE, TWO, THREE, PAIRS, TRIPLES])
def test_all_episodes_are_there(episodes):
    assert episodes.probability(LOGITS).sum().item() == pytest.approx(1.0)
    assert len(ONE.chance) == 30
    assert set(ONE.mask.sum(1).flatten().tolist()) == {1, 2, 3}


@GAMMAS
def test_the_objective_is_the_mean_return_of_all_episodes(gamma):
    returns, _ = judge(total_return, ONE, gamma=gamma, critic=true_critic(gamma))
    mean = (ONE.probability(LOGITS) * returns[:, 0, 0]).sum()
    torch.testing.assert_close(mean, objective(LOGITS, gamma))


@GAMMAS
def test_the_gradient_is_far_from_zero_and_the_wrong_values_from_the_true(gamma):
    assert true_gradient(gamma).abs().min() > 0.02
    assert (wrong_critic(gamma).value - true_critic(gamma).value).abs().min() > 0.02
    limited = critic_of(LOGITS.softmax(-1), gamma, torch.ones(3, dtype=torch.float64))
    assert (limited.value[:-1, :-1] - true_critic(gamma).value[:-1, :-1]).abs().min() > 0.02


def test_without_the_factor_the_discounted_gradient_is_another():
    # Practice drops γ^t (systems.md, R20): not the gradient of any E[Σ γ^t r_t].
    ours = expected_gradient(
        reward_to_go, ONE, gamma=0.8, critic=true_critic(0.8), weigh_states=False
    )
    assert (ours - true_gradient(0.8)).abs().max() > 0.02
