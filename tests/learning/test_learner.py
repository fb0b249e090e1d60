import copy
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from tiny import torchs_step
from torch import Tensor, nn

from rlrun.learning.learner import GradientLearner, Learner
from rlrun.learning.optimizers import Adam, Optimizer, RMSprop


class Example(NamedTuple):
    """B rows of a regression: [B, 3], [B, 2]."""

    x: Tensor
    y: Tensor


def squared_error(network, batch: Example) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean over rows, and the largest error beside it."""
    error = network(batch.x) - batch.y
    return error.square().mean(), {"loss": error.square().mean(), "largest": error.abs().max()}


def examples(minibatches: int, seed: int = 0, rows: int = 5) -> Example:
    """Minibatches of five rows, [M, 5, ...]."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((minibatches, rows, 3), (minibatches, rows, 2))
    return Example(*(torch.randn(shape, generator=generator) for shape in shapes))


SHARED = {"learning_rate": 1e-2, "anneal_learning_rate": False, "max_grad_norm": 0.5}
ADAM = Adam(epsilon=1e-5, **SHARED)
OPTIMIZERS = {"adam": ADAM, "rmsprop": RMSprop(alpha=0.9, epsilon=1e-3, **SHARED)}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


def regression(
    *, seed: int = 0, max_grad_norm: float = 0.5, optimizer: Optimizer = ADAM
) -> GradientLearner:
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    for layer in (network[0], network[2]):
        nn.init.orthogonal_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    optimizer = replace(optimizer, max_grad_norm=max_grad_norm)
    return GradientLearner(network, squared_error, optimizer)


RATE = torch.tensor(1e-2)


# ---------------------------------------------------------------------- one step, and several


@pytest.mark.parametrize(
    ("max_grad_norm", "clipped"), [(0.01, {True}), (10.0, {True, False}), (1e6, {False})]
)
@every_optimizer
def test_steps_equal_autograd_and_torchs_optimiser(max_grad_norm, clipped, optimizer):
    learner = regression(max_grad_norm=max_grad_norm, optimizer=optimizer)
    batches = examples(20)
    start, seen = learner.parameters.vector.clone(), set()
    for k in range(20):
        # Gradients of very different sizes: Adam would not notice a factor that they all share.
        x, y = batches.x[k], batches.y[k] * 10.0 ** (k % 3)

        def loss(network, x=x, y=y):
            return (network(x) - y).square().mean()

        expected, norm = torchs_step(learner, loss, RATE.item())
        seen.add(norm > max_grad_norm)
        learner.fit(Example(x[None], y[None]), RATE)
        torch.testing.assert_close(learner.parameters.vector, expected, atol=2e-6, rtol=1e-5)
    assert seen == clipped
    assert (learner.parameters.vector - start).abs().max() > 0.05


def test_steps_are_a_pure_function():
    learner, batches = regression(), examples(4)
    theta, moments = learner.state.theta.clone(), copy.deepcopy(learner.state.optimizer)
    state, _ = learner.steps(learner.state, RATE, batches)
    assert torch.equal(theta, learner.parameters.vector)
    for now, then in zip(learner.state.optimizer, moments, strict=True):
        assert torch.equal(now, then)
    assert not torch.equal(state.theta, theta)
    assert state.optimizer.t == 4


def test_several_steps_a_call_equal_as_many_calls():
    together, one_by_one, batches = regression(), regression(), examples(8)
    metrics = together.fit(batches, RATE)
    single = [
        one_by_one.fit(Example(x[None], y[None]), RATE) for x, y in zip(*batches, strict=True)
    ]
    assert torch.equal(together.parameters.vector, one_by_one.parameters.vector)
    for ours, theirs in zip(together.state.optimizer, one_by_one.state.optimizer, strict=True):
        assert torch.equal(ours, theirs)
    for name, values in metrics.items():
        assert values.shape == (8,)
        assert torch.equal(values, torch.cat([each[name] for each in single]))


def test_metrics_are_those_of_each_minibatch_before_its_step():
    learner, batches = regression(), examples(6)
    expected = []
    for x, y in zip(*batches, strict=True):
        error = learner.network(x) - y
        expected.append((error.square().mean(), error.abs().max()))
        learner.fit(Example(x[None], y[None]), RATE)
    metrics = regression().fit(batches, RATE)
    for name, column in zip(("loss", "largest"), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(metrics[name], torch.stack(column), atol=1e-6, rtol=1e-5)


def test_the_network_moves_with_the_parameters():
    learner = regression()
    learner.fit(examples(4), RATE)
    pieces = [p.flatten() for p in learner.network.parameters()]
    assert torch.equal(torch.cat(pieces), learner.parameters.vector)
    assert not torch.equal(learner.parameters.vector, regression().parameters.vector)


def test_it_learns():
    learner, batches = regression(), examples(1)
    losses = [learner.fit(batches, RATE)["loss"].item() for _ in range(300)]
    assert losses[-1] < 0.05 * losses[0]


# ---------------------------------------------------------------------- other steps


class TwoNetworks(NamedTuple):
    """A parameter, one that follows it slowly, and a temperature."""

    theta: Tensor
    target: Tensor
    temperature: Tensor


class Rates(NamedTuple):
    """Step sizes of the parameter and of the temperature."""

    theta: Tensor
    temperature: Tensor


def follow(
    state: TwoNetworks, batch: Example, rates: Rates
) -> tuple[TwoNetworks, dict[str, Tensor]]:
    """A step that changes three things, with two step sizes."""
    theta = state.theta - rates.theta * state.temperature * batch.x.mean(0)
    target = torch.lerp(state.target, theta, 0.1)
    temperature = state.temperature - rates.temperature * batch.y.mean()
    return TwoNetworks(theta, target, temperature), {"gap": (theta - target).abs().max()}


def test_a_step_may_change_whatever_is_in_the_state():
    state = TwoNetworks(torch.ones(3), torch.zeros(3), torch.ones(()))
    learner, rates = Learner(follow, state), Rates(torch.tensor(0.1), torch.tensor(0.2))
    batches, expected = examples(6), copy.deepcopy(state)
    for x, y in zip(*batches, strict=True):
        expected, _ = follow(expected, Example(x, y), rates)
    metrics = learner.fit(batches, rates)
    assert metrics["gap"].shape == (6,)
    assert learner.state.theta is state.theta  # a view of it would see the steps
    for ours, theirs in zip(learner.state, expected, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(state.target, torch.zeros(3))


# ---------------------------------------------------------------------- saving


def test_a_saved_state_is_a_snapshot():
    learner = regression()
    learner.fit(examples(4), RATE)
    saved = learner.state_dict()
    then = copy.deepcopy(saved)
    learner.fit(examples(4), RATE)
    for now, before in zip(saved["state"], then["state"], strict=True):
        assert torch.equal(now, before)


@every_optimizer
def test_a_loaded_learner_goes_on_alike(optimizer):
    learner, loaded = (regression(seed=seed, optimizer=optimizer) for seed in (0, 5))
    learner.fit(examples(4), RATE)
    loaded.network.load_state_dict(learner.network.state_dict())
    loaded.load_state_dict(copy.deepcopy(learner.state_dict()))
    for each in (learner, loaded):
        each.fit(examples(4, seed=1), RATE)
    assert torch.equal(learner.parameters.vector, loaded.parameters.vector)
    for ours, theirs in zip(learner.state.optimizer, loaded.state.optimizer, strict=True):
        assert torch.equal(ours, theirs)
