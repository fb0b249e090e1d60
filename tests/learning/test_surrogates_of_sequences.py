"""The ratio of a whole episode, by hand: its product in RLOO, its geometric mean in GSPO."""

import pytest
import torch
from tiny import Corridor, control, set_up
from torch import Tensor

from rlrun.algos.groups.episode_update import EpisodeBatch
from rlrun.learning.losses.surrogates import bounded, of_each_step
from rlrun.models.distributions import Categorical

# Two episodes, of 2 steps and of 1, and a row of padding; ratios 1.1 and 1.2, and 0.5.
RATIOS = torch.tensor([[1.1, 0.5], [1.2, 7.0]])
COUNTS = torch.tensor([[True, True], [True, False]])
PROBABILITY = 0.3  # of each action that was taken, under the new policy


def batch(advantage: list[float], weight: Tensor) -> EpisodeBatch:
    """These two episodes, whose steps have one observation and action 0."""
    zeros = torch.zeros(2, 2)
    return EpisodeBatch(
        obs=torch.zeros(2, 2, 1),
        action=torch.zeros(2, 2, dtype=torch.int64),
        logp=(PROBABILITY / RATIOS).log(),
        advantage=torch.tensor(advantage).expand(2, 2),
        weight=weight * COUNTS,
        reference_logp=zeros,
        kl_coefficient=zeros,
    )


def policy(obs: Tensor) -> Categorical:
    """Action 0 with PROBABILITY."""
    return Categorical(torch.tensor([PROBABILITY, 1 - PROBABILITY]).log().expand(2, 2, 2))


def loss_of(algo: str, batch: EpisodeBatch, **changes) -> tuple[float, dict[str, Tensor]]:
    """The loss of an algorithm, and what it logs."""
    algorithm, _ = set_up(control(Corridor, 4), algo, group_size=2, **changes)
    loss, metrics = algorithm.policy_loss(policy, batch)
    return loss.item(), metrics


def test_rloo_multiplies_the_ratios_of_an_episode():
    # w = 1/B in both steps: the value counts an episode once for each of its steps.
    weight = torch.full((2, 2), 0.5)
    loss, metrics = loss_of("rloo", batch([3.0, -4.0], weight), clip=0.2)
    # 1.1 · 1.2 = 1.32, clipped to 1.2 where that is less; 0.5, clipped to 0.8 where that is less
    assert loss == pytest.approx(-0.5 * (2 * 1.2 * 3.0 + 0.8 * -4.0))
    assert metrics["policy/ratio_max"] == pytest.approx(1.32)
    assert metrics["policy/ratio_mean"] == pytest.approx((1.32 + 0.5) / 2)
    assert metrics["policy/clip_fraction"] == 1.0
    share = (1.32 + 0.5) ** 2 / (2 * (1.32**2 + 0.5**2))
    assert metrics["policy/effective_sample_size"] == pytest.approx(share)


def test_gspo_takes_their_geometric_mean():
    weight = torch.tensor([[0.25, 0.5], [0.25, 0.5]])  # 1 / (B |o|)
    loss, metrics = loss_of("gspo", batch([3.0, -4.0], weight), clip_low=0.4, clip_high=0.1)
    # (1.1 · 1.2)^½ = 1.149, clipped to 1.1; 0.5, clipped to 0.6
    assert loss == pytest.approx(-0.5 * (1.1 * 3.0 + 0.6 * -4.0))
    assert metrics["policy/ratio_max"] == pytest.approx(1.32**0.5)
    wide, metrics = loss_of("gspo", batch([3.0, -4.0], weight), clip_low=0.6, clip_high=0.2)
    assert wide == pytest.approx(-0.5 * (1.32**0.5 * 3.0 + 0.5 * -4.0))
    assert metrics["policy/clip_fraction"] == 0.0


def test_the_episodes_ratio_and_the_steps_gradient():
    log_ratio = torch.tensor([[0.1, -0.4], [0.3, 0.2]], requires_grad=True)
    ratio = of_each_step(bounded(log_ratio.sum(0)), log_ratio).exp()
    expected = torch.tensor([0.4, -0.2]).exp().expand(2, 2)
    torch.testing.assert_close(ratio, expected)
    # ∂/∂Δ_t Σ_t ρ_it = ρ_i, which is also that of ρ_i = exp Σ_t Δ_t.
    ratio.sum().backward()
    torch.testing.assert_close(log_ratio.grad, expected)


def test_a_ratio_stays_a_number():
    assert bounded(torch.tensor([500.0, -500.0])).exp().isfinite().all()
    assert torch.equal(bounded(torch.tensor([3.0])), torch.tensor([3.0]))
