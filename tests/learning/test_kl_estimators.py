"""k1, k2 and k3 on a softmax of five actions, by enumeration: as values, in a loss, in a reward."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlrun.learning.losses.kl import approximate_kl, k1, k2, k3
from rlrun.models.distributions import Categorical

THETA = torch.tensor([0.3, -1.0, 0.8, 0.0, 1.5], dtype=torch.float64)
REFERENCE = Categorical(torch.tensor([1.0, 0.2, -0.5, 0.4, 0.9], dtype=torch.float64).expand(5, 5))
ACTIONS = torch.arange(5)
PROBABILITY = THETA.softmax(0)
NO_GRADIENT = torch.zeros(5, dtype=torch.float64)

Estimator = Callable[[Tensor], Tensor]


def policy(theta: Tensor) -> Categorical:
    """π_θ, once for each action."""
    return Categorical(theta.expand(5, 5))


def log_ratio(theta: Tensor) -> Tensor:
    """log π − log π_ref of each action, [5]."""
    return policy(theta).log_prob(ACTIONS) - REFERENCE.log_prob(ACTIONS)


def derivative(function: Callable[[Tensor], Tensor]) -> Tensor:
    """∇_θ of a function of the logits, at THETA, [5]."""
    theta = THETA.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(function(theta), theta)
    return gradient


def in_the_loss(k: Estimator) -> Tensor:
    """E_{a~π}[∇ k(a)]: the samples are drawn first and differentiated afterwards."""
    return derivative(lambda theta: (PROBABILITY * k(log_ratio(theta))).sum())


def in_the_reward(k: Estimator) -> Tensor:
    """E_{a~π}[k(a) ∇ log π(a)]: a number, that scores the action."""
    score = k(log_ratio(THETA))
    return derivative(lambda theta: (PROBABILITY * score * policy(theta).log_prob(ACTIONS)).sum())


REVERSE = policy(THETA).kl(REFERENCE)[0]  # KL(π ‖ π_ref)
REVERSE_GRADIENT = derivative(lambda theta: policy(theta).kl(REFERENCE)[0])
FORWARD_GRADIENT = derivative(lambda theta: REFERENCE.kl(policy(theta))[0])


def test_the_two_divergences_differ():
    assert (REVERSE_GRADIENT - FORWARD_GRADIENT).abs().max() > 0.05


def test_the_values_of_k1_and_k3_are_unbiased_and_that_of_k2_is_not():
    mean = {k: (PROBABILITY * k(log_ratio(THETA))).sum() for k in (k1, k2, k3)}
    torch.testing.assert_close(mean[k1], REVERSE)
    torch.testing.assert_close(mean[k3], REVERSE)
    assert abs(mean[k2] - REVERSE) > 0.02


def test_no_sample_of_k2_and_k3_is_negative_and_some_of_k1_are():
    samples = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    assert (k2(samples) >= 0).all()
    assert (k3(samples) >= 0).all()
    assert (k1(log_ratio(THETA)) < 0).any()


def test_all_are_zero_where_the_policies_agree():
    for k in (k1, k2, k3):
        assert k(torch.zeros(1)) == 0


def test_k3_is_the_estimate_from_samples_of_the_other_policy_with_the_sign_turned():
    samples = torch.linspace(-2, 2, 9)
    torch.testing.assert_close(k3(samples).mean(), approximate_kl(-samples))


@pytest.mark.parametrize(
    ("k", "gradient"),
    [(k1, NO_GRADIENT), (k2, REVERSE_GRADIENT), (k3, FORWARD_GRADIENT)],
    ids=["k1: none", "k2: reverse", "k3: forward"],
)
def test_the_gradient_of_a_loss(k, gradient):
    torch.testing.assert_close(in_the_loss(k), gradient)


@pytest.mark.parametrize(
    ("k", "gradient"),
    [(k1, REVERSE_GRADIENT), (k3, REVERSE_GRADIENT - FORWARD_GRADIENT)],
    ids=["k1: reverse", "k3: of no divergence"],
)
def test_the_gradient_of_a_reward(k, gradient):
    torch.testing.assert_close(in_the_reward(k), gradient)


def test_k2_in_the_reward_is_the_gradient_of_neither():
    for gradient in (REVERSE_GRADIENT, FORWARD_GRADIENT, REVERSE_GRADIENT - FORWARD_GRADIENT):
        assert (in_the_reward(k2) - gradient).abs().max() > 0.01
