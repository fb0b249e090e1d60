"""How the losses of steps become one number, for each rule by hand."""

import pytest
import torch
from torch import Tensor

from rlrun.data.minibatches import shuffled_episodes, take_columns
from rlrun.learning.losses.aggregation import minibatch_weights, step_weights

# Episodes of 3, 1 and 2 steps, of which no more than 4 are possible, with the losses of each.
LENGTHS = [3, 1, 2]
MASK = torch.arange(3)[:, None] < torch.tensor(LENGTHS)
LOSSES = torch.tensor([[1.0, 5.0, 7.0], [2.0, 0.0, 9.0], [6.0, 0.0, 0.0]])
BY_HAND = {
    "step_mean": (1 + 2 + 6 + 5 + 7 + 9) / 6,
    "episode_mean_step_mean": ((1 + 2 + 6) / 3 + 5 + (7 + 9) / 2) / 3,
    "episode_mean_step_sum": (1 + 2 + 6 + 5 + 7 + 9) / 3,
    "episode_mean_step_norm": (1 + 2 + 6 + 5 + 7 + 9) / (3 * 4),
}
every_rule = pytest.mark.parametrize("rule", BY_HAND)


@every_rule
def test_a_rule_weighs_steps_as_by_hand(rule):
    weight = step_weights(MASK, rule, longest=4)
    assert (weight * LOSSES).sum().item() == pytest.approx(BY_HAND[rule])
    assert ((weight > 0) == MASK).all()


@every_rule
def test_an_episode_without_steps_does_not_count(rule):
    mask = torch.cat([MASK, torch.zeros(3, 2, dtype=torch.bool)], dim=1)
    weight = step_weights(mask, rule, longest=4)
    torch.testing.assert_close(weight[:, :3], step_weights(MASK, rule, longest=4))
    assert (weight[:, 3:] == 0).all()


@every_rule
def test_rows_of_padding_change_nothing(rule):
    mask = torch.cat([MASK, torch.zeros(5, 3, dtype=torch.bool)])
    weight = step_weights(mask, rule, longest=4)
    torch.testing.assert_close(weight[:3], step_weights(MASK, rule, longest=4))
    assert (weight[3:] == 0).all()


def test_the_constant_length_is_the_sum_at_the_size_of_a_mean():
    summed = step_weights(MASK, "episode_mean_step_sum", longest=4)
    torch.testing.assert_close(step_weights(MASK, "episode_mean_step_norm", longest=4), summed / 4)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="no aggregation 'token_mean'"):
        step_weights(MASK, "token_mean", longest=4)


# ---------------------------------------------------------------------- minibatches


def gradient(theta: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """∇ Σ w ℓ for losses ℓ = tanh(θ · x)."""
    theta = theta.clone().requires_grad_(True)
    (weight * torch.tanh(inputs @ theta)).sum().backward()
    return theta.grad


@every_rule
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_mean_gradient_of_minibatches_is_that_of_all_episodes(rule, size):
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(7)[:, None] < torch.tensor([7, 1, 3, 2, 6, 4])
    inputs, theta = torch.randn(7, 6, 5, generator=generator), torch.randn(5, generator=generator)
    weight = step_weights(mask, rule, longest=9)
    whole = gradient(theta, inputs, weight)

    episodes = shuffled_episodes(mask, size=size, generator=generator)
    assert sorted(episodes.flatten().tolist()) == list(range(6))
    parts = zip(*take_columns(episodes, inputs, minibatch_weights(weight, size=size)), strict=True)
    mean = torch.stack([gradient(theta, x, w) for x, w in parts]).mean(0)
    torch.testing.assert_close(mean, whole)


def test_weights_of_each_minibatch_by_itself_would_not_add_up():
    # What TRL's "bnpo" does: the test above can fail.
    inputs = torch.arange(9.0).view(3, 3, 1)
    theta = torch.full((1,), 0.1)
    whole = gradient(theta, inputs, step_weights(MASK, "step_mean", longest=4))
    parts = [
        gradient(theta, inputs[:, [i]], step_weights(MASK[:, [i]], "step_mean", longest=4))
        for i in range(3)
    ]
    assert not torch.allclose(torch.stack(parts).mean(0), whole, rtol=0.05)


def test_a_remainder_is_left_out_and_few_episodes_are_one_minibatch():
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True, True, False, True, True, True]])
    episodes = shuffled_episodes(mask, size=2, generator=generator)
    assert episodes.shape == (2, 2)
    assert 2 not in episodes
    assert len(set(episodes.flatten().tolist())) == 4
    assert sorted(shuffled_episodes(mask, size=8, generator=generator)[0].tolist()) == [
        0,
        1,
        3,
        4,
        5,
    ]
