"""Multi-layer perceptrons as a model: their settings, and the networks that they build."""

import math
from itertools import pairwise

import pytest
import torch
from gymnasium import spaces
from tiny import counting, part_of, problem_of, small_model, yaml_of
from torch import nn

from rlrun.errors import UserError
from rlrun.models.mlp import ACTIVATIONS, MLP
from rlrun.models.networks import BoxActionCritic, CategoricalPolicy, DiscreteActionCritic

CHOICE = spaces.Discrete(3)
BOX = spaces.Box(-1, 1, (2,))
D = 3  # numbers that Counting observes


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(network: str, action_space: spaces.Space = BOX, seed: int = 0, **settings) -> nn.Module:
    """A network of a model: its policy, critic or action_critic."""
    problem = problem_of(counting(1, action_space)[0])
    return getattr(small_model(**settings), network)(problem, generator(seed))


# ---------------------------------------------------------------------- settings


def test_layers_have_the_widths_that_are_set():
    for network, action_space, inputs, outputs in (
        ("policy", BOX, D, 2),
        ("policy", CHOICE, D, 3),
        ("critic", BOX, D, 1),
        ("action_critic", BOX, D + 2, 1),
        ("action_critic", CHOICE, D, 3),
    ):
        for widths in ([7, 5], []):
            module = built(network, action_space, hidden_sizes=widths)
            linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
            shapes = [(layer.in_features, layer.out_features) for layer in linear]
            sizes = [inputs, *widths, outputs]
            assert shapes == list(pairwise(sizes))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_hidden_layer_has_the_activation_that_is_set(activation):
    stack = built("critic", hidden_sizes=[8, 8], activation=activation).value
    names = [type(layer).__name__ for layer in stack]
    assert [name.lower() for name in names] == [
        *("linear", activation, "linear", activation),
        "linear",  # and no activation on the output
    ]
    x = torch.linspace(-2, 2, 9)
    expected = torch.tanh(x) if activation == "tanh" else getattr(nn.functional, activation)(x)
    assert torch.equal(stack[1](x), expected)


def test_orthogonal_weights_have_the_papers_gains():
    layers = built("policy", hidden_sizes=[64, 32], initialization="orthogonal").mean
    # The columns or the rows, whichever are fewer, are orthogonal: W Wᵀ or Wᵀ W = gain² I.
    for layer, gain in ((layers[0], math.sqrt(2)), (layers[2], math.sqrt(2)), (layers[4], 0.01)):
        weight = layer.weight.detach()
        if weight.shape[0] > weight.shape[1]:
            weight = weight.T
        torch.testing.assert_close(
            weight @ weight.T, gain**2 * torch.eye(len(weight)), atol=1e-5, rtol=1e-5
        )
        assert not layer.bias.any()
    for critic in ("critic", "action_critic"):  # the gain of a value is 1
        last = [m for m in built(critic).modules() if isinstance(m, nn.Linear)][-1]
        assert torch.linalg.vector_norm(last.weight).item() == pytest.approx(1.0)


def test_uniform_weights_are_those_of_torch():
    # U(±1/√inputs), of weights and biases, in every layer: torch's own initialisation.
    layers = built("policy", hidden_sizes=[400, 100], initialization="uniform").mean
    theirs = [nn.Linear(D, 400), None, nn.Linear(400, 100), None, nn.Linear(100, 2)]
    for layer, their in zip(layers, theirs, strict=True):
        if their is None:
            continue
        bound = 1 / math.sqrt(layer.in_features)
        for ours, own in ((layer.weight, their.weight), (layer.bias, their.bias)):
            assert ours.abs().max() <= bound
            assert own.abs().max() <= bound
            if ours.numel() > 100:
                assert ours.abs().max() > 0.95 * bound
                # The standard deviation of U(±b) is b/√3; within 15 %, four errors of n > 100.
                assert ours.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
                assert own.std().item() == pytest.approx(ours.std().item(), rel=0.25)


def test_weights_come_from_the_generator_alone():
    for initialization in ("orthogonal", "uniform"):
        networks = []
        for seed, global_seed in ((0, 0), (0, 1), (1, 0)):
            torch.manual_seed(global_seed)
            networks.append(built("critic", seed=seed, initialization=initialization))
        same, again, other = (network.state_dict() for network in networks)
        assert all(torch.equal(same[name], again[name]) for name in same)
        assert not torch.equal(same["value.0.weight"], other["value.0.weight"])


def test_the_files_of_the_group_differ_in_the_first_spread_alone():
    usual, quiet = part_of("model", "mlp"), part_of("model", "mlp_small_noise")
    assert isinstance(usual, MLP)
    assert (usual.log_std, quiet.log_std) == (0.0, -0.5)
    assert {**vars(quiet), "log_std": 0.0} == vars(usual)
    assert yaml_of("model", "mlp")["hidden_sizes"] == [64, 64]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_sizes": [64, 0]}, r"hidden_sizes.* must be at least 1, got 0"),
        ({"activation": "tanhh"}, r"activation.*tanhh.*tanh"),
        ({"initialization": "xavier"}, r"initialization.*xavier"),
        ({"log_std": float("nan")}, r"log_std must be finite, got nan"),
        ({"log_std": float("inf")}, r"log_std must be finite, got inf"),
        ({"width": 3}, r"width: no such setting"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(UserError, match=rf"^model\.{message}"):
        part_of("model", "mlp", **changes)


# ---------------------------------------------------------------------- networks


def test_a_new_policy_is_almost_uniform_or_centred():
    obs = 10 * torch.randn(100, D, generator=generator())
    discrete = built("policy", CHOICE)(obs)
    assert discrete.logits.shape == (100, 3)
    assert (discrete.logits.softmax(-1) - 1 / 3).abs().max() < 0.02
    box = built("policy", BOX, log_std=-0.5)(obs)
    assert box.mean.shape == (100, 2)
    assert box.mean.abs().max() < 0.1
    assert box.log_std.tolist() == [-0.5, -0.5]


def test_a_critic_gives_one_number_for_each_observation():
    obs = torch.randn(7, 5, D, generator=generator())
    critic = built("critic")
    assert critic(obs).shape == (7, 5)
    torch.testing.assert_close(critic(obs)[3, 2], critic(obs[3, 2]))


def test_the_value_of_a_choice_is_its_entry_of_the_values_of_all():
    critic = built("action_critic", CHOICE)
    assert isinstance(critic, DiscreteActionCritic)
    obs = torch.randn(7, 5, D, generator=generator())
    action = torch.randint(3, (7, 5), generator=generator())
    values, chosen = critic.values(obs), critic(obs, action)
    assert values.shape == (7, 5, 3)
    for t in range(7):
        for n in range(5):
            assert chosen[t, n] == values[t, n, action[t, n]]


def test_the_value_of_an_action_in_a_box_depends_on_state_and_action():
    critic = built("action_critic", BOX)
    assert isinstance(critic, BoxActionCritic)
    obs = torch.randn(7, 5, D, generator=generator())
    action = torch.randn(7, 5, 2, generator=generator())
    value = critic(obs, action)
    assert value.shape == (7, 5)
    # One network of observation and action side by side, in this order.
    torch.testing.assert_close(value, critic.value(torch.cat([obs, action], -1)).squeeze(-1))
    assert (value != critic(obs, -action)).all()
    assert (value != critic(-obs, action)).all()


def test_a_policy_wraps_whatever_computes_its_numbers():
    # Of observations that are no vectors, too.
    grid = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    obs = torch.randn(6, 1, 4, 4, generator=generator())
    distribution = CategoricalPolicy(grid)(obs)
    assert torch.equal(distribution.logits, grid(obs))
    assert distribution.mode().shape == (6,)
