"""How the critics of an agent are fitted."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import CPU, bare_rollout, torchs_step

from rlrun.data.minibatches import minibatches
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.learning.critics import CriticBatch, Critics, critic_batches
from rlrun.learning.optimizers import Adam
from rlrun.models.agent import Agent

ACTION_SPACES = {"discrete": spaces.Discrete(3), "box": spaces.Box(-1, 1, (2,), np.float32)}
both = pytest.mark.parametrize("kind", ACTION_SPACES)
RATE = torch.tensor(1e-2)


def critics_of(columns: set[str], kind: str = "discrete", seed: int = 0) -> tuple[Agent, Critics]:
    """An agent with the critics that these columns need, and what fits them."""
    problem = Problem(
        env_id="Any-v0",
        obs_size=4,
        action_space=ACTION_SPACES[kind],
        time_limit=None,
        group_size=None,
    )
    agent = Agent(
        problem,
        columns=columns,
        hidden_sizes=[8],
        log_std=0.0,
        hardware=CPU,
        streams=Streams.from_seed(seed),
    )
    optimizer = Adam(epsilon=1e-5)
    return agent, Critics(agent, minibatches=3, optimizer=optimizer, max_grad_norm=0.5)


def batches_of(agent: Agent, kind: str) -> CriticBatch:
    """Three minibatches of five rows."""
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(3, 5, 4, generator=generator)
    value, target = (torch.randn(3, 5, generator=generator) for _ in range(2))
    return CriticBatch(obs, agent.act(obs), value, target)


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (set(), []),
        ({"value"}, ["value"]),
        ({"q"}, ["action_value"]),
        ({"value", "q"}, ["value", "action_value"]),
    ],
)
def test_each_critic_that_there_is_takes_each_minibatch(columns, names):
    agent, critics = critics_of(columns)
    before = copy.deepcopy(agent.weights())
    metrics = critics.fit(batches_of(agent, "discrete"), RATE)
    assert list(critics.learners) == names
    assert list(metrics) == [f"loss/{name}" for name in names]
    assert all(values.shape == (3,) for values in metrics.values())
    assert [int(learner.state.t) for learner in critics.learners.values()] == [3] * len(names)
    # The policy is no business of theirs.
    for name, weight in agent.weights().items():
        assert torch.equal(weight, before[name]) is name.startswith("policy"), name


@both
def test_a_step_of_each_equals_autograd_and_torchs_adam(kind):
    agent, critics = critics_of({"value", "q"}, kind)
    batches = batches_of(agent, kind)
    first = batches._make(column[0] for column in batches)

    def value_loss(critic):  # ½ mean (V(s) − target)²
        return 0.5 * (critic(first.obs) - first.target).square().mean()

    def action_value_loss(critic):  # ½ mean (Q(s, a) − target)²
        return 0.5 * (critic(first.obs, first.action) - first.target).square().mean()

    losses = {"value": value_loss, "action_value": action_value_loss}
    expected = {}
    for name, learner in critics.learners.items():
        expected[name], _ = torchs_step(learner, losses[name], RATE.item())
    before = {
        "loss/value": value_loss(agent.critic),
        "loss/action_value": action_value_loss(agent.action_critic),
    }
    metrics = critics.fit(batches._make(column[:1] for column in batches), RATE)
    for name, learner in critics.learners.items():
        torch.testing.assert_close(learner.parameters.vector, expected[name], atol=2e-6, rtol=1e-5)
    for name, loss in before.items():
        torch.testing.assert_close(metrics[name][0], loss)


def test_loaded_critics_go_on_alike():
    (agent, critics), (other, loaded) = (critics_of({"value", "q"}, seed=seed) for seed in (0, 1))
    batches = batches_of(agent, "discrete")
    critics.fit(batches, RATE)
    other.load_weights(copy.deepcopy(agent.weights()))
    loaded.load_state_dict(copy.deepcopy(critics.state_dict()))
    for each in (critics, loaded):
        each.fit(batches, RATE)
    for name, weight in agent.weights().items():
        assert torch.equal(other.weights()[name], weight), name


def test_minibatches_are_rows_of_the_rollout():
    generator = torch.Generator().manual_seed(0)
    place = 10.0 * torch.arange(4)[:, None] + torch.arange(3)
    rollout = bare_rollout(place, obs=place[..., None], action=place, value=place + 0.5)
    rows = minibatches(rollout.mask, size=4, generator=generator)
    batches = critic_batches(rollout, place + 0.25, rows)
    expected = place.flatten()[rows]
    assert torch.equal(batches.obs, expected[..., None])
    assert torch.equal(batches.action, expected)
    assert torch.equal(batches.value, expected + 0.5)
    assert torch.equal(batches.target, expected + 0.25)
    without = critic_batches(bare_rollout(place, obs=rollout.obs, action=place), place, rows)
    assert without.value.shape == rows.shape  # an action critic's batch has the column, too
