"""Distributions beside torch's, by hand, and by the moments of what is drawn."""

import math

import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from rlrun.models.distributions import Categorical, DiagonalGaussian


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def gaussians() -> list[tuple[DiagonalGaussian, Independent]]:
    """Two of ours beside torch's, over [7, 5] states and 3 action dimensions."""
    pairs = []
    for seed in (0, 1):
        mean, log_std = randn(7, 5, 3, seed=seed), randn(3, seed=seed + 10)
        theirs = Independent(Normal(mean, log_std.exp().expand_as(mean)), 1)
        pairs.append((DiagonalGaussian(mean, log_std), theirs))
    return pairs


def categoricals() -> list[tuple[Categorical, TorchCategorical]]:
    """Two of ours beside torch's, over [7, 5] states and 4 actions."""
    logits = [3 * randn(7, 5, 4, seed=seed) for seed in (0, 1)]
    return [(Categorical(x), TorchCategorical(logits=x)) for x in logits]


@pytest.mark.parametrize("pairs", [gaussians(), categoricals()], ids=["gaussian", "categorical"])
def test_log_prob_entropy_and_kl_equal_torchs(pairs):
    (ours, theirs), (our_other, their_other) = pairs
    action = theirs.sample()
    assert ours.log_prob(action).shape == (7, 5)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.kl(our_other), kl_divergence(theirs, their_other))
    torch.testing.assert_close(ours.kl(ours), torch.zeros(7, 5, dtype=torch.float64))
    # KL is not symmetric: this would catch exchanged arguments.
    assert not torch.allclose(ours.kl(our_other), our_other.kl(ours))


def test_log_probs_by_hand():
    # −½ (1/2)² − ln 2 − ½ ln 2π at one standard deviation of 2 and a distance of 1
    gaussian = DiagonalGaussian(torch.zeros(1), torch.full((1,), math.log(2.0)))
    by_hand = -0.125 - math.log(2) - 0.5 * math.log(2 * math.pi)
    assert gaussian.log_prob(torch.ones(1)).item() == pytest.approx(by_hand)
    # logits ln 1, ln 3 are probabilities ¼, ¾
    categorical = Categorical(torch.tensor([0.0, math.log(3)]))
    assert categorical.log_prob(torch.tensor(1)).exp().item() == pytest.approx(0.75)
    assert categorical.entropy().item() == pytest.approx(
        -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    )


def test_gaussian_samples_have_the_moments_of_the_distribution():
    count = 40_000
    mean, log_std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0])
    samples = DiagonalGaussian(mean.expand(count, 2), log_std).sample(generator())
    std = log_std.exp()
    # Four standard errors: σ/√n of a mean, σ/√(2n) of a standard deviation.
    assert ((samples.mean(0) - mean).abs() < 4 * std / count**0.5).all()
    assert ((samples.std(0) - std).abs() < 4 * std / (2 * count) ** 0.5).all()
    assert abs(torch.corrcoef(samples.T)[0, 1].item()) < 4 / count**0.5


def test_categorical_samples_have_the_frequencies_of_the_distribution():
    count = 40_000
    probabilities = torch.tensor([0.05, 0.15, 0.3, 0.5])
    # Logits have no zero of their own: any shift is the same distribution.
    logits = (probabilities.log() + 7.0).expand(count, 4)
    samples = Categorical(logits).sample(generator())
    assert samples.dtype == torch.int64
    frequencies = samples.bincount(minlength=4) / count
    standard_error = (probabilities * (1 - probabilities) / count).sqrt()
    assert ((frequencies - probabilities).abs() < 4 * standard_error).all()


def test_an_impossible_action_is_never_drawn():
    logits = torch.tensor([0.0, -torch.inf, 0.0]).expand(10_000, 3)
    assert not (Categorical(logits).sample(generator()) == 1).any()


@pytest.mark.parametrize("distribution", [gaussians()[0][0], categoricals()[0][0]])
def test_samples_come_from_the_generator_alone(distribution):
    torch.manual_seed(0)
    first = distribution.sample(generator(3))
    torch.manual_seed(1)
    assert torch.equal(first, distribution.sample(generator(3)))
    assert not torch.equal(first, distribution.sample(generator(4)))


@pytest.mark.parametrize("distribution", [gaussians()[0][0], categoricals()[0][0]])
def test_mode_is_the_most_probable_action(distribution):
    best = distribution.log_prob(distribution.mode())
    for seed in range(20):
        assert (distribution.log_prob(distribution.sample(generator(seed))) <= best).all()


def test_draws_are_on_the_device_of_the_distribution():
    # The generator is on the CPU wherever the distribution is; "meta" stands for any other device.
    logits, mean = torch.zeros(3, 2, device="meta"), torch.zeros(3, 2, device="meta")
    log_std = torch.zeros(2, device="meta")
    assert Categorical(logits).sample(generator()).device.type == "meta"
    assert DiagonalGaussian(mean, log_std).sample(generator()).device.type == "meta"
