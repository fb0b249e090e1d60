import pytest
import torch

from rlrun.data.discounting import discounted_sums


def test_three_steps_by_hand():
    x = torch.tensor([[1.0], [2.0], [3.0]])
    decay = torch.tensor([[0.5], [0.1], [7.0]])
    # y₂ = 3, whatever its decay;  y₁ = 2 + 0.1·3 = 2.3;  y₀ = 1 + 0.5·2.3 = 2.15
    torch.testing.assert_close(discounted_sums(x, decay), torch.tensor([[2.15], [2.3], [3.0]]))


# Powers of two, their neighbours, and the shortest rollouts.
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 100])
def test_equals_walking_back_in_time(steps):
    generator = torch.Generator().manual_seed(steps)
    x = torch.randn(steps, 3, generator=generator, dtype=torch.float64)
    decay = torch.rand(steps, 3, generator=generator, dtype=torch.float64) * 1.1
    decay[torch.rand(steps, 3, generator=generator) < 0.2] = 0.0
    kept = x.clone(), decay.clone()

    expected, y = torch.empty_like(x), torch.zeros(3, dtype=torch.float64)
    for t in reversed(range(steps)):
        y = x[t] + decay[t] * y
        expected[t] = y

    torch.testing.assert_close(discounted_sums(x, decay), expected)
    assert torch.equal(x, kept[0])
    assert torch.equal(decay, kept[1])


def test_constant_input_is_a_geometric_series():
    # Σ_{k < T − t} 0.9^k = (1 − 0.9^{T−t}) / 0.1
    steps = 50
    y = discounted_sums(
        torch.ones(steps, 1, dtype=torch.float64),
        torch.full((steps, 1), 0.9, dtype=torch.float64),
    )
    left = torch.arange(steps, 0, -1, dtype=torch.float64)
    torch.testing.assert_close(y[:, 0], (1 - 0.9**left) / 0.1)


def test_a_zero_decay_hides_all_that_follows():
    x = torch.ones(6, 1)
    decay = torch.ones(6, 1)
    decay[2] = 0.0
    changed = x.clone()
    changed[3:] = 1e6
    before, after = (discounted_sums(values, decay) for values in (x, changed))
    assert torch.equal(before[:3], after[:3])
    assert before[:3, 0].tolist() == [3.0, 2.0, 1.0]
