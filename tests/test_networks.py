import math

import pytest
import torch
from gymnasium import spaces
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence
from torch.func import functional_call

from rlrun.networks import ActorCritic, Categorical, DiagonalGaussian, FlatParameters, mlp


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


# ---------------------------------------------------------------------- distributions


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


# ---------------------------------------------------------------------- networks


def test_mlp_is_orthogonal_with_the_papers_gains():
    network = mlp([6, 64, 32, 3], output_gain=0.01, generator=generator())
    names = [type(layer).__name__ for layer in network]
    assert names == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]  # no tanh on the output
    # The columns or the rows, whichever are fewer, are orthogonal: W Wᵀ or Wᵀ W = gain² I.
    for layer, gain in ((network[0], math.sqrt(2)), (network[2], math.sqrt(2)), (network[4], 0.01)):
        weight = layer.weight.detach()
        if weight.shape[0] > weight.shape[1]:
            weight = weight.T
        torch.testing.assert_close(
            weight @ weight.T, gain**2 * torch.eye(len(weight)), atol=1e-5, rtol=1e-5
        )
        assert not layer.bias.any()


def test_weights_come_from_the_generator_alone():
    networks = []
    for seed, global_seed in ((0, 0), (0, 1), (1, 0)):
        torch.manual_seed(global_seed)
        networks.append(mlp([4, 8, 2], output_gain=1.0, generator=generator(seed)))
    same, again, other = (network[0].weight for network in networks)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


def actor_critic(action_space: spaces.Space, seed: int = 0) -> ActorCritic:
    return ActorCritic(
        4, action_space, hidden_sizes=[8, 8], log_std=-0.5, generator=generator(seed)
    )


def test_a_new_policy_is_almost_uniform_or_centred():
    obs = 10 * torch.randn(100, 4, generator=generator())
    discrete, value = actor_critic(spaces.Discrete(3))(obs)
    assert (discrete.logits.softmax(-1) - 1 / 3).abs().max() < 0.02
    assert value.shape == (100,)
    box, _ = actor_critic(spaces.Box(-1, 1, (2,)))(obs)
    assert box.mean.shape == (100, 2)
    assert box.mean.abs().max() < 0.1
    assert box.log_std.tolist() == [-0.5, -0.5]


def test_policy_and_critic_share_no_weights():
    network = actor_critic(spaces.Discrete(3))
    network.critic(torch.ones(4)).sum().backward()
    assert all(p.grad is None for p in network.policy.parameters())
    assert all(p.grad is not None for p in network.critic.parameters())


# ---------------------------------------------------------------------- one flat vector


def test_parameters_are_views_of_the_vector():
    network = actor_critic(spaces.Box(-1, 1, (2,)))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    flat = FlatParameters(network)
    assert flat.vector.shape == (sum(p.numel() for p in network.parameters()),)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])

    flat.vector.zero_()
    assert not any(p.any() for p in network.parameters())
    network.load_state_dict(before)  # copies into the views
    pieces = [before[name].flatten() for name, _ in network.named_parameters()]
    assert torch.equal(flat.vector, torch.cat(pieces))


def test_an_unflattened_vector_is_the_network():
    network, other = (actor_critic(spaces.Discrete(3), seed) for seed in (0, 1))
    obs = torch.randn(5, 4, generator=generator())
    expected_logits, expected_value = other(obs)[0].logits.detach(), other(obs)[1].detach()
    flat, vector = FlatParameters(network), FlatParameters(other).vector.requires_grad_()

    distribution, value = functional_call(network, flat.unflatten(vector), (obs,))
    assert torch.equal(distribution.logits, expected_logits)
    assert torch.equal(value, expected_value)
    value.sum().backward()
    assert vector.grad is not None  # gradients reach the vector through its pieces
    assert vector.grad.any()
