"""Who acts: at raw observations, from its own stream, and with the log-probability recorded."""

import copy

import pytest
import torch
from gymnasium import spaces
from running import differences
from tiny import counting, problem_of, small_model

from rlrun.data.normalize import ObservationNormalizer, RunningMoments
from rlrun.models.actor import Actor

ACTION_SPACES = {"discrete": spaces.Discrete(3), "box": spaces.Box(-1, 1, (2,))}
both = pytest.mark.parametrize("kind", ACTION_SPACES)
D = 3  # numbers that Counting observes


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def make(kind: str, seed: int = 0):
    """A policy far from the cautious one of a new run, a normaliser that has learned, an actor."""
    problem = problem_of(counting(1, ACTION_SPACES[kind])[0])
    policy = small_model().policy(problem, generator(seed)).requires_grad_(False)
    for weight in policy.parameters():
        weight.add_(0.5 * torch.randn(weight.shape, generator=generator(seed)))
    normalizer = ObservationNormalizer(D, clip=10.0, enabled=True)
    normalizer.learn(RunningMoments.of(3 * randn(50, D, seed=9) + 2))
    return policy, normalizer, Actor(policy, normalizer, generator(7), torch.device("cpu"))


@both
def test_actions_are_draws_of_the_policy_from_its_stream(kind):
    (_, _, actor), (_, _, again) = make(kind), make(kind)
    obs = randn(50, D)
    torch.manual_seed(0)
    action, behaviour = actor.act(obs)
    torch.manual_seed(1)
    same, _ = again.act(obs)
    assert torch.equal(action, same)
    assert not torch.equal(action, actor.act(obs)[0])
    assert behaviour.log_prob(action).shape == (50,)


@both
def test_it_sees_raw_observations_through_its_normaliser(kind):
    policy, normalizer, actor = make(kind)
    obs = randn(50, D)
    seen = policy(normalizer(obs))
    assert torch.equal(actor.act_greedily(obs), seen.mode())
    action, behaviour = actor.act(obs)
    logp = behaviour.log_prob(action)
    assert torch.equal(action, seen.sample(generator(7)))
    assert torch.equal(logp, seen.log_prob(action))
    # Which is not what it would be without one.
    assert not torch.allclose(logp, policy(obs).log_prob(action))


@both
def test_it_acts_with_the_learners_weights_and_counts_what_is_published(kind):
    policy, normalizer, actor = make(kind)
    obs = randn(50, D)
    assert actor.version == 0
    for version in (1, 2):
        for weight in policy.parameters():
            weight.add_(0.5 * torch.randn(weight.shape, generator=generator(version)))
        actor.publish()
        assert actor.version == version
        assert torch.equal(actor.act_greedily(obs), policy(normalizer(obs)).mode())
    actor.refresh()  # the same weights, loaded, are no new version
    assert actor.version == 2


def test_a_loaded_actor_counts_on_and_its_state_is_a_snapshot():
    _, _, actor = make("box")
    actor.publish()
    state = actor.state_dict()
    before = copy.deepcopy(state)
    actor.publish()
    assert differences(state, before) == []
    _, _, other = make("box")
    other.load_state_dict(state)
    assert other.version == 1
    other.publish()
    assert other.version == actor.version == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no second device")
@both
def test_for_a_learner_elsewhere_it_acts_with_what_was_published(kind):
    policy, normalizer, _ = make(kind)
    policy.to("cuda")
    actor, obs = Actor(policy, normalizer, generator(7), torch.device("cpu")), randn(50, D)
    before = actor.act_greedily(obs)
    for weight in policy.parameters():
        weight.neg_()
    assert torch.equal(actor.act_greedily(obs), before)
    actor.publish()
    expected = policy(normalizer(obs).to("cuda")).mode().cpu()
    torch.testing.assert_close(actor.act_greedily(obs), expected)
