import math

import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence
from torch.func import functional_call

from rlrun.envs.problem import Problem
from rlrun.models.distributions import Categorical, DiagonalGaussian
from rlrun.models.flat_parameters import FlatParameters
from rlrun.models.mlp import mlp
from rlrun.models.networks import (
    BoxActionCritic,
    Critic,
    DiscreteActionCritic,
    make_action_critic,
    make_policy,
)


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


CHOICE = spaces.Discrete(3)
BOX = spaces.Box(-1, 1, (2,))


def made(make, action_space: spaces.Space, seed: int = 0, **settings) -> nn.Module:
    """A policy or an action critic for observations of four numbers."""
    problem = Problem(
        env_id="Any-v0", obs_size=4, action_space=action_space, time_limit=None, group_size=None
    )
    return make(problem, hidden_sizes=[8, 8], generator=generator(seed), **settings)


def policy(action_space: spaces.Space, seed: int = 0) -> nn.Module:
    return made(make_policy, action_space, seed, log_std=-0.5)


def test_a_new_policy_is_almost_uniform_or_centred():
    obs = 10 * torch.randn(100, 4, generator=generator())
    discrete = policy(CHOICE)(obs)
    assert discrete.logits.shape == (100, 3)
    assert (discrete.logits.softmax(-1) - 1 / 3).abs().max() < 0.02
    box = policy(BOX)(obs)
    assert box.mean.shape == (100, 2)
    assert box.mean.abs().max() < 0.1
    assert box.log_std.tolist() == [-0.5, -0.5]


def test_a_critic_gives_one_number_for_each_observation():
    obs = torch.randn(7, 5, 4, generator=generator())
    critic = Critic([4, 8, 1], generator())
    assert critic(obs).shape == (7, 5)
    torch.testing.assert_close(critic(obs)[3, 2], critic(obs[3, 2]))


def test_the_value_of_a_choice_is_its_entry_of_the_values_of_all():
    critic = made(make_action_critic, CHOICE)
    assert isinstance(critic, DiscreteActionCritic)
    obs = torch.randn(7, 5, 4, generator=generator())
    action = torch.randint(3, (7, 5), generator=generator())
    values, chosen = critic.values(obs), critic(obs, action)
    assert values.shape == (7, 5, 3)
    for t in range(7):
        for n in range(5):
            assert chosen[t, n] == values[t, n, action[t, n]]


def test_the_value_of_an_action_in_a_box_depends_on_state_and_action():
    critic = made(make_action_critic, BOX)
    assert isinstance(critic, BoxActionCritic)
    obs = torch.randn(7, 5, 4, generator=generator())
    action = torch.randn(7, 5, 2, generator=generator())
    value = critic(obs, action)
    assert value.shape == (7, 5)
    # One network of observation and action side by side, in this order.
    torch.testing.assert_close(value, critic.value(torch.cat([obs, action], -1)).squeeze(-1))
    assert (value != critic(obs, -action)).all()
    assert (value != critic(-obs, action)).all()


# ---------------------------------------------------------------------- one flat vector


def test_parameters_are_views_of_the_vector():
    network = policy(BOX)
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


@pytest.mark.parametrize(("action_space", "output"), [(CHOICE, "logits"), (BOX, "mean")])
def test_an_unflattened_vector_is_the_network(action_space, output):
    network, other = (policy(action_space, seed) for seed in (0, 1))
    obs = torch.randn(5, 4, generator=generator())
    expected = vars(other(obs))[output].detach()
    flat, vector = FlatParameters(network), FlatParameters(other).vector.requires_grad_()

    result = vars(functional_call(network, flat.unflatten(vector), (obs,)))[output]
    assert torch.equal(result, expected)
    result.sum().backward()
    assert vector.grad is not None  # gradients reach the vector through its pieces
    assert vector.grad.any()


def test_draws_are_on_the_device_of_the_distribution():
    # The generator is on the CPU wherever the distribution is; "meta" stands for any other device.
    logits, mean = torch.zeros(3, 2, device="meta"), torch.zeros(3, 2, device="meta")
    log_std = torch.zeros(2, device="meta")
    assert Categorical(logits).sample(generator()).device.type == "meta"
    assert DiagonalGaussian(mean, log_std).sample(generator()).device.type == "meta"
