"""Groups of episodes: how far their returns differ, some of them, and several rollouts of them."""

from dataclasses import replace

import torch
from gymnasium import spaces
from tiny import counting, set_up

from rlrun.data.groups import join, return_spreads, take_columns
from rlrun.data.rollout import Rollout

CHOICE = spaces.Discrete(3)


def test_what_counts_is_the_raw_return():
    env, _ = counting(4, CHOICE)
    algorithm, collector = set_up(env, "dapo", group_size=2, normalize_reward=True)
    rollout = collector.collect(algorithm.agent)
    assert not torch.equal(rollout.reward, rollout.raw_reward)
    returns = (rollout.raw_reward * rollout.mask).sum(0)
    expected = torch.stack([(returns[0] - returns[1]).abs(), (returns[2] - returns[3]).abs()])
    torch.testing.assert_close(return_spreads(rollout, 2), expected)
    flat = replace(rollout, raw_reward=torch.zeros_like(rollout.raw_reward))
    assert (return_spreads(flat, 2) == 0).all()


def collected(seed: int, num_envs: int) -> Rollout:
    """Groups of two episodes of 1 to 4 steps."""
    env, _ = counting(num_envs, CHOICE)
    algorithm, collector = set_up(env, "dapo", group_size=2, seed=seed)
    for _ in range(seed):
        collector.collect(algorithm.agent)
    return collector.collect(algorithm.agent)


def test_joined_rollouts_are_the_rollouts_and_padding():
    parts = [take_columns(collected(0, 4), torch.tensor([2, 3])), collected(1, 6)]
    short = replace(parts[0], **{k: v[:3] for k, v in vars(parts[0]).items() if torch.is_tensor(v)})
    parts = [replace(short, mask=short.mask & (torch.arange(3)[:, None] < 2)), parts[1]]
    length = len(parts[1].mask)
    assert length > 3
    joined = join(parts)
    for name, column in vars(joined).items():
        if torch.is_tensor(column):
            assert column.shape[:2] == (length, 8), name
            if name != "group":
                assert torch.equal(column[:3, :2], vars(parts[0])[name]), name
                assert (column[3:, :2] == 0).all(), name
                assert torch.equal(column[:, 2:], vars(parts[1])[name]), name
        else:
            assert column == vars(parts[0])[name], name
    assert joined.whole_episodes
    assert joined.value is None


def test_groups_of_joined_rollouts_are_told_apart():
    joined = join([collected(0, 4), collected(1, 4), collected(2, 4)])
    groups = joined.group[0].tolist()
    assert len(set(groups)) == 6
    assert all(groups[i] == groups[i + 1] for i in range(0, 12, 2))
    assert (joined.group == joined.group[0]).all()  # also in the padding


def test_a_rollout_without_episodes_adds_none():
    rollout = collected(0, 4)
    nothing = take_columns(rollout, torch.tensor([], dtype=torch.int64))
    joined = join([nothing, rollout, nothing])
    assert torch.equal(joined.obs, rollout.obs)
    assert torch.equal(joined.group, rollout.group)
    assert join([nothing]).mask.shape[1] == 0
