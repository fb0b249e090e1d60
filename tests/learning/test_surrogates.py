import math

import pytest
import torch
from tiny import bare_rollout
from torch import Tensor

from rlrun.learning.losses.kl import approximate_kl
from rlrun.learning.losses.surrogates import (
    clipped_surrogate,
    clipped_value_error,
    squared_value_error,
    standardize,
)
from rlrun.learning.metrics import explained_variance, ratio_metrics
from rlrun.models.distributions import DiagonalGaussian


def logs(*ratios: float) -> Tensor:
    return torch.tensor(ratios, dtype=torch.float64).log()


# The band is [0.8, 1.2]. Where the probability has gone too far in the direction that the
# advantage asks for, the objective is flat; where it has gone the wrong way, it is not.
@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "slope"),
    [
        (1.5, 2.0, 1.2 * 2.0, 0.0),  # a good action, already likelier: stop
        (1.5, -2.0, 1.5 * -2.0, -2.0),  # a bad action, become likelier: push back
        (0.5, 2.0, 0.5 * 2.0, 2.0),  # a good action, become rarer: push back
        (0.5, -2.0, 0.8 * -2.0, 0.0),  # a bad action, already rarer: stop
        (1.1, 2.0, 1.1 * 2.0, 2.0),  # inside the band nothing is clipped
        (0.9, -2.0, 0.9 * -2.0, -2.0),
    ],
)
def test_clipped_surrogate_in_every_case(ratio, advantage, objective, slope):
    ratio = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    result = clipped_surrogate(ratio.log(), torch.tensor(advantage, dtype=torch.float64), clip=0.2)
    assert result.item() == pytest.approx(objective)
    (gradient,) = torch.autograd.grad(result, ratio)
    assert gradient.item() == pytest.approx(slope)  # ∂/∂ρ, which is Â or 0


def test_at_the_old_policy_the_gradient_is_the_policy_gradient():
    # ρ = 1: ∂/∂ log π min(ρÂ, clip(ρ)Â) = Â
    log_ratio = torch.zeros(4, requires_grad=True)
    advantage = torch.tensor([-1.0, 0.0, 0.5, 3.0])
    clipped_surrogate(log_ratio, advantage, clip=0.2).sum().backward()
    torch.testing.assert_close(log_ratio.grad, advantage)


def test_squared_value_error_by_hand():
    error = squared_value_error(torch.tensor([3.0, -1.0]), torch.tensor([1.0, -1.0]))
    assert error.tolist() == [2.0, 0.0]  # ½·2², 0


@pytest.mark.parametrize(
    ("value", "target", "error", "slope"),
    [
        # V_old = 1 and V may move by 0.5, so the bounded V is at most 1.5.
        (1.2, 3.0, 0.5 * 1.8**2, -1.8),  # within the bound: the plain error, slope V − target
        (2.0, 3.0, 0.5 * 1.5**2, 0.0),  # beyond it towards the target: flat, ½ (1.5 − 3)²
        (2.0, 0.0, 0.5 * 2.0**2, 2.0),  # beyond it away from the target: the plain error
        (0.0, -1.0, 0.5 * 1.5**2, 0.0),  # below: bounded at 0.5
    ],
)
def test_clipped_value_error_in_every_case(value, target, error, slope):
    value = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    old, target = (torch.tensor(x, dtype=torch.float64) for x in (1.0, target))
    result = clipped_value_error(value, old, target, clip=0.5)
    assert result.item() == pytest.approx(error)
    (gradient,) = torch.autograd.grad(result, value)
    assert gradient.item() == pytest.approx(slope)


def test_kl_estimate_by_hand():
    # (1.5 − 1) − ln 1.5 and (0.5 − 1) − ln 0.5
    expected = ((0.5 - math.log(1.5)) + (-0.5 - math.log(0.5))) / 2
    assert approximate_kl(logs(1.5, 0.5)).item() == pytest.approx(expected)
    assert approximate_kl(torch.zeros(5)).item() == 0.0


def test_kl_estimate_is_that_of_the_exact_gaussians():
    count = 200_000
    old = DiagonalGaussian(torch.zeros(count, 2, dtype=torch.float64), torch.tensor([0.0, -0.5]))
    new = DiagonalGaussian(old.mean + torch.tensor([0.2, -0.1]), torch.tensor([0.3, -0.3]))
    action = old.mean + old.log_std.exp() * torch.randn(
        count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    log_ratio = new.log_prob(action) - old.log_prob(action)
    each = torch.expm1(log_ratio) - log_ratio
    assert (each >= 0).all()
    exact = old.kl(new)[0].item()
    within = 4 * each.std().item() / count**0.5
    assert approximate_kl(log_ratio).item() == pytest.approx(exact, abs=within)
    # The other direction is another number, and further away than the noise.
    assert abs(new.kl(old)[0].item() - exact) > within


def test_kl_estimate_of_a_tiny_change_is_not_rounded_away():
    # ½ x² to leading order: exp(x) − 1 − x in float32 would be noise of 1e-7.
    assert approximate_kl(torch.full((1,), 1e-3)).item() == pytest.approx(5e-7, rel=1e-2)


def test_ratios_by_hand():
    # The band is [0.8, 1.2]: 0.5, 0.79, 1.21 and 2 are outside. Σρ = 8.5 and Σρ² = 0.25 + 0.6241 +
    # 0.6561 + 1 + 1.4161 + 1.4641 + 4 + 1 = 10.4104, so that the share is 8.5² / (8 · 10.4104).
    metrics = ratio_metrics(logs(0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0, 1.0), clip=0.2)
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {
            "policy/ratio_mean": 8.5 / 8,
            "policy/ratio_max": 2.0,
            "policy/clip_fraction": 4 / 8,
            "policy/effective_sample_size": 72.25 / 83.2832,
        }
    )


@pytest.mark.parametrize(("ratios", "share"), [((1.0,) * 5, 1.0), ((1e-9,) * 4 + (5.0,), 0.2)])
def test_the_effective_sample_size_is_all_rows_for_equal_weights_and_one_for_one(ratios, share):
    metrics = ratio_metrics(logs(*ratios), clip=0.2)
    assert metrics["policy/effective_sample_size"].item() == pytest.approx(share)


def explained(value: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """The share for columns of one environment."""
    value, target = value[:, None], target[:, None]
    rows = {} if mask is None else {"mask": mask[:, None]}
    metrics = explained_variance(bare_rollout(target, value=value, **rows), target)
    assert metrics.keys() == {"value/explained_variance"}
    return metrics["value/explained_variance"].item()


def test_explained_variance():
    target = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained(target, target) == 1.0
    # A constant error explains everything but the mean, a constant critic nothing.
    assert explained(target + 5.0, target) == pytest.approx(1.0)
    assert explained(torch.full((4,), 9.0), target) == pytest.approx(0.0)
    assert explained(-target, target) == pytest.approx(-3.0)  # 1 − Var(2x)/Var(x)
    # V = 1, 2, 3, 3 leaves errors 0, 0, 0, 1: 1 − (3/16) / (20/16) = 0.85
    assert explained(torch.tensor([1.0, 2.0, 3.0, 3.0]), target) == pytest.approx(0.85)


def test_explained_variance_is_that_of_the_rows_that_count():
    target = torch.tensor([1.0, 2.0, 3.0, 4.0, 99.0])
    value = torch.tensor([1.0, 2.0, 3.0, 3.0, -99.0])
    mask = torch.tensor([True, True, True, True, False])
    assert explained(value, target, mask) == pytest.approx(0.85)


def test_explained_variance_is_finite_where_nothing_varies():
    for count in (1, 5):
        constant = torch.ones(count)
        assert math.isfinite(explained(constant, constant))


def test_without_a_critic_there_is_no_explained_variance():
    assert explained_variance(bare_rollout(torch.ones(3, 1)), torch.ones(3, 1)) == {}


def test_standardize_against_numbers_done_by_hand():
    # Mean 2, deviations −1, 0, 1: a sample's variance is (1 + 0 + 1) / 2.
    standardized = standardize(torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(standardized, torch.tensor([-1.0, 0.0, 1.0]))


def test_one_advantage_alone_is_no_reason_to_go_anywhere():
    assert standardize(torch.tensor([5.0])).tolist() == [0.0]
