import math

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Independent,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from rlrun.models.bounded_distributions import Box, CensoredGaussian, SquashedGaussian, UniformBox

BOX = Box(torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 1.0]))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def torch_squashed(mean, log_std, box: Box) -> Independent:
    squash = [TanhTransform(), AffineTransform(box.middle, box.scale)]
    return Independent(TransformedDistribution(Normal(mean, log_std.exp()), squash), 1)


def test_squashed_density_is_that_of_torch():
    mean, log_std = (
        torch.randn(50, 2, generator=generator()),
        torch.linspace(-2, 1, 100).view(50, 2),
    )
    ours = SquashedGaussian(mean, log_std, BOX)
    noise = torch.randn(50, 2, generator=generator(1))
    action, logp = ours.of_noise(noise)
    oracle = torch_squashed(mean.double(), log_std.double(), BOX)
    u = mean.double() + log_std.double().exp() * noise.double()
    exact = BOX.middle + BOX.scale * u.tanh()
    torch.testing.assert_close(action.double(), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logp.double(), oracle.log_prob(exact), atol=1e-4, rtol=1e-4)
    inside = (u.abs() < 3).all(-1)
    torch.testing.assert_close(ours.log_prob(action)[inside], logp[inside], atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.4, 0.4), (3.0, 5.0)])
def test_squashed_density_integrates_to_one(low, high):
    box = Box(torch.tensor([low]).double(), torch.tensor([high]).double())
    edges = torch.linspace(low, high, 200_001, dtype=torch.float64)
    middle = ((edges[1:] + edges[:-1]) / 2).unsqueeze(-1)
    one = torch.ones_like(middle)
    density = SquashedGaussian(0.3 * one, -0.5 * one, box).log_prob(middle).exp()
    assert density.mean().item() * (high - low) == pytest.approx(1, abs=1e-5)


def test_squashed_log_probability_is_finite_far_out():
    mean = torch.tensor([[30.0, -30.0]], requires_grad=True)
    _, logp = SquashedGaussian(mean, torch.zeros(1, 2), BOX).of_noise(torch.zeros(1, 2))
    logp.sum().backward()
    assert logp.isfinite().all()
    assert mean.grad.isfinite().all()
    # log(1 − tanh² u) → log 4 − 2 |u|
    wanted = 2 * (60 - math.log(4)) - math.log(2 * math.pi) - BOX.scale.log().sum().item()
    assert logp.item() == pytest.approx(wanted, rel=1e-5)


def test_squashed_mode_and_parameters():
    mean, log_std = torch.randn(3, 2), torch.randn(3, 2)
    ours = SquashedGaussian(mean, log_std, BOX)
    torch.testing.assert_close(ours.mode(), ours.of_noise(torch.zeros(3, 2))[0])
    again = ours.with_parameters(ours.parameters)
    assert torch.equal(again.mean, mean)
    assert torch.equal(again.log_std, log_std)
    sample = ours.sample(generator())
    assert (sample >= BOX.low).all()
    assert (sample <= BOX.high).all()


def test_censored_density_and_probabilities_sum_to_one():
    box = Box(torch.tensor([-1.0]).double(), torch.tensor([1.0]).double())
    mean = torch.tensor([[0.8]]).double()
    noisy = CensoredGaussian(mean, torch.tensor([0.5]).double(), box)
    edges = torch.linspace(-1, 1, 100_001, dtype=torch.float64)
    middle = ((edges[1:] + edges[:-1]) / 2).view(-1, 1)
    inside = noisy.log_prob(middle).exp().mean() * 2
    ends = noisy.log_prob(torch.tensor([[-1.0], [1.0]]).double()).exp()
    below, above = Normal(0.8, 0.5).cdf(torch.tensor([-1.0, 1.0])).tolist()
    assert ends.tolist() == pytest.approx([below, 1 - above], rel=1e-4)
    assert (inside + ends.sum()).item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(noisy.with_parameters(noisy.parameters).mean, mean)


def test_uniform_actions_fill_the_box():
    uniform = UniformBox(torch.zeros(20_000), BOX)
    sample = uniform.sample(generator())
    assert sample.shape == (20_000, 2)
    torch.testing.assert_close(sample.mean(0), BOX.middle, atol=0.03, rtol=0)
    assert (sample >= BOX.low).all()
    assert (sample <= BOX.high).all()
    # The box has an area of 4.
    torch.testing.assert_close(uniform.log_prob(sample)[:3], torch.full((3,), -math.log(4.0)))
