"""Sequences, their steps, and how they are cut into minibatches and put side by side."""

import torch
from languages import generator, random_sequences, task_of

from rlrun.data.minibatches import rows_of, sequence_minibatches, take, take_columns
from rlrun.data.sequences import join_sequences

TASK = task_of("add")


def test_rows_are_the_steps_of_the_sequences_that_they_are_of():
    obs = random_sequences(TASK, 5, 4)
    rows = torch.tensor([13, 2, 8, 2])  # (2, 3), (0, 2), (1, 3), (0, 2)
    some = obs.rows(rows)
    assert some.count == 2  # sequences 2 and 3
    assert some.length == 3  # nobody sees the last row
    for number, row in zip(some.steps.tolist(), rows.tolist(), strict=True):
        step, n = divmod(number, some.count)
        t, sequence = divmod(row, obs.count)
        assert step == t
        assert torch.equal(some.tokens[:, n], obs.tokens[: len(some.tokens), sequence])
        assert some.blank[n] == obs.blank[sequence]


def test_minibatches_are_of_whole_sequences():
    mask = torch.arange(6)[:, None] < torch.tensor([6, 1, 3, 2, 0, 4, 5, 3])  # 24 steps
    number = torch.arange(mask.numel()).view(mask.shape)
    batches = sequence_minibatches(mask, size=8, generator=generator())
    assert len(batches) == 3
    seen = []
    for rows in batches:
        columns = (rows % 8).unique().tolist()
        assert len(columns) == 2  # of seven that have a step: one is left out
        assert sorted(rows.tolist()) == sorted(number[:, columns][mask[:, columns]].tolist())
        seen += columns
    assert len(set(seen)) == 6
    assert 4 not in seen
    assert len(sequence_minibatches(mask, size=100, generator=generator())) == 1
    assert len(sequence_minibatches(mask, size=1, generator=generator())) == 7


def test_columns_are_taken_with_their_sequences():
    obs = random_sequences(TASK, 6, 3)
    reward = torch.arange(18.0).view(3, 6)
    rows = [torch.tensor([0, 6, 1]), torch.tensor([17])]
    some, rewards = take(rows, obs, reward)
    assert [each.tolist() for each in rewards] == [[0, 6, 1], [17]]
    assert torch.equal(some[0].tokens, rows_of(obs, rows[0]).tokens)
    episodes = torch.tensor([[4, 1], [0, 5]])
    whole, rewards = take_columns(episodes, obs, reward)
    assert rewards.shape == (2, 3, 2)
    for part, columns in zip(whole, episodes, strict=True):
        assert torch.equal(part.tokens, obs.tokens[:, columns])
        assert torch.equal(part.blank, obs.blank[columns])


def test_responses_of_different_lengths_are_joined():
    short, long = (random_sequences(TASK, n, t, seed=n) for n, t in ((2, 2), (3, 4)))
    joined = join_sequences([short, long])
    assert (joined.count, joined.length) == (5, 4)
    assert torch.equal(joined.tokens[:-2, :2], short.tokens)
    assert torch.equal(joined.tokens[:, 2:], long.tokens)
    assert torch.equal(joined.blank, torch.cat([short.blank, long.blank]))
