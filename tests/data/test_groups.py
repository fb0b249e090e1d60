"""Groups of episodes: how far their returns differ, some of them, and several batches of them."""

from dataclasses import replace

import torch
from gymnasium import spaces
from tiny import counting, set_up

from rlrun.data.groups import join, return_spreads, take_episodes
from rlrun.data.rollout import Transitions

CHOICE = spaces.Discrete(3)


def collected(seed: int, num_envs: int) -> Transitions:
    """Groups of two episodes of 1 to 4 steps."""
    env, _ = counting(num_envs, CHOICE)
    algorithm, collector = set_up(env, "grpo", group_size=2, seed=seed)
    for _ in range(seed):
        collector.collect(algorithm.agent.actor)
    return collector.collect(algorithm.agent.actor)


def test_a_spread_is_that_of_the_raw_returns():
    transitions = collected(0, 4)
    returns = (transitions.reward * transitions.mask).sum(0)
    expected = torch.stack([(returns[0] - returns[1]).abs(), (returns[2] - returns[3]).abs()])
    assert expected.all()
    spreads = return_spreads(transitions.reward, transitions.mask, 2)
    torch.testing.assert_close(spreads, expected)
    of_four = return_spreads(transitions.reward, transitions.mask, 4)
    torch.testing.assert_close(of_four, (returns.max() - returns.min())[None])
    flat = torch.zeros_like(transitions.reward)
    assert return_spreads(flat, transitions.mask, 2).tolist() == [0, 0]


def test_some_episodes_are_theirs_in_all_columns():
    transitions = collected(0, 6)
    some = take_episodes(transitions, torch.tensor([4, 1]))
    for name, column in vars(transitions).items():
        if torch.is_tensor(column):
            assert torch.equal(vars(some)[name], column[:, [4, 1]]), name
        else:  # what was played, whether it is kept or not: steps and moments among it
            assert vars(some)[name] is column, name


def test_joined_episodes_are_the_episodes_and_padding():
    parts = [take_episodes(collected(0, 4), torch.tensor([2, 3])), collected(1, 6)]
    short = replace(parts[0], **{k: v[:3] for k, v in vars(parts[0]).items() if torch.is_tensor(v)})
    parts = [replace(short, mask=short.mask & (torch.arange(3)[:, None] < 2)), parts[1]]
    length = len(parts[1].mask)
    assert length > 3
    joined = join(parts)
    columns = {name for name, column in vars(joined).items() if torch.is_tensor(column)}
    assert {"obs", "next_obs", "action", "logp", "reward", "policy_version", "group"} < columns
    for name in columns:
        column = vars(joined)[name]
        assert column.shape[:2] == (length, 8), name
        if name != "group":
            assert torch.equal(column[:3, :2], vars(parts[0])[name]), name
            assert (column[3:, :2] == 0).all(), name
            assert torch.equal(column[:, 2:], vars(parts[1])[name]), name
    assert joined.whole_episodes


def test_joined_episodes_have_the_steps_and_the_moments_of_all():
    everything = [collected(0, 4), collected(1, 6)]
    kept = take_episodes(everything[0], torch.tensor([2, 3]))
    joined = join([kept, everything[1]])
    # Of the dropped episodes too: they were acted in.
    obs = torch.cat([part.obs[part.mask] for part in everything]).double()
    assert joined.steps == joined.obs_moments.count == len(obs)
    torch.testing.assert_close(joined.obs_moments.mean, obs.mean(0))
    torch.testing.assert_close(joined.obs_moments.variance, obs.var(0, correction=0))
    assert kept.obs_moments.count == int(everything[0].mask.sum())  # it has not learned by that


def test_groups_of_joined_episodes_are_told_apart():
    joined = join([collected(0, 4), collected(1, 4), collected(2, 4)])
    groups = joined.group[0].tolist()
    assert len(set(groups)) == 6
    assert all(groups[i] == groups[i + 1] for i in range(0, 12, 2))
    assert (joined.group == joined.group[0]).all()  # also in the padding


def test_a_batch_without_episodes_adds_none():
    transitions = collected(0, 4)
    nothing = take_episodes(transitions, torch.tensor([], dtype=torch.int64))
    joined = join([nothing, transitions, nothing])
    assert torch.equal(joined.obs, transitions.obs)
    assert torch.equal(joined.group, transitions.group)
    assert joined.steps == 3 * transitions.steps  # its episodes were played
    assert join([nothing]).mask.shape[1] == 0
