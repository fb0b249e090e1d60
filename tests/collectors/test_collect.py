import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import Corridor, Counting, PointMass, control, counting, set_up

from rlrun.errors import EnvironmentFailure, UserError

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


def assert_equal(rollout, expected) -> None:
    """The same columns, bit for bit."""
    for name, column in vars(expected).items():
        if isinstance(column, torch.Tensor):
            assert torch.equal(vars(rollout)[name], column), name
        else:
            assert vars(rollout)[name] == column, name


@pytest.mark.parametrize("group_size", [None, 2])
def test_a_rollout_is_of_ordinary_tensors(group_size):
    # Those that are made in inference mode cannot be used with autograd later.
    algorithm, collector = set_up(control(Corridor, 4), group_size=group_size)
    for name, column in vars(collector.collect(algorithm.agent)).items():
        assert not (isinstance(column, torch.Tensor) and column.is_inference()), name


# ---------------------------------------------------------------------- segments


def test_every_row_is_one_transition_of_one_episode():
    algorithm, collector, _ = collected()
    place = [(0, 0)] * ENVS  # (episode, step) of every environment; goes on over three rollouts
    for _ in range(3):
        rollout = collector.collect(algorithm.agent)
        for t in range(HORIZON):
            for n in range(ENVS):
                episode, step = place[n]
                over = step + 1 == Counting.length(n, episode)
                assert rollout.obs[t, n].tolist() == [n, episode, step]
                # The true successor: of the same episode, at its end too.
                assert rollout.next_obs[t, n].tolist() == [n, episode, step + 1]
                assert rollout.reward[t, n] == 100 * n + 10 * episode + step
                terminates = Counting.terminates(n, episode)
                assert rollout.terminated[t, n] == (over and terminates)
                assert rollout.truncated[t, n] == (over and not terminates)
                # After an end, the next row is the first of the next episode.
                place[n] = (episode + 1, 0) if over else (episode, step + 1)
        assert rollout.terminated.any()
        assert rollout.truncated.any()
        assert rollout.mask.all()
        assert not rollout.whole_episodes
        assert rollout.group is None


def test_steps_are_counted_until_the_counter_is_set_back():
    algorithm, collector, _ = collected()
    for count in (1, 2):
        collector.collect(algorithm.agent)
        assert collector.steps == count * HORIZON * ENVS
    collector.steps = 0
    collector.collect(algorithm.agent)
    assert collector.steps == HORIZON * ENVS


def test_values_and_probabilities_are_those_of_their_rows():
    algorithm, collector, _ = collected()
    rollout = collector.collect(algorithm.agent)
    for t in range(HORIZON):
        distribution = algorithm.agent.policy(rollout.obs[t])
        torch.testing.assert_close(rollout.logp[t], distribution.log_prob(rollout.action[t]))
        torch.testing.assert_close(rollout.value[t], algorithm.agent.critic(rollout.obs[t]))
        successor = algorithm.agent.critic(rollout.next_obs[t])
        torch.testing.assert_close(rollout.next_value[t], successor)
    assert rollout.policy_logp is None  # which gae does not ask for
    assert not rollout.logp.requires_grad


def test_discrete_actions_are_those_that_the_environments_got():
    algorithm, collector, envs = collected()
    rollout = collector.collect(algorithm.agent)
    assert rollout.action.shape == (HORIZON, ENVS)
    assert rollout.action.dtype == torch.int64
    assert set(rollout.action.unique().tolist()) == {0, 1}
    for n, env in enumerate(envs):
        assert rollout.action[:, n].tolist() == [action.item() for action in env.received]


def test_actions_are_stored_unclipped_and_clipped_for_the_environment():
    algorithm, collector, envs = collected(BOX)
    rollout = collector.collect(algorithm.agent)
    assert rollout.action.shape == (HORIZON, ENVS, 2)
    outside = (rollout.action < -0.5) | (rollout.action > 0.25)
    assert outside.any()  # σ = 1: more than half of them
    assert not outside.all()
    for n, env in enumerate(envs):
        expected = np.clip(rollout.action[:, n].numpy(), -0.5, 0.25)
        assert np.array_equal(np.stack(env.received), expected)
    # The probability is that of the action that was sampled, not of the clipped one.
    distribution = algorithm.agent.policy(rollout.obs)
    torch.testing.assert_close(rollout.logp, distribution.log_prob(rollout.action))


def test_an_environments_error_names_it():
    algorithm, collector, envs = collected()
    collector.collect(algorithm.agent)

    def fail(action):
        raise RuntimeError("the wheels came off")

    envs[1].step = fail
    with pytest.raises(EnvironmentFailure, match=r"environment 1 .*the wheels came off"):
        collector.collect(algorithm.agent)


# ---------------------------------------------------------------------- normalisation


def test_statistics_of_observations_are_those_of_earlier_rollouts():
    # What Counting observes does not depend on the actions: one collector sees the raw numbers.
    raw_algorithm, raw_collector, _ = collected()
    algorithm, collector, _ = collected(normalize_observation=True)
    first_raw, first = (
        raw_collector.collect(raw_algorithm.agent),
        collector.collect(algorithm.agent),
    )
    assert torch.equal(first.obs, first_raw.obs)  # nothing seen before: as they are
    rows = first_raw.obs.flatten(0, 1).double()
    mean, variance = rows.mean(0), rows.var(0, correction=0)

    second_raw, second = (
        raw_collector.collect(raw_algorithm.agent),
        collector.collect(algorithm.agent),
    )
    for name in ("obs", "next_obs"):
        raw = vars(second_raw)[name].double()
        expected = ((raw - mean) / (variance + 1e-8).sqrt()).clamp(-10, 10).float()
        torch.testing.assert_close(vars(second)[name], expected)


def test_rewards_are_scaled_but_not_shifted():
    algorithm, collector, _ = collected(normalize_reward=True)
    rollout = collector.collect(algorithm.agent)
    assert rollout.raw_reward[0].tolist() == [0.0, 100.0, 200.0]
    scale = rollout.reward[5, 2] / rollout.raw_reward[5, 2]
    assert 0 < scale < 1
    torch.testing.assert_close(rollout.reward, scale * rollout.raw_reward)


def test_raw_observations_are_what_the_environments_gave():
    algorithm, collector, _ = collected(normalize_observation=True)
    for _ in range(2):
        rollout = collector.collect(algorithm.agent)
    assert torch.equal(rollout.raw_obs[..., 0], torch.arange(3.0).expand(HORIZON, 3))
    assert rollout.obs[..., 0].min() < 0


def test_a_loaded_collector_goes_on_in_mid_episode():
    settings = {"horizon": 7, "minibatch_size": 7}  # an episode lasts 10 steps
    algorithm, collector = set_up(control(PointMass, 2), **settings)
    again, loaded = set_up(control(PointMass, 2), **settings)
    collector.collect(algorithm.agent)
    loaded.load_state_dict(copy.deepcopy(collector.state_dict()))
    loaded.observation_normalizer.load_state_dict(collector.observation_normalizer.state_dict())
    again.streams.load_state_dict(algorithm.streams.state_dict())
    for _ in range(2):
        assert_equal(loaded.collect(again.agent), collector.collect(algorithm.agent))


# ---------------------------------------------------------------------- whole episodes


def episodes(make_env=Corridor, *, num_envs: int = 4, group_size: int = 1, **changes):
    """An algorithm and the collector of its episodes, before the first of them."""
    env = control(make_env, num_envs)
    return set_up(env, group_size=group_size, minibatch_size=2, **changes)


def test_every_column_is_one_episode_from_its_first_step_to_its_last():
    env, envs = counting(4, CHOICE)
    algorithm, collector = set_up(env, group_size=1, **RAW)
    for _ in range(3):
        rollout = collector.collect(algorithm.agent)
        assert rollout.whole_episodes
        assert rollout.group is None
        # As long as the longest of them, and no longer.
        lengths = [Counting.length(n, int(rollout.obs[0, n, 1])) for n in range(4)]
        assert rollout.mask.shape == (max(lengths), 4)
        assert rollout.mask.sum(0).tolist() == lengths == [1, 2, 3, 4]
        for n, length in enumerate(lengths):
            episode = int(rollout.obs[0, n, 1])
            steps = torch.arange(length)
            assert rollout.mask[:length, n].all()
            assert torch.equal(rollout.obs[:length, n, 2], steps.float())
            assert torch.equal(rollout.next_obs[:length, n, 2], 1.0 + steps)
            for obs in (rollout.obs, rollout.next_obs):
                assert (obs[:length, n, :2] == torch.tensor([n, episode])).all()
            expected = 100.0 * n + 10 * episode + steps
            assert torch.equal(rollout.reward[:length, n], expected)
            assert torch.equal(rollout.raw_reward[:length, n], expected)
            # The last step of it is the one that ends it, in one of the two ways.
            assert rollout.done[:, n].nonzero().tolist() == [[length - 1]]
            assert rollout.terminated[length - 1, n] == Counting.terminates(n, episode)
            # The environments got the actions of the rows that count, and no others.
            received = [action.item() for action in envs[n].received]
            assert rollout.action[:length, n].tolist() == received
            envs[n].received.clear()
        assert rollout.terminated.any()
        assert rollout.truncated.any()


def test_rows_behind_an_end_are_padding():
    algorithm, collector = episodes(num_envs=8, normalize_reward=True)
    rollout = collector.collect(algorithm.agent)
    padding = ~rollout.mask
    assert padding.any()
    assert not rollout.reward[padding].any()
    assert not rollout.raw_reward[padding].any()
    assert not rollout.done[padding].any()
    # Finite all the same: a product with zero is to be zero.
    for column in (rollout.obs, rollout.next_obs, rollout.logp, rollout.value, rollout.next_value):
        assert column.isfinite().all()


def test_steps_are_those_of_the_rows_that_count():
    algorithm, collector = episodes()
    rows = 0
    for _ in range(2):
        rows += int(collector.collect(algorithm.agent).mask.sum())
        assert collector.steps == rows
    assert rows < 2 * 4 * Corridor.limit


def test_the_normalisers_learn_from_the_rows_that_count():
    algorithm, collector = episodes(num_envs=8)
    first = collector.collect(algorithm.agent)
    rows = first.raw_obs[first.mask].double()
    moments = collector.observation_normalizer.moments
    assert not first.mask.all()
    assert moments.count == collector.reward_normalizer.moments.count == len(rows)
    torch.testing.assert_close(moments.mean, rows.mean(0))
    torch.testing.assert_close(moments.variance, rows.var(0, correction=0))
    # R of every step, episode by episode: R ← r + γR
    returns = []
    for column, counts in zip(first.raw_reward.T, first.mask.T, strict=True):
        total = 0.0
        for reward in column[counts].tolist():
            total = reward + algorithm.gamma * total
            returns.append(total)
    variance = torch.tensor(returns, dtype=torch.float64).var(correction=0)
    torch.testing.assert_close(collector.reward_normalizer.moments.variance, variance[None])
    torch.testing.assert_close(first.reward, first.raw_reward / (variance + 1e-8).sqrt().float())


def test_a_group_has_one_start_and_each_of_its_episodes_its_own_actions():
    algorithm, collector = episodes(PointMass, num_envs=6, group_size=3, **RAW)
    starts = set()
    for _ in range(3):
        rollout = collector.collect(algorithm.agent)
        assert torch.equal(rollout.group, torch.tensor([0, 0, 0, 1, 1, 1]).expand(10, 6))
        first = rollout.obs[0, :, 0].tolist()
        assert first[0] == first[1] == first[2]
        assert first[3] == first[4] == first[5]
        starts |= set(first)
        # Every action is a draw of its own, and so is every path.
        assert len(set(rollout.action.flatten().tolist())) == 60
        assert len(set(rollout.next_obs[0].flatten().tolist())) == 6
    assert len(starts) == 6  # two groups, three times


def test_a_group_shares_the_noise_of_its_environment():
    # On slippery ice one action leads to three places. Who acts alike, ends alike.
    algorithm, collector = episodes(
        lambda: gym.make("FrozenLake-v1"), num_envs=8, group_size=4, time_limit=100, **RAW
    )
    algorithm.agent.act = algorithm.agent.act_greedily
    paths = set()
    for _ in range(5):
        rollout = collector.collect(algorithm.agent)
        for group in (rollout.next_obs[:, :4], rollout.next_obs[:, 4:]):
            assert (group == group[:, :1]).all()
            paths.add(tuple(group[:, 0].argmax(-1).tolist()))
    assert len(paths) > 5


def test_the_same_seed_gives_the_same_episodes_and_another_one_others():
    def collected_with(seed):
        algorithm, collector = episodes(PointMass, group_size=2, seed=seed)
        return [collector.collect(algorithm.agent) for _ in range(2)][1]

    assert_equal(collected_with(1), collected_with(1))
    assert not torch.equal(collected_with(1).raw_obs[0], collected_with(2).raw_obs[0])


def test_a_loaded_collector_begins_the_episodes_that_were_to_come():
    algorithm, collector = episodes(PointMass, group_size=2)
    again, loaded = episodes(PointMass, group_size=2)
    for _ in range(2):
        collector.collect(algorithm.agent)
    loaded.load_state_dict(copy.deepcopy(collector.state_dict()))
    loaded.observation_normalizer.load_state_dict(collector.observation_normalizer.state_dict())
    again.streams.load_state_dict(algorithm.streams.state_dict())
    for _ in range(2):
        assert_equal(loaded.collect(again.agent), collector.collect(algorithm.agent))


def test_an_episode_that_outlasts_its_limit_is_an_error():
    algorithm, collector = episodes(PointMass, time_limit=9)  # a step before it is cut
    message = r"^the episode of environment 0 \(seed \d+\) goes on after 9 steps, the time limit"
    with pytest.raises(UserError, match=message):
        collector.collect(algorithm.agent)


def test_the_episodes_of_several_calls_are_all_reported():
    algorithm, collector = episodes()
    lengths = []
    for _ in range(3):
        lengths += collector.collect(algorithm.agent).mask.sum(0).tolist()
    reported = [length for _, length in collector.env.drain_episodes()]
    assert sorted(reported) == sorted(lengths)
