import pytest
import torch

from rlrun.data.replay.priorities import Priorities, PrioritizedSampler, SumTree

CPU = torch.device("cpu")


def sampler(capacity: int = 8, **changes) -> PrioritizedSampler:
    settings = {"exponent": 0.5, "correction": 0.4, "epsilon": 1e-6, **changes}
    return PrioritizedSampler(Priorities(**settings), capacity, CPU)


def draw(one: PrioritizedSampler, updates=1, size=4, count=8, stored=8, progress=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return one.draw(
        updates, size, count=count, stored=stored, progress=progress, generator=generator
    )


@pytest.mark.parametrize("size", [1, 2, 5, 8, 13])
def test_a_sum_tree_finds_what_a_running_sum_finds(size):
    tree = SumTree(size, CPU)
    values = torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    tree.set(torch.arange(size), values)
    assert tree.total.item() == pytest.approx(values.sum().item())
    points = torch.linspace(0, 1, 200, dtype=torch.float64)[:-1] * values.sum()
    expected = torch.searchsorted(values.cumsum(0), points, right=True)
    assert torch.equal(tree.find(points), expected)


def test_numbers_of_a_sum_tree_change():
    tree = SumTree(5, CPU)
    tree.set(torch.arange(5), torch.ones(5))
    tree.set(torch.tensor([1, 3]), torch.tensor([0.0, 4.0]))
    assert tree.values.tolist() == [1, 0, 1, 4, 1]
    assert tree.total == 7
    # Not even a point beyond the end falls on a number that is zero.
    tree.set(torch.tensor([4]), torch.tensor([0.0]))
    assert tree.find(torch.tensor([6.0, 99.0], dtype=torch.float64)).tolist() == [3, 3]


def test_frequencies_and_weights_are_those_of_the_priorities():
    one = sampler()
    draw(one)  # takes note of the rows
    error = torch.tensor([[1.0, -4.0, 9.0, 16.0, 1.0, 1.0, 4.0, 25.0]])
    one.learn(torch.arange(8).view(1, 8), error)
    wanted = error[0].abs().sqrt() / error[0].abs().sqrt().sum()
    drawn = draw(one, updates=100, size=100, progress=0.5)
    frequency = drawn.places.flatten().bincount(minlength=8) / 10_000
    torch.testing.assert_close(frequency.double(), wanted.double(), atol=0.01, rtol=0)
    # w = (N P)^−β / max w, β half way from 0.4 to 1.
    weight = (8 * wanted[drawn.places]) ** -0.7
    torch.testing.assert_close(drawn.weight, weight / weight.amax(-1, keepdim=True))
    assert (drawn.weight.amax(-1) == 1).all()


def test_new_rows_have_the_largest_priority_so_far():
    one = sampler(capacity=4, exponent=1.0)
    draw(one, count=2, stored=2)
    one.learn(torch.tensor([[0, 1]]), torch.tensor([[7.0, 2.0]]))
    one.learn(torch.tensor([[0, 1]]), torch.tensor([[1.0, 2.0]]))
    draw(one, count=3, stored=3)
    assert one.state_dict()["values"].tolist() == pytest.approx([1, 2, 7], abs=1e-5)
    # Rows 4 and 5 take the places of rows 0 and 1.
    draw(one, count=6, stored=4)
    assert one.state_dict()["values"].tolist() == pytest.approx([7, 7, 7, 7], abs=1e-5)


def test_an_exponent_of_zero_draws_all_alike():
    one = sampler(exponent=0.0)
    draw(one)
    one.learn(torch.arange(8).view(1, 8), torch.arange(8.0).view(1, 8))
    drawn = draw(one, updates=50, size=80)
    assert torch.equal(drawn.weight, torch.ones(50, 80))
    assert torch.equal(drawn.places.flatten().bincount(), torch.full((8,), 500))


def test_priorities_go_on_from_a_saved_state():
    one, again = sampler(), sampler()
    draw(one)
    one.learn(torch.arange(8).view(1, 8), torch.rand(1, 8))
    again.load_state_dict(one.state_dict())
    for index in (0, 1):
        assert torch.equal(draw(one, size=50)[index], draw(again, size=50)[index])
    with pytest.raises(ValueError, match="priorities of 8 rows"):
        sampler(capacity=4).load_state_dict(one.state_dict())


def test_what_is_saved_is_as_much_as_was_written():
    one, again = sampler(capacity=10**6), sampler(capacity=10**6)
    draw(one, count=9, stored=9)
    one.learn(torch.arange(9).view(1, 9), torch.rand(1, 9))
    state = one.state_dict()
    assert len(state["values"]) == 9
    again.load_state_dict(state)
    assert torch.equal(
        draw(one, size=50, count=9, stored=9).places, draw(again, size=50, count=9, stored=9).places
    )
    # As runs of earlier commits saved them.
    whole = torch.cat([state["values"], torch.zeros(10**6 - 9)])
    again.load_state_dict({**state, "values": whole})
    assert torch.equal(
        draw(one, size=50, count=9, stored=9).places, draw(again, size=50, count=9, stored=9).places
    )


def test_rows_that_were_not_saved_are_not_drawn():
    one, again = sampler(capacity=10), sampler(capacity=10)
    draw(one, count=9, stored=9)
    one.learn(torch.arange(9).view(1, 9), torch.full((1, 9), 50.0))
    again.load_state_dict(one.state_dict())
    drawn = draw(again, updates=20, size=10, count=12, stored=3)
    assert set(drawn.places.flatten().tolist()) == {9, 0, 1}


def test_priorities_that_are_none_are_refused():
    one = sampler()
    draw(one)
    state = one.state_dict()
    bad = state["values"].clone()
    bad[0] = float("nan")
    for changes in ({"values": bad}, {"values": -1 - bad.nan_to_num()}, {"largest": torch.ones(2)}):
        with pytest.raises(ValueError, match="not numbers above zero"):
            sampler().load_state_dict({**state, **changes})
