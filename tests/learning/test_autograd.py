"""The learner of large models: torch's optimiser, and micro-batches that change nothing."""

import copy
import math
from typing import NamedTuple

import pytest
import torch
from languages import generator, policy_of, random_sequences, task_of
from running import differences
from torch import Tensor, nn

from rlrun.data.sequences import Sequences
from rlrun.learning.autograd import AutogradLearner
from rlrun.learning.learner import GradientLearner
from rlrun.learning.losses.surrogates import bounded, clipped_surrogate, of_each_step, standardize
from rlrun.learning.optimizers import Adam, RMSprop

ADAM = Adam(learning_rate=1e-2, anneal_learning_rate=True, epsilon=1e-5, max_grad_norm=0.5)
OPTIMIZERS = {
    "adam": ADAM,
    "adamw": Adam(
        learning_rate=1e-2,
        anneal_learning_rate=False,
        epsilon=1e-8,
        max_grad_norm=math.inf,
        weight_decay=0.1,
    ),
    "rmsprop": RMSprop(
        learning_rate=1e-2, anneal_learning_rate=False, alpha=0.9, epsilon=1e-5, max_grad_norm=0.5
    ),
}


class Pairs(NamedTuple):
    x: Tensor
    y: Tensor


def squared(network, batch):
    loss = (network(batch.x) - batch.y).square().mean()
    return loss, {"loss": loss}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_that_of_the_pure_learner(name):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    learners = [
        kind(copy.deepcopy(network), squared, OPTIMIZERS[name])
        for kind in (AutogradLearner, GradientLearner)
    ]
    batches = Pairs(torch.randn(4, 5, 3), torch.randn(4, 5, 2))
    metrics = [learner.fit(batches, learner.rate(0.25)) for learner in learners]
    assert metrics[0]["loss"].shape == (4,)
    assert torch.allclose(metrics[0]["loss"], metrics[1]["loss"], atol=1e-6)
    for one, other in zip(*(each.network.parameters() for each in learners), strict=True):
        # RMSprop of torch adds epsilon as this one does.
        assert torch.allclose(one, other, atol=1e-5)


def test_it_goes_on_from_a_saved_state_to_the_same_bits():
    torch.manual_seed(0)
    learner = AutogradLearner(nn.Linear(3, 2), squared, ADAM)
    batches = Pairs(torch.randn(4, 5, 3), torch.randn(4, 5, 2))
    learner.fit(batches, learner.rate(0.0))
    weights, state = copy.deepcopy(learner.network.state_dict()), learner.state_dict()
    saved = copy.deepcopy(state)
    learner.fit(batches, learner.rate(0.1))
    assert differences(state, saved) == []  # a snapshot
    again = AutogradLearner(nn.Linear(3, 2), squared, ADAM)
    again.network.load_state_dict(weights)
    again.load_state_dict(state)
    again.fit(batches, again.rate(0.1))
    assert differences(again.state_dict(), learner.state_dict()) == []
    assert differences(dict(again.network.state_dict()), dict(learner.network.state_dict())) == []


class Steps(NamedTuple):
    obs: Sequences
    action: Tensor
    logp: Tensor
    advantage: Tensor


def of_rows(policy, batch):
    """PPO's, with advantages that are brought to mean 0 over the minibatch."""
    distribution = policy(batch.obs)
    log_ratio = distribution.log_prob(batch.action) - batch.logp
    gain = clipped_surrogate(log_ratio, standardize(batch.advantage), 0.2)
    return -(gain + 0.1 * distribution.entropy()).mean(), {}


def of_episodes(policy, batch):
    """GSPO's: the ratio of a whole response."""
    log_ratio = policy(batch.obs).log_prob(batch.action) - batch.logp
    episode = bounded(log_ratio.mean(0))
    return -clipped_surrogate(of_each_step(episode, log_ratio), batch.advantage, 0.2).mean(), {}


@pytest.mark.parametrize("loss", [of_rows, of_episodes])
def test_the_gradient_does_not_depend_on_the_number_of_micro_batches(loss):
    task = task_of("add")
    obs = random_sequences(task, 6, 4)
    if loss is of_rows:
        obs = obs.rows(torch.tensor([0, 3, 4, 9, 10, 14, 17, 23]))
    shape = (4, 6) if obs.steps is None else (8,)
    batch = Steps(
        obs,
        torch.randint(task.language.size, shape, generator=generator(3)),
        -2 - torch.rand(shape, generator=generator(4)),
        torch.randn(shape, generator=generator(5)),
    )

    def gradient(micro_batch):
        policy = policy_of(task, micro_batch=micro_batch).requires_grad_(True)
        loss(policy, batch)[0].backward()
        return torch.cat([each.grad.flatten() for each in policy.parameters()])

    whole = gradient(None)
    assert whole.norm() > 0.01
    for micro_batch in (1, 2, 4, 6, 100):
        assert torch.allclose(gradient(micro_batch), whole, atol=1e-6), micro_batch
