import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import Counting, PointMass, control, counting, set_up

from rlrun.errors import EnvironmentFailure
from rlrun.rollout import minibatches

ENVS, HORIZON = 3, 11
RAW = {"normalize_observation": False, "normalize_reward": False}
CHOICE = spaces.Discrete(2)
BOX = spaces.Box(-0.5, 0.25, (2,), np.float32)


def collected(action_space: spaces.Space = CHOICE, **changes):
    """A learner, its collector and the environments, before the first rollout."""
    env, envs = counting(ENVS, action_space)
    settings = {"horizon": HORIZON, "minibatch_size": ENVS * HORIZON, **RAW, **changes}
    algorithm, collector = set_up(env, **settings)
    return algorithm, collector, envs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------- rows


def test_every_row_is_one_transition_of_one_episode():
    algorithm, collector, _ = collected()
    place = [(0, 0)] * ENVS  # (episode, step) of every environment; goes on over three rollouts
    for _ in range(3):
        rollout = collector.collect(algorithm)
        for t in range(HORIZON):
            for n in range(ENVS):
                episode, step = place[n]
                over = step + 1 == Counting.length(n, episode)
                assert rollout.obs[t, n].tolist() == [n, episode, step]
                # The true successor: of the same episode, at its end too.
                assert rollout.next_obs[t, n].tolist() == [n, episode, step + 1]
                assert rollout.reward[t, n] == 100 * n + 10 * episode + step
                assert rollout.terminated[t, n] == (over and episode % 2 == 0)
                assert rollout.truncated[t, n] == (over and episode % 2 == 1)
                # After an end, the next row is the first of the next episode.
                place[n] = (episode + 1, 0) if over else (episode, step + 1)
        assert rollout.terminated.any()
        assert rollout.truncated.any()
        assert rollout.mask.all()


def test_values_and_probabilities_are_those_of_their_rows():
    algorithm, collector, _ = collected()
    rollout = collector.collect(algorithm)
    for t in range(HORIZON):
        distribution, value = algorithm.network(rollout.obs[t])
        torch.testing.assert_close(rollout.logp[t], distribution.log_prob(rollout.action[t]))
        torch.testing.assert_close(rollout.value[t], value)
        successor = algorithm.network.critic(rollout.next_obs[t])
        torch.testing.assert_close(rollout.next_value[t], successor)
    assert not rollout.logp.requires_grad


def test_discrete_actions_are_those_that_the_environments_got():
    algorithm, collector, envs = collected()
    rollout = collector.collect(algorithm)
    assert rollout.action.shape == (HORIZON, ENVS)
    assert rollout.action.dtype == torch.int64
    assert set(rollout.action.unique().tolist()) == {0, 1}
    for n, env in enumerate(envs):
        assert rollout.action[:, n].tolist() == [action.item() for action in env.received]


def test_actions_are_stored_unclipped_and_clipped_for_the_environment():
    algorithm, collector, envs = collected(BOX)
    rollout = collector.collect(algorithm)
    assert rollout.action.shape == (HORIZON, ENVS, 2)
    outside = (rollout.action < -0.5) | (rollout.action > 0.25)
    assert outside.any()  # σ = 1: more than half of them
    assert not outside.all()
    for n, env in enumerate(envs):
        expected = np.clip(rollout.action[:, n].numpy(), -0.5, 0.25)
        assert np.array_equal(np.stack(env.received), expected)
    # The probability is that of the action that was sampled, not of the clipped one.
    distribution, _ = algorithm.network(rollout.obs)
    torch.testing.assert_close(rollout.logp, distribution.log_prob(rollout.action))


def test_an_environments_error_names_it():
    algorithm, collector, envs = collected()
    collector.collect(algorithm)

    def fail(action):
        raise RuntimeError("the wheels came off")

    envs[1].step = fail
    with pytest.raises(EnvironmentFailure, match=r"environment 1 .*the wheels came off"):
        collector.collect(algorithm)


# ---------------------------------------------------------------------- normalisation


def test_statistics_of_observations_are_those_of_earlier_rollouts():
    # What Counting observes does not depend on the actions: one collector sees the raw numbers.
    raw_algorithm, raw_collector, _ = collected()
    algorithm, collector, _ = collected(normalize_observation=True)
    first_raw, first = raw_collector.collect(raw_algorithm), collector.collect(algorithm)
    assert torch.equal(first.obs, first_raw.obs)  # nothing seen before: as they are
    rows = first_raw.obs.flatten(0, 1).double()
    mean, variance = rows.mean(0), rows.var(0, correction=0)

    second_raw, second = raw_collector.collect(raw_algorithm), collector.collect(algorithm)
    for name in ("obs", "next_obs"):
        raw = vars(second_raw)[name].double()
        expected = ((raw - mean) / (variance + 1e-8).sqrt()).clamp(-10, 10).float()
        torch.testing.assert_close(vars(second)[name], expected)


def test_rewards_are_scaled_but_not_shifted():
    rewards = {}
    for enabled in (False, True):
        algorithm, collector, _ = collected(normalize_reward=enabled)
        rewards[enabled] = collector.collect(algorithm).reward
    scale = rewards[True][5, 2] / rewards[False][5, 2]
    assert 0 < scale < 1
    torch.testing.assert_close(rewards[True], scale * rewards[False])


def test_a_loaded_collector_goes_on_in_mid_episode():
    settings = {"horizon": 7, "minibatch_size": 7}  # an episode lasts 10 steps
    algorithm, collector = set_up(control(PointMass, 2), **settings)
    again, loaded = set_up(control(PointMass, 2), **settings)
    collector.collect(algorithm)
    loaded.load_state_dict(copy.deepcopy(collector.state_dict()))
    loaded.observation_normalizer.load_state_dict(collector.observation_normalizer.state_dict())
    again.streams.load_state_dict(algorithm.streams.state_dict())
    for _ in range(2):
        expected, rollout = collector.collect(algorithm), loaded.collect(again)
        for name, column in vars(expected).items():
            if column is not None:
                assert torch.equal(vars(rollout)[name], column), name


# ---------------------------------------------------------------------- minibatches


def test_each_row_comes_exactly_once_an_epoch():
    mask = torch.ones(8, 3, dtype=torch.bool)
    rows = minibatches(mask, size=4, generator=generator())
    assert rows.shape == (6, 4)
    assert sorted(rows.flatten().tolist()) == list(range(24))
    assert rows.flatten().tolist() != list(range(24))


def test_rows_that_do_not_count_are_in_no_minibatch():
    mask = torch.rand(8, 3, generator=generator()) < 0.5
    counted = mask.flatten().nonzero().flatten().tolist()
    rows = minibatches(mask, size=1, generator=generator())
    assert sorted(rows.flatten().tolist()) == counted


def test_a_remainder_is_left_out():
    rows = minibatches(torch.ones(5, 2, dtype=torch.bool), size=4, generator=generator())
    assert rows.shape == (2, 4)
    assert len(set(rows.flatten().tolist())) == 8


def test_the_generator_decides_the_order_and_goes_on():
    mask = torch.ones(8, 3, dtype=torch.bool)
    stream = generator()
    first, second = (minibatches(mask, size=4, generator=stream) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, minibatches(mask, size=4, generator=generator()))


def test_no_row_of_a_minibatch_mixes_episodes():
    algorithm, collector, _ = collected()
    rollout = collector.collect(algorithm)
    rows = minibatches(rollout.mask, size=ENVS * HORIZON, generator=generator())
    obs, next_obs, reward = (
        column.flatten(0, 1)[rows[0]] for column in (rollout.obs, rollout.next_obs, rollout.reward)
    )
    # Environment and episode are the same before and after, and the reward is theirs.
    assert torch.equal(obs[:, :2], next_obs[:, :2])
    assert torch.equal(obs[:, 2] + 1, next_obs[:, 2])
    assert torch.equal(obs @ torch.tensor([100.0, 10.0, 1.0]), reward)
