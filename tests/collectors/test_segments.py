"""Segments: every row is a transition, and the next rollout goes on where this one stops."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from running import differences
from tiny import Corridor, Counting, PointMass, context_of, control, counting, set_up

from rlrun.collectors.segments import Segments
from rlrun.data.rollout import RolloutShape

ENVS, HORIZON = 3, 11
CHOICE = spaces.Discrete(2)
BOX = spaces.Box(-0.5, 0.25, (2,), np.float32)


def segments(action_space: spaces.Space = CHOICE, **changes):
    """An actor, its collector and the environments, before the first rollout."""
    env, envs = counting(ENVS, action_space)
    settings = {"horizon": HORIZON, "minibatch_size": ENVS * HORIZON, **changes}
    algorithm, collector = set_up(env, **settings)
    return algorithm.agent.actor, collector, envs


def assert_equal(transitions, expected) -> None:
    """The same columns, bit for bit."""
    for name, column in vars(expected).items():
        if isinstance(column, torch.Tensor):
            assert torch.equal(vars(transitions)[name], column), name
    assert transitions.steps == expected.steps


def test_transitions_are_ordinary_tensors():
    # Those that are made in inference mode cannot be used with autograd later.
    algorithm, collector = set_up(control(Corridor, 4))
    for name, column in vars(collector.collect(algorithm.agent.actor)).items():
        if isinstance(column, torch.Tensor):
            assert not column.is_inference(), name
            assert not column.requires_grad, name


def test_the_shape_is_said_before_there_is_a_rollout():
    env, _ = counting(ENVS, CHOICE)
    shape = context_of(env, Segments(horizon=HORIZON), time_limit=None).shape
    expected = RolloutShape(num_envs=ENVS, longest=HORIZON, whole_episodes=False, group_size=1)
    assert shape == expected
    actor, collector, _ = segments()
    assert collector.collect(actor).mask.shape == (shape.longest, shape.num_envs)


def test_every_row_is_one_transition_of_one_episode():
    actor, collector, _ = segments()
    place = [(0, 0)] * ENVS  # (episode, step) of every environment; goes on over three rollouts
    for _ in range(3):
        transitions = collector.collect(actor)
        for t in range(HORIZON):
            for n in range(ENVS):
                episode, step = place[n]
                over = step + 1 == Counting.length(n, episode)
                assert transitions.obs[t, n].tolist() == [n, episode, step]
                # The true successor: of the same episode, at its end too.
                assert transitions.next_obs[t, n].tolist() == [n, episode, step + 1]
                assert transitions.reward[t, n] == 100 * n + 10 * episode + step
                terminates = Counting.terminates(n, episode)
                assert transitions.terminated[t, n] == (over and terminates)
                assert transitions.truncated[t, n] == (over and not terminates)
                # After an end, the next row is the first of the next episode.
                place[n] = (episode + 1, 0) if over else (episode, step + 1)
        assert transitions.terminated.any()
        assert transitions.truncated.any()
        done = transitions.terminated | transitions.truncated
        assert torch.equal(transitions.done, done)
        assert transitions.mask.all()
        assert not transitions.whole_episodes
        assert transitions.group is None
        assert transitions.steps == HORIZON * ENVS


def test_the_moments_of_the_observations_are_returned():
    actor, collector, _ = segments()
    for _ in range(2):
        transitions = collector.collect(actor)
        rows = transitions.obs.flatten(0, 1).double()
        assert transitions.obs_moments.count == HORIZON * ENVS  # of this rollout alone
        torch.testing.assert_close(transitions.obs_moments.mean, rows.mean(0))
        torch.testing.assert_close(transitions.obs_moments.variance, rows.var(0, correction=0))


def test_discrete_actions_are_those_that_the_environments_got():
    actor, collector, envs = segments()
    transitions = collector.collect(actor)
    assert transitions.action.shape == (HORIZON, ENVS)
    assert transitions.action.dtype == torch.int64
    assert set(transitions.action.unique().tolist()) == {0, 1}
    for n, env in enumerate(envs):
        assert transitions.action[:, n].tolist() == [action.item() for action in env.received]


def test_actions_are_stored_unclipped_and_clipped_for_the_environment():
    actor, collector, envs = segments(BOX)
    transitions = collector.collect(actor)
    assert transitions.action.shape == (HORIZON, ENVS, 2)
    outside = (transitions.action < -0.5) | (transitions.action > 0.25)
    assert outside.any()  # σ = 1: more than half of them
    assert not outside.all()
    for n, env in enumerate(envs):
        expected = np.clip(transitions.action[:, n].numpy(), -0.5, 0.25)
        assert np.array_equal(np.stack(env.received), expected)


class Recorded:
    """An actor that acts as another one, and keeps what it said."""

    def __init__(self, actor):
        self.actor, self.version, self.generator = actor, 7, actor.generator
        self.said = []

    def act(self, obs):
        action, behaviour = self.actor.act(obs)
        self.said.append((obs.clone(), action.clone(), behaviour.log_prob(action)))
        return action, behaviour


@pytest.mark.parametrize("space", [CHOICE, BOX])
def test_a_row_has_what_the_actor_saw_did_and_said_of_it(space):
    actor, collector, _ = segments(space)
    recorded = Recorded(actor)
    transitions = collector.collect(recorded)
    for t, (obs, action, logp) in enumerate(recorded.said):
        assert torch.equal(transitions.obs[t], obs)
        assert torch.equal(transitions.action[t], action)
        assert torch.equal(transitions.logp[t], logp)
    assert transitions.logp.shape == transitions.policy_version.shape == (HORIZON, ENVS)
    assert transitions.policy_version.dtype == torch.int64
    assert (transitions.policy_version == 7).all()


# ---------------------------------------------------------------------- state


def middle():
    """A collector whose call stops in the middle of an episode, which lasts 10 steps."""
    algorithm, collector = set_up(control(PointMass, 2), horizon=7, minibatch_size=7)
    return algorithm.agent.actor, collector


def test_a_loaded_collector_goes_on_in_mid_episode():
    (actor, collector), (again, loaded) = middle(), middle()
    collector.collect(actor)
    loaded.load_state_dict(copy.deepcopy(collector.state_dict()))
    again.generator.set_state(actor.generator.get_state())
    for _ in range(2):
        assert_equal(loaded.collect(again), collector.collect(actor))


def test_a_state_is_a_snapshot():
    actor, collector = middle()
    collector.collect(actor)
    state = collector.state_dict()
    before = copy.deepcopy(state)
    collector.collect(actor)
    assert differences(state, before) == []
    assert differences(collector.state_dict(), before)
