"""The step of a trust region: Fisher products, conjugate gradient, line search, some by hand."""

import copy

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from tiny import small_model
from torch import Tensor, nn
from torch.func import functional_call, hessian

from rlrun.envs.problem import Problem
from rlrun.learning.trust_region import (
    TrustRegion,
    TrustRegionBatch,
    TrustRegionStep,
    conjugate_gradient,
    fisher_vector_product,
)
from rlrun.models.distributions import Categorical, DiagonalGaussian
from rlrun.models.flat_parameters import FlatParameters


def small_policy(kind: str) -> tuple[nn.Module, FlatParameters, Tensor]:
    """A policy with weights of order 1, in double precision; θ; and observations [6, 2]."""
    generator = torch.Generator().manual_seed(0)
    space = Discrete(3) if kind == "categorical" else Box(-1.0, 1.0, (2,), np.float32)
    problem = Problem(
        env_id="Tiny-v0", obs_size=2, action_space=space, action_units="raw", time_limit=None
    )
    policy = small_model(hidden_sizes=[3], log_std=-0.3).policy(problem, generator)
    parameters = FlatParameters(policy.double())
    parameters.vector.add_(
        0.5 * torch.randn(len(parameters.vector), generator=generator, dtype=torch.double)
    )
    return policy, parameters, torch.randn(6, 2, generator=generator, dtype=torch.double)


def fisher_matrix(policy: nn.Module, parameters: FlatParameters, obs: Tensor) -> Tensor:
    """F [P, P], column by column from products with unit vectors."""

    def at(theta: Tensor):
        return functional_call(policy, parameters.unflatten(theta), (obs,))

    theta = parameters.vector
    columns = [fisher_vector_product(at, theta, unit) for unit in torch.eye(len(theta)).double()]
    return torch.stack(columns, -1)


# ---------------------------------------------------------------------- the Fisher matrix


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_the_fisher_product_is_that_of_the_kls_hessian(kind):
    policy, parameters, obs = small_policy(kind)
    old = policy(obs)

    def mean_kl(theta: Tensor) -> Tensor:
        return old.kl(functional_call(policy, parameters.unflatten(theta), (obs,))).mean()

    expected = hessian(mean_kl)(parameters.vector)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(fisher_matrix(policy, parameters, obs), expected)


def scores(policy: nn.Module, obs: Tensor, action: Tensor) -> Tensor:
    """∇_θ log π(a|s) of one row, [P], by autograd."""
    policy = copy.deepcopy(policy).requires_grad_(True)
    policy(obs).log_prob(action).backward()
    return torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])


def test_the_fisher_matrix_is_the_mean_outer_product_of_scores():
    # Every state and action, each with its probability.
    policy, parameters, obs = small_policy("categorical")
    expected = torch.zeros(len(parameters.vector), len(parameters.vector), dtype=torch.double)
    for row in obs:
        for action, probability in enumerate(policy(row).logits.softmax(-1)):
            score = scores(policy, row, torch.tensor(action))
            expected += probability * torch.outer(score, score) / len(obs)
    torch.testing.assert_close(fisher_matrix(policy, parameters, obs), expected)


# ---------------------------------------------------------------------- conjugate gradient


def test_conjugate_gradient_solves_a_system():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(8, 8, generator=generator, dtype=torch.double)
    matrix, b = root @ root.T + torch.eye(8), torch.arange(8.0, dtype=torch.double)
    # In exact arithmetic it is done after as many products as there are unknowns.
    x, _ = conjugate_gradient(lambda v: matrix @ v, b, iterations=8, tolerance=0.0)
    torch.testing.assert_close(matrix @ x, b)
    rough, residual = conjugate_gradient(lambda v: matrix @ v, b, iterations=2, tolerance=0.0)
    torch.testing.assert_close(residual, b - matrix @ rough)
    assert torch.linalg.vector_norm(residual) > 0.1


def test_conjugate_gradient_stops_at_its_tolerance():
    calls = []

    def product(vector: Tensor) -> Tensor:
        calls.append(vector)
        return torch.tensor([1.0, 2.0, 4.0]) * vector

    b = torch.tensor([1.0, 1.0, 1.0])
    for tolerance, count in ((0.0, 3), (1.0, 1), (3.0, 0)):
        calls.clear()
        _, residual = conjugate_gradient(product, b, iterations=3, tolerance=tolerance)
        assert len(calls) == count
        assert residual @ residual <= tolerance + 1e-12


def test_conjugate_gradient_of_nothing_is_nothing():
    x, _ = conjugate_gradient(lambda v: 2 * v, torch.zeros(3), iterations=5, tolerance=0.0)
    assert torch.equal(x, torch.zeros(3))


# ---------------------------------------------------------------------- the step


class TwoActions(nn.Module):
    """One state, two actions, and their logits as parameters."""

    def __init__(self, logits: list[float]):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, obs: Tensor) -> Categorical:
        return Categorical(self.logits.expand(*obs.shape[:-1], 2))


class OneNormal(nn.Module):
    """One state, one action dimension, and mean and log σ as parameters."""

    def __init__(self, mean: float, log_std: float):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([mean]))
        self.log_std = nn.Parameter(torch.tensor([log_std]))

    def forward(self, obs: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean.expand(*obs.shape[:-1], 1), self.log_std)


def step_of(policy: nn.Module, **changes) -> TrustRegionStep:
    settings = {
        "max_kl": 1e-4,
        "damping": 1e-6,
        "cg_iterations": 5,
        "cg_tolerance": 1e-14,
        "line_search_steps": 10,
        "line_search_shrink": 0.8,
    }
    return TrustRegionStep(policy, TrustRegion(**{**settings, **changes}))


def test_two_actions_by_hand():
    # p = (¾, ¼); advantages 1 for the first action and −3 for the second, whose mean is 0.
    # g = E[Â ∇log π] = ¾·1·(¼, −¼) + ¼·(−3)·(−¾, ¾) = (¾, −¾)
    # F = p₁p₂ [[1, −1], [−1, 1]] = 3/16 [[1, −1], [−1, 1]];  F x = g at x = (2, −2)
    # xᵀFx = 3, so that the step is √(2δ/3) (2, −2) = √(8δ/3) (1, −1)
    policy = TwoActions([np.log(3.0), 0.0])
    action = torch.tensor([0, 0, 0, 1])
    advantage = torch.tensor([1.0, 1.0, 1.0, -3.0])
    step = step_of(policy, line_search_shrink=1.0, max_kl=1e-4)
    before = policy.logits.clone()
    metrics = step.take(TrustRegionBatch(torch.zeros(4, 1), action, advantage))
    length = np.sqrt(8 * 1e-4 / 3)
    moved = (policy.logits - before).tolist()
    assert moved == pytest.approx([length, -length], rel=1e-3)
    assert metrics["policy/kl"].item() == pytest.approx(1e-4, rel=0.02)
    # E[(ρ − 1) Â] = gᵀs to first order
    assert metrics["policy/improvement"].item() == pytest.approx(1.5 * length, rel=0.02)


def test_a_normal_distribution_by_hand():
    # F is 1/σ² for the mean and 2 for log σ. Actions μ ± σ with advantages ±1: g = (1/σ, 0),
    # x = (σ, 0), xᵀFx = 1: the mean moves by σ √(2δ), whatever σ is.
    for std in (0.1, 10.0):
        policy = OneNormal(3.0, np.log(std))
        action = torch.tensor([[3.0 + std], [3.0 - std]])
        step = step_of(policy, damping=0.0)
        step.take(TrustRegionBatch(torch.zeros(2, 1), action, torch.tensor([1.0, -1.0])))
        assert policy.mean.item() - 3.0 == pytest.approx(std * np.sqrt(2e-4), rel=1e-3)
        assert policy.log_std.item() == pytest.approx(np.log(std), abs=1e-4)


def test_damping_turns_the_step_towards_the_gradient():
    # Two states with little and much data: with heavy damping F + c I is c I.
    policy = OneNormal(0.0, np.log(0.1))
    batch = TrustRegionBatch(
        torch.zeros(2, 1), torch.tensor([[0.1], [-0.05]]), torch.tensor([1.0, -1.0])
    )
    directions = []
    for damping in (0.0, 1e6):
        step = step_of(copy.deepcopy(policy), damping=damping, max_kl=1e-3)
        before = step.parameters.vector.clone()
        gradient = step._gradient(before, batch)
        step.take(batch)
        moved = step.parameters.vector - before
        directions.append(torch.cosine_similarity(moved, gradient, dim=0).item())
    assert directions[0] < 0.99
    assert directions[1] == pytest.approx(1.0, abs=1e-3)


def test_the_line_search_shortens_the_step_until_it_fits():
    # A step 1/0.8³ times too long, and a bit: the fourth length is the first one that fits.
    generator = torch.Generator().manual_seed(0)
    policy = TwoActions([0.0, 0.0])
    action = torch.randint(2, (64,), generator=generator)
    batch = TrustRegionBatch(torch.zeros(64, 1), action, action * 2.0 - 1)
    step = step_of(policy, damping=0.0)
    factor = (0.8**2.5) ** 2
    step.product = lambda theta, vector, batch: factor * step._product(theta, vector, batch)
    metrics = step.take(batch)
    assert metrics["policy/line_search_steps"] == 4
    assert metrics["policy/line_search_accepted"] == 1
    assert 0.7e-4 < metrics["policy/kl"] <= 1e-4


def test_without_advantages_nothing_moves():
    policy = TwoActions([0.3, 0.0])
    step = step_of(policy)
    before = policy.logits.clone()
    metrics = step.take(
        TrustRegionBatch(torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]), torch.zeros(4))
    )
    assert torch.equal(policy.logits, before)
    assert all(value.isfinite() for value in metrics.values())
