"""How the critics of an agent are fitted."""

import copy

import pytest
import torch
from gymnasium import spaces
from tiny import algorithm_of, bare_rollout, counting, problem_of, small_model, torchs_step

from rlrun.data.minibatches import minibatches
from rlrun.learning.critics import CriticBatch, CriticFit, Critics, critic_batches
from rlrun.models.networks import Networks

ACTION_SPACES = {"discrete": spaces.Discrete(3), "box": spaces.Box(-1, 1, (2,))}
both = pytest.mark.parametrize("kind", ACTION_SPACES)
RATE = 1e-2
ADAM = algorithm_of("ppo", learning_rate=RATE, anneal_learning_rate=False).optimizer
D = 3  # numbers that Counting observes


def critics_of(
    which: set[str], kind: str = "discrete", seed: int = 0, optimizer=ADAM, **settings
) -> tuple[Networks, Critics]:
    """A policy with these critics, and what fits them."""
    problem = problem_of(counting(1, ACTION_SPACES[kind])[0])
    model, generator = small_model(), torch.Generator().manual_seed(seed)
    networks = Networks(
        model.policy(problem, generator),
        model.critic(problem, generator) if "value" in which else None,
        model.action_critic(problem, generator) if "q" in which else None,
    ).requires_grad_(False)
    return networks, Critics(networks, optimizer=optimizer, **settings)


def batches_of(kind: str) -> CriticBatch:
    """Three minibatches of five rows."""
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(3, 5, D, generator=generator)
    value, target = (torch.randn(3, 5, generator=generator) for _ in range(2))
    action = (
        torch.randint(3, (3, 5), generator=generator)
        if kind == "discrete"
        else torch.randn(3, 5, 2, generator=generator)
    )
    return CriticBatch(obs, action, value, target)


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
    networks, critics = critics_of(columns)
    before = copy.deepcopy(networks.state_dict())
    metrics = critics.fit(batches_of("discrete"), progress=0.5)
    assert list(critics.learners) == names
    assert list(metrics) == [f"loss/{name}" for name in names]
    assert all(values.shape == (3,) for values in metrics.values())
    assert [int(learner.state.optimizer.t) for learner in critics.learners.values()] == [3] * len(
        names
    )
    # The policy is no business of theirs.
    for name, weight in networks.state_dict().items():
        assert torch.equal(weight, before[name]) is name.startswith("policy"), name


@both
def test_a_step_of_each_equals_autograd_and_torchs_adam(kind):
    networks, critics = critics_of({"value", "q"}, kind)
    batches = batches_of(kind)
    first = batches._make(column[0] for column in batches)

    def value_loss(critic):  # ½ mean (V(s) − target)²
        return 0.5 * (critic(first.obs) - first.target).square().mean()

    def action_value_loss(critic):  # ½ mean (Q(s, a) − target)²
        return 0.5 * (critic(first.obs, first.action) - first.target).square().mean()

    losses = {"value": value_loss, "action_value": action_value_loss}
    expected = {}
    for name, learner in critics.learners.items():
        expected[name], _ = torchs_step(learner, losses[name], RATE)
    before = {
        "loss/value": value_loss(networks.critic),
        "loss/action_value": action_value_loss(networks.action_critic),
    }
    metrics = critics.fit(batches._make(column[:1] for column in batches), progress=0.5)
    for name, learner in critics.learners.items():
        torch.testing.assert_close(learner.parameters.vector, expected[name], atol=2e-6, rtol=1e-5)
    for name, loss in before.items():
        torch.testing.assert_close(metrics[name][0], loss)


def test_loaded_critics_go_on_alike():
    (networks, critics), (other, loaded) = (
        critics_of({"value", "q"}, seed=seed) for seed in (0, 1)
    )
    batches = batches_of("discrete")
    critics.fit(batches, progress=0.5)
    other.load_state_dict(networks.state_dict())
    loaded.load_state_dict(copy.deepcopy(critics.state_dict()))
    for each in (critics, loaded):
        each.fit(batches, torch.tensor(RATE))
    for name, weight in networks.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight), name


def test_a_clipped_value_stays_near_the_one_that_was_rewarded():
    for clip in (0.1, 1e6):
        networks, critics = critics_of({"value"}, value_clip=clip)
        batch = CriticBatch(*(column[0] for column in batches_of("discrete")))
        value = networks.critic(batch.obs)
        bounded = batch.value + (value - batch.value).clamp(-clip, clip)
        expected = 0.5 * torch.maximum((value - batch.target) ** 2, (bounded - batch.target) ** 2)
        loss, _ = critics.value_loss(networks.critic, batch)
        torch.testing.assert_close(loss, expected.mean())


# ---------------------------------------------------------------------- passes of their own


def whole_rollout():
    """Twelve rows that count and three that do not."""
    generator = torch.Generator().manual_seed(2)
    obs, reward = torch.randn(5, 3, D, generator=generator), torch.zeros(5, 3)
    mask = torch.arange(5)[:, None] < torch.tensor([5, 3, 4])
    return bare_rollout(reward, obs=obs, action=torch.zeros(5, 3, dtype=torch.int64), mask=mask)


@pytest.mark.parametrize(("progress", "anneal"), [(0.0, True), (0.75, True), (0.75, False)])
def test_passes_take_their_steps_at_the_rate_of_the_schedule(progress, anneal):
    optimizer = algorithm_of("ppo", anneal_learning_rate=anneal, learning_rate=1e-2).optimizer
    fit = CriticFit(epochs=2, minibatch_size=5, optimizer=optimizer)
    (networks, critics), (by_hand, theirs) = (
        critics_of({"value"}, optimizer=optimizer) for _ in range(2)
    )
    rollout, target = whole_rollout(), torch.ones(5, 3)
    metrics = critics.fit_epochs(
        rollout,
        target,
        settings=fit,
        progress=progress,
        generator=torch.Generator().manual_seed(3),
    )
    assert metrics["updates"] == 4  # 12 rows are two minibatches of five, in two passes
    assert metrics["loss/value"].shape == ()
    generator = torch.Generator().manual_seed(3)
    rate = torch.tensor(1e-2 * (1 - progress) if anneal else 1e-2)
    for _ in range(2):
        rows = minibatches(rollout.mask, size=5, generator=generator)
        theirs.learners["value"].fit(critic_batches(rollout, target, rows), rate)
    for name, weight in by_hand.state_dict().items():
        assert torch.equal(networks.state_dict()[name], weight), name


def test_without_critics_there_is_nothing_to_fit():
    _, critics = critics_of(set())
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    fit = CriticFit(epochs=2, minibatch_size=5, optimizer=ADAM)
    metrics = critics.fit_epochs(
        whole_rollout(), torch.ones(5, 3), settings=fit, progress=0.0, generator=generator
    )
    assert metrics == {"updates": torch.tensor(0)}
    assert torch.equal(generator.get_state(), before)
    assert not critics.functions


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
