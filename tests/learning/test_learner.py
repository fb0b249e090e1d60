import copy
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from tiny import torchs_step
from torch import Tensor, nn

from rlrun.learning.learner import Learner
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
    minibatches: int, *, seed: int = 0, max_grad_norm: float = 0.5, optimizer: Optimizer = ADAM
) -> Learner:
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    for layer in (network[0], network[2]):
        nn.init.orthogonal_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    return Learner(
        network,
        squared_error,
        minibatches=minibatches,
        optimizer=replace(optimizer, max_grad_norm=max_grad_norm),
    )


def watch_compiled(learner: Learner) -> list[list[tuple[int, ...]]]:
    """Give a learner a compiler that changes nothing; the shapes of its calls, from now on."""
    calls = []

    def compiled(function):
        def watched(theta, state, learning_rate, batches):
            calls.append([tuple(column.shape) for column in batches])
            return function(theta, state, learning_rate, batches)

        return watched

    learner.compile(compiled, Example(torch.ones(5, 3), torch.ones(5, 2)))
    return calls


RATE = torch.tensor(1e-2)


# ---------------------------------------------------------------------- one step, and several


@pytest.mark.parametrize(
    ("max_grad_norm", "clipped"), [(0.01, {True}), (10.0, {True, False}), (1e6, {False})]
)
@every_optimizer
def test_steps_equal_autograd_and_torchs_optimiser(max_grad_norm, clipped, optimizer):
    learner = regression(1, max_grad_norm=max_grad_norm, optimizer=optimizer)
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
    learner, batches = regression(4), examples(4)
    theta, state = learner.parameters.vector.clone(), learner.state
    new_theta, new_state, _ = learner._take_steps(theta, state, RATE, batches)
    assert torch.equal(theta, learner.parameters.vector)
    assert not state.m.any()
    assert state.t == 0
    assert not torch.equal(new_theta, theta)
    assert new_state.t == 4


def test_several_steps_a_call_equal_as_many_calls():
    together, one_by_one, batches = regression(8), regression(1), examples(8)
    assert (together.updates_per_call, one_by_one.updates_per_call) == (8, 1)
    metrics, single = (learner.fit(batches, RATE) for learner in (together, one_by_one))
    assert torch.equal(together.parameters.vector, one_by_one.parameters.vector)
    for ours, theirs in zip(together.state, one_by_one.state, strict=True):
        assert torch.equal(ours, theirs)
    for name, values in metrics.items():
        assert values.shape == (8,)
        assert torch.equal(values, single[name])


def test_metrics_are_those_of_each_minibatch_before_its_step():
    learner, batches = regression(6), examples(6)
    expected = []
    for x, y in zip(*batches, strict=True):
        error = learner.network(x) - y
        expected.append((error.square().mean(), error.abs().max()))
        learner.fit(Example(x[None], y[None]), RATE)
    metrics = regression(6).fit(batches, RATE)
    for name, column in zip(("loss", "largest"), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(metrics[name], torch.stack(column), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("minibatches", "a_call"),
    # 18 are two calls of 9, 34 are 17 calls of 2; no number from 2 to 16 divides 17.
    [(1, 1), (4, 4), (11, 11), (16, 16), (17, 1), (18, 9), (32, 16), (34, 2), (320, 16)],
)
def test_minibatches_are_divided_evenly_among_the_calls(minibatches, a_call):
    learner = regression(minibatches)
    assert learner.updates_per_call == a_call
    calls = watch_compiled(learner)
    learner.fit(examples(minibatches), RATE)
    assert calls == [[(a_call, 5, 3), (a_call, 5, 2)]] * (minibatches // a_call)


def test_the_network_moves_with_the_parameters():
    learner = regression(4)
    learner.fit(examples(4), RATE)
    pieces = [p.flatten() for p in learner.network.parameters()]
    assert torch.equal(torch.cat(pieces), learner.parameters.vector)
    assert not torch.equal(learner.parameters.vector, regression(4).parameters.vector)


def test_it_learns():
    learner, batches = regression(1), examples(1)
    losses = [learner.fit(batches, RATE)["loss"].item() for _ in range(300)]
    assert losses[-1] < 0.05 * losses[0]


# ---------------------------------------------------------------------- warming up and saving


def test_nothing_is_learned_from_warming_up():
    learner = regression(6)
    learner.fit(examples(6), RATE)
    before, state = learner.parameters.vector.clone(), copy.deepcopy(learner.state)
    learner.warm_up()  # without a compiler there is nothing to do
    calls = watch_compiled(learner)
    learner.warm_up()
    # The shapes of the calls to come: what is compiled for them needs no second time.
    assert calls == [[(6, 5, 3), (6, 5, 2)]]
    assert torch.equal(learner.parameters.vector, before)
    for now, then in zip(learner.state, state, strict=True):
        assert torch.equal(now, then)


def test_a_compiler_gets_the_steps_and_can_be_done_without():
    learner, given = regression(4), []

    def compiled(function):
        given.append(function)
        return function

    learner.compile(compiled, Example(torch.ones(5, 3), torch.ones(5, 2)))
    assert given == [learner._take_steps]
    assert learner.is_compiled

    learner = regression(4)
    calls = watch_compiled(learner)
    learner.fit(examples(4), RATE)
    assert len(calls) == 1
    learner.run_eagerly()
    assert not learner.is_compiled
    learner.fit(examples(4), RATE)
    learner.warm_up()
    assert len(calls) == 1


# Four minibatches of five rows a call are compiled; what does not fit takes its steps all the same.
@pytest.mark.parametrize(
    ("minibatches", "rows", "compiled_calls"),
    [(4, 5, 1), (8, 5, 2), (11, 5, 2), (3, 5, 0), (4, 6, 0), (4, 2, 0)],
)
def test_other_shapes_are_run_eagerly(minibatches, rows, compiled_calls):
    learner, plain = regression(4), regression(4)
    calls, batches = watch_compiled(learner), examples(minibatches, rows=rows)
    metrics = learner.fit(batches, RATE)
    assert calls == [[(4, 5, 3), (4, 5, 2)]] * compiled_calls
    assert learner.state.t == minibatches
    assert metrics["loss"].shape == (minibatches,)
    for x, y in zip(*batches, strict=True):
        plain.fit(Example(x[None], y[None]), RATE)
    assert torch.equal(learner.parameters.vector, plain.parameters.vector)


@every_optimizer
def test_a_loaded_learner_goes_on_alike(optimizer):
    learner, loaded = (regression(4, seed=seed, optimizer=optimizer) for seed in (0, 5))
    learner.fit(examples(4), RATE)
    loaded.network.load_state_dict(learner.network.state_dict())
    loaded.load_state_dict(copy.deepcopy(learner.state_dict()))
    for each in (learner, loaded):
        each.fit(examples(4, seed=1), RATE)
    assert torch.equal(learner.parameters.vector, loaded.parameters.vector)
    for ours, theirs in zip(learner.state, loaded.state, strict=True):
        assert torch.equal(ours, theirs)
