"""A module's parameters as one vector."""

import pytest
import torch
from gymnasium import spaces
from tiny import counting, problem_of, small_model
from torch import nn
from torch.func import functional_call

from rlrun.models.flat_parameters import FlatParameters

CHOICE = spaces.Discrete(3)
BOX = spaces.Box(-1, 1, (2,))
D = 3  # numbers that Counting observes


def policy(action_space: spaces.Space, seed: int = 0) -> nn.Module:
    problem = problem_of(counting(1, action_space)[0])
    generator = torch.Generator().manual_seed(seed)
    return small_model(hidden_sizes=[8, 8]).policy(problem, generator)


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
    obs = torch.randn(5, D, generator=torch.Generator().manual_seed(0))
    expected = vars(other(obs))[output].detach()
    flat, vector = FlatParameters(network), FlatParameters(other).vector.requires_grad_()

    result = vars(functional_call(network, flat.unflatten(vector), (obs,)))[output]
    assert torch.equal(result, expected)
    result.sum().backward()
    assert vector.grad is not None  # gradients reach the vector through its pieces
    assert vector.grad.any()
