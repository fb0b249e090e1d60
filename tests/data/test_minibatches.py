"""How a rollout is cut into minibatches: of rows, or of whole episodes."""

import torch

from rlrun.data.minibatches import all_rows, minibatches, shuffled_episodes, take, take_columns


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def test_fewer_rows_than_a_minibatch_are_one():
    rows = minibatches(torch.ones(5, 2, dtype=torch.bool), size=64, generator=generator())
    assert rows.shape == (1, 10)
    assert sorted(rows.flatten().tolist()) == list(range(10))


def test_taken_rows_keep_what_belongs_together():
    # Row [t, n] of every column says where it is from: 10 t + n.
    place = 10 * torch.arange(8)[:, None] + torch.arange(3)
    columns = place, place[..., None] + torch.tensor([0.0, 0.25, 0.5, 0.75]), place % 2 == 0
    rows = minibatches(torch.ones(8, 3, dtype=torch.bool), size=4, generator=generator())
    number, vector, even = take(rows, *columns)
    assert number.shape == even.shape == (6, 4)
    assert vector.shape == (6, 4, 4)
    assert torch.equal(number, 10 * (rows // 3) + rows % 3)
    assert torch.equal(vector[..., 0], number.float())
    assert torch.equal(even, number % 2 == 0)


def test_all_rows_are_those_that_count_in_their_order():
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    assert all_rows(mask).tolist() == [[0, 1, 2, 5]]


def test_episodes_are_shuffled_and_each_that_has_a_step_comes_once():
    mask = torch.rand(5, 40, generator=generator()) < 0.3
    some = mask.any(0).nonzero().flatten().tolist()
    assert len(some) < 40
    episodes = shuffled_episodes(mask, size=1, generator=generator())
    assert sorted(episodes.flatten().tolist()) == some
    assert episodes.flatten().tolist() != some
    four = shuffled_episodes(mask, size=4, generator=generator())
    assert four.shape == (len(some) // 4, 4)
    assert len(set(four.flatten().tolist())) == four.numel()
    assert shuffled_episodes(mask, size=64, generator=generator()).shape == (1, len(some))


def test_taken_episodes_are_whole():
    place = 10 * torch.arange(8)[:, None] + torch.arange(6)
    episodes = torch.tensor([[4, 1], [0, 5], [3, 2]])
    number, vector = take_columns(episodes, place, place[..., None].expand(8, 6, 2))
    assert number.shape == (3, 8, 2)
    assert vector.shape == (3, 8, 2, 2)
    for m, pair in enumerate(episodes.tolist()):
        assert torch.equal(number[m], place[:, pair])
        assert torch.equal(vector[m, ..., 1], place[:, pair])
