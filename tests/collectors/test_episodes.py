"""Whole episodes: each counts from its first step to its last, and groups begin from one start."""

import copy

import gymnasium as gym
import pytest
import torch
from gymnasium import spaces
from running import differences
from tiny import Corridor, Counting, PointMass, context_of, control, counting, part_of, set_up

from rlrun.collectors.episodes import Episodes
from rlrun.data.rollout import RolloutShape
from rlrun.errors import UserError

CHOICE = spaces.Discrete(2)


def episodes(make_env=Corridor, *, num_envs: int = 4, group_size: int = 1, **changes):
    """An actor and the collector of its episodes, before the first of them."""
    env = control(make_env, num_envs)
    algorithm, collector = set_up(env, group_size=group_size, minibatch_size=2, **changes)
    return algorithm.agent.actor, collector


def assert_equal(transitions, expected) -> None:
    """The same columns, bit for bit."""
    for name, column in vars(expected).items():
        if isinstance(column, torch.Tensor):
            assert torch.equal(vars(transitions)[name], column), name
    assert transitions.steps == expected.steps


# ---------------------------------------------------------------------- what fits


def test_the_shape_is_said_before_there_is_a_rollout():
    env = control(PointMass, 6)
    shape = context_of(env, Episodes(group_size=3), time_limit=10).shape
    expected = RolloutShape(num_envs=6, longest=10, whole_episodes=True, group_size=3)
    assert shape == expected


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"num_envs=6 is not a multiple of collector\.group_size=4"):
        context_of(control(PointMass, 6), Episodes(group_size=4))
    with pytest.raises(UserError, match=r"collector\.group_size must be at least 1, got 0"):
        part_of("collector", "episodes", group_size=0)


def test_episodes_that_may_go_on_for_ever_are_refused():
    with pytest.raises(UserError, match=r"Tiny-v0 has no time limit.*env\.max_episode_steps=1000"):
        context_of(control(PointMass, 2), Episodes(group_size=1), time_limit=None)


def test_an_episode_that_outlasts_its_limit_is_an_error():
    actor, collector = episodes(PointMass, time_limit=9)  # a step before it is cut
    message = r"^the episode of environment 0 \(seed \d+\) goes on after 9 steps, the time limit"
    with pytest.raises(UserError, match=message):
        collector.collect(actor)


# ---------------------------------------------------------------------- what is returned


@pytest.mark.parametrize("group_size", [1, 2])
def test_transitions_are_ordinary_tensors(group_size):
    # Those that are made in inference mode cannot be used with autograd later.
    actor, collector = episodes(group_size=group_size)
    for name, column in vars(collector.collect(actor)).items():
        if isinstance(column, torch.Tensor):
            assert not column.is_inference(), name
            assert not column.requires_grad, name


def test_every_column_is_one_episode_from_its_first_step_to_its_last():
    env, envs = counting(4, CHOICE)
    algorithm, collector = set_up(env, group_size=1)
    for _ in range(3):
        transitions = collector.collect(algorithm.agent.actor)
        assert transitions.whole_episodes
        assert transitions.group is None
        # As long as the longest of them, and no longer.
        lengths = [Counting.length(n, int(transitions.obs[0, n, 1])) for n in range(4)]
        assert transitions.mask.shape == (max(lengths), 4)
        assert transitions.mask.sum(0).tolist() == lengths == [1, 2, 3, 4]
        assert transitions.steps == sum(lengths)
        for n, length in enumerate(lengths):
            episode = int(transitions.obs[0, n, 1])
            steps = torch.arange(length)
            assert transitions.mask[:length, n].all()
            assert torch.equal(transitions.obs[:length, n, 2], steps.float())
            assert torch.equal(transitions.next_obs[:length, n, 2], 1.0 + steps)
            for obs in (transitions.obs, transitions.next_obs):
                assert (obs[:length, n, :2] == torch.tensor([n, episode])).all()
            expected = 100.0 * n + 10 * episode + steps
            assert torch.equal(transitions.reward[:length, n], expected)
            # The last step of it is the one that ends it, in one of the two ways.
            assert transitions.done[:, n].nonzero().tolist() == [[length - 1]]
            assert transitions.terminated[length - 1, n] == Counting.terminates(n, episode)
            # The environments got the actions of the rows that count, and no others.
            received = [action.item() for action in envs[n].received]
            assert transitions.action[:length, n].tolist() == received
            envs[n].received.clear()
        assert transitions.terminated.any()
        assert transitions.truncated.any()


def test_rows_behind_an_end_are_padding():
    actor, collector = episodes(num_envs=8)
    transitions = collector.collect(actor)
    padding = ~transitions.mask
    assert padding.any()
    assert not transitions.reward[padding].any()
    assert not transitions.done[padding].any()
    # Finite all the same: a product with zero is to be zero.
    for column in (transitions.obs, transitions.next_obs, transitions.logp):
        assert column.isfinite().all()


def test_steps_are_those_of_the_rows_that_count():
    actor, collector = episodes()
    for _ in range(2):
        transitions = collector.collect(actor)
        assert transitions.steps == transitions.mask.sum() < 4 * Corridor.limit


def test_the_moments_are_those_of_the_rows_that_count():
    actor, collector = episodes(num_envs=8)
    transitions = collector.collect(actor)
    rows = transitions.obs[transitions.mask].double()
    assert not transitions.mask.all()
    assert transitions.obs_moments.count == len(rows)
    torch.testing.assert_close(transitions.obs_moments.mean, rows.mean(0))
    torch.testing.assert_close(transitions.obs_moments.variance, rows.var(0, correction=0))


def test_log_probabilities_and_versions_are_those_of_the_actor():
    actor, collector = episodes(PointMass)
    actor.version = 5
    transitions = collector.collect(actor)
    distribution = actor.distribution(transitions.obs)
    torch.testing.assert_close(
        transitions.logp, distribution.log_prob(transitions.action), atol=1e-6, rtol=1e-6
    )
    assert (transitions.policy_version == 5).all()
    assert transitions.policy_version.shape == transitions.mask.shape


# ---------------------------------------------------------------------- groups


def test_a_group_has_one_start_and_each_of_its_episodes_its_own_actions():
    actor, collector = episodes(PointMass, num_envs=6, group_size=3)
    starts = set()
    for _ in range(3):
        transitions = collector.collect(actor)
        assert torch.equal(transitions.group, torch.tensor([0, 0, 0, 1, 1, 1]).expand(10, 6))
        first = transitions.obs[0, :, 0].tolist()
        assert first[0] == first[1] == first[2]
        assert first[3] == first[4] == first[5]
        starts |= set(first)
        # Every action is a draw of its own, and so is every path.
        assert len(set(transitions.action.flatten().tolist())) == 60
        assert len(set(transitions.next_obs[0].flatten().tolist())) == 6
    assert len(starts) == 6  # two groups, three times


class Greedy:
    """An actor that does what another one thinks best."""

    def __init__(self, actor):
        self.actor, self.version, self.generator = actor, actor.version, actor.generator

    def act(self, obs):
        return self.actor.act_greedily(obs), self.actor.act(obs)[1]


def test_a_group_shares_the_noise_of_its_environment():
    # On slippery ice one action leads to three places. Who acts alike, ends alike.
    actor, collector = episodes(
        lambda: gym.make("FrozenLake-v1"), num_envs=8, group_size=4, time_limit=100
    )
    paths = set()
    for _ in range(5):
        transitions = collector.collect(Greedy(actor))
        for group in (transitions.next_obs[:, :4], transitions.next_obs[:, 4:]):
            assert (group == group[:, :1]).all()
            paths.add(tuple(group[:, 0].argmax(-1).tolist()))
    assert len(paths) > 5


def test_the_same_seed_gives_the_same_episodes_and_another_one_others():
    def collected_with(seed):
        actor, collector = episodes(PointMass, group_size=2, seed=seed)
        return [collector.collect(actor) for _ in range(2)][1]

    assert_equal(collected_with(1), collected_with(1))
    assert not torch.equal(collected_with(1).obs[0], collected_with(2).obs[0])


def test_the_episodes_of_several_calls_are_all_reported():
    actor, collector = episodes()
    lengths = []
    for _ in range(3):
        lengths += collector.collect(actor).mask.sum(0).tolist()
    reported = [length for _, length in collector.env.drain_episodes()]
    assert sorted(reported) == sorted(lengths)


# ---------------------------------------------------------------------- state


def test_a_loaded_collector_begins_the_episodes_that_were_to_come():
    (actor, collector), (again, loaded) = (episodes(PointMass, group_size=2) for _ in range(2))
    for _ in range(2):
        collector.collect(actor)
    loaded.load_state_dict(copy.deepcopy(collector.state_dict()))
    again.generator.set_state(actor.generator.get_state())
    for _ in range(2):
        assert_equal(loaded.collect(again), collector.collect(actor))


def test_a_state_is_a_snapshot():
    actor, collector = episodes(PointMass, group_size=2)
    state = collector.state_dict()
    before = copy.deepcopy(state)
    collector.collect(actor)
    assert differences(state, before) == []
    assert differences(collector.state_dict(), before)
