"""Data of another policy: importance weights, V-trace, and PPO's ratio where it is one."""

from functools import partial

import pytest
import torch
from tabular_mdp import (
    HORIZON,
    LOGITS,
    OTHER_LOGITS,
    STATES,
    batches,
    critic_of,
    gradients,
    judge,
    true_critic,
    true_gradient,
    wrong_critic,
)
from tiny import bare_rollout
from torch import Tensor
from torch.func import jacrev

from rlrun.advantages.episodes import reward_to_go
from rlrun.advantages.off_policy import vtrace
from rlrun.advantages.temporal import gae
from rlrun.data.rollout import Rollout
from rlrun.learning.losses.surrogates import clipped_surrogate

GAMMAS = pytest.mark.parametrize("gamma", [1.0, 0.8])
ONE = batches(1)
NO_THRESHOLD = 1e9
exact_vtrace = partial(vtrace, rho_bar=NO_THRESHOLD, c_bar=NO_THRESHOLD)


# ---------------------------------------------------------------------- the demonstration

# Values ±1, of which the target policy takes either by ½; samples from (.8, .2)
# (systems.md, R44).
VALUES = torch.tensor([1.0, -1.0], dtype=torch.float64)
TARGET = torch.tensor([0.5, 0.5], dtype=torch.float64)
SAMPLER = torch.tensor([0.8, 0.2], dtype=torch.float64)


def draws(chosen: Tensor) -> Rollout:
    """Episodes of one step, in which these values [N] were drawn."""
    reward = VALUES[chosen][None]
    return bare_rollout(
        reward,
        terminated=torch.ones(reward.shape, dtype=torch.bool),
        whole_episodes=True,
        logp=SAMPLER.log()[chosen][None],
        policy_logp=TARGET.log()[chosen][None],
        value=torch.zeros_like(reward),
        next_value=torch.zeros_like(reward),
    )


def test_the_plain_mean_is_of_the_sampler_and_the_weighted_one_of_the_target():
    both = draws(torch.tensor([0, 1]))
    plain, _ = reward_to_go(both, gamma=1.0)
    weighted, _ = exact_vtrace(both, gamma=1.0)
    assert (SAMPLER @ plain[0]).item() == pytest.approx(0.6)
    assert (SAMPLER @ weighted[0]).item() == pytest.approx(0.0)
    # Var = E_p[f² p/q] − (E_p f)² = ½·.625 + ½·2.5 (R43)
    assert (SAMPLER @ weighted[0].square()).item() == pytest.approx(1.5625)


def test_a_threshold_on_the_weight_leaves_a_known_bias():
    # min(1, ρ) is .625 and 1: .8·.625 − .2·1 = .3
    weighted, _ = vtrace(draws(torch.tensor([0, 1])), gamma=1.0, rho_bar=1.0, c_bar=1.0)
    assert (SAMPLER @ weighted[0]).item() == pytest.approx(0.3)


def test_three_hundred_draws():
    generator = torch.Generator().manual_seed(0)
    chosen = torch.multinomial(SAMPLER, 300, replacement=True, generator=generator)
    plain, _ = reward_to_go(draws(chosen), gamma=1.0)
    weighted, _ = exact_vtrace(draws(chosen), gamma=1.0)
    # Within three standard errors: √(.64/300) = .046 and √(1.5625/300) = .072.
    assert plain.mean().item() == pytest.approx(0.6, abs=0.14)
    assert weighted.mean().item() == pytest.approx(0.0, abs=0.22)
    assert plain.mean() - weighted.mean() > 0.36


# ---------------------------------------------------------------------- V-trace


def state_ratio() -> Tensor:
    """Π_{k<t} π(a_k|s_k)/μ(a_k|s_k): how much more often π comes to step t, [B, H, 1]."""
    log_ratio = LOGITS.log_softmax(-1) - OTHER_LOGITS.log_softmax(-1)
    step = torch.where(ONE.mask, log_ratio[ONE.state, ONE.action], 0.0).exp()
    return torch.cat([torch.ones_like(step[:, :1]), step.cumprod(1)[:, :-1]], 1)


@GAMMAS
def test_without_thresholds_vtrace_is_exact_but_for_the_states(gamma):
    # E_μ[Σ_t γ^t (Π_{k<t} ρ_k) Â_t ∇ log π] = ∇J, whatever V is; without the product, which
    # V-trace drops, it is the gradient at the states of μ.
    advantage, _ = judge(
        exact_vtrace, ONE, gamma=gamma, critic=wrong_critic(gamma), behaviour=OTHER_LOGITS
    )
    probability = ONE.probability(OTHER_LOGITS)
    for weight, exact in ((state_ratio(), True), (1.0, False)):
        each = gradients(weight * advantage, ONE, gamma=gamma)
        ours = torch.einsum("b,bsa->sa", probability, each)
        assert torch.allclose(ours, true_gradient(gamma), atol=1e-12) is exact


def means_by_state(target: Tensor, value: Tensor) -> Tensor:
    """E_μ[target − V(s_t) | s_t = s] of every step, [H, S]."""
    probability = ONE.probability(OTHER_LOGITS)
    t = torch.arange(HORIZON)[:, None]
    error = target - value[t, ONE.state]
    means = torch.zeros(HORIZON, STATES, dtype=torch.float64)
    for state in range(STATES):
        visits = probability[:, None] * (ONE.mask & (ONE.state == state))[..., 0]
        means[:, state] = (visits * error[..., 0]).sum(0) / visits.sum(0)
    return means


@GAMMAS
def test_without_thresholds_the_target_is_the_value_of_the_policy(gamma):
    critic = wrong_critic(gamma)
    _, target = judge(exact_vtrace, ONE, gamma=gamma, critic=critic, behaviour=OTHER_LOGITS)
    means = means_by_state(target, true_critic(gamma).value)
    torch.testing.assert_close(means, torch.zeros_like(means))


@GAMMAS
@pytest.mark.parametrize(("rho_bar", "c_bar"), [(1.0, 1.0), (1.0, 0.3), (0.7, 0.7)])
def test_with_thresholds_the_target_is_the_value_of_a_policy_in_between(rho_bar, c_bar, gamma):
    # π_ρ̄(a|s) ∝ min(ρ̄ μ(a|s), π(a|s)) (Espeholt et al. 2018, eq. 3): its values are their own
    # targets, whatever c̄ is; those of π are not.
    policy, behaviour = LOGITS.softmax(-1), OTHER_LOGITS.softmax(-1)
    between = torch.minimum(rho_bar * behaviour, policy)
    between = between / between.sum(-1, keepdim=True)
    estimate = partial(vtrace, rho_bar=rho_bar, c_bar=c_bar)
    for critic, fixed in ((critic_of(between, gamma), True), (true_critic(gamma), False)):
        _, target = judge(estimate, ONE, gamma=gamma, critic=critic, behaviour=OTHER_LOGITS)
        means = means_by_state(target, critic.value)
        assert torch.allclose(means, torch.zeros_like(means), atol=1e-12) is fixed


# ---------------------------------------------------------------------- PPO


def log_policy(logits: Tensor) -> Tensor:
    """log π(a_t|s_t) of all episodes, [B, H, 1]."""
    return logits.log_softmax(-1)[ONE.state, ONE.action]


@GAMMAS
def test_at_ratio_one_the_clipped_objective_has_the_gradient_of_reinforce(gamma):
    # In every single episode, whatever the advantage and the clip …
    generator = torch.Generator().manual_seed(0)
    advantage = torch.randn(ONE.mask.shape, generator=generator, dtype=torch.float64)
    weight = gamma ** torch.arange(HORIZON)[:, None] * ONE.mask

    def clipped(logits: Tensor, clip: float) -> Tensor:
        log_ratio = log_policy(logits) - log_policy(LOGITS)
        return (weight * clipped_surrogate(log_ratio, advantage, clip)).sum((1, 2))

    expected = gradients(advantage, ONE, gamma=gamma)
    for clip in (0.2, 1e-3):
        torch.testing.assert_close(jacrev(clipped)(LOGITS, clip), expected)


@GAMMAS
def test_at_ratio_one_the_clipped_objective_has_the_true_gradient(gamma):
    # … and so in expectation, with an unbiased estimator.
    advantage, _ = judge(partial(gae, lam=0.7), ONE, gamma=gamma, critic=true_critic(gamma))
    weight = gamma ** torch.arange(HORIZON)[:, None] * ONE.mask

    def expected(logits: Tensor) -> Tensor:
        log_ratio = log_policy(logits) - log_policy(LOGITS)
        surrogate = (weight * clipped_surrogate(log_ratio, advantage, 0.2)).sum((1, 2))
        return ONE.probability(LOGITS) @ surrogate

    torch.testing.assert_close(jacrev(expected)(LOGITS), true_gradient(gamma))
