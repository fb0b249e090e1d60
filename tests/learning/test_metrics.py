"""What is said of a step, of many minibatches, and of the iterations of a row."""

import copy
import math

import pytest
import torch
from running import differences
from tiny import bare_rollout

from rlrun.learning.losses.kl import approximate_kl
from rlrun.learning.metrics import (
    MetricAverager,
    masked_mean,
    policy_metrics,
    ratio_metrics,
    spread_metrics,
    summarize,
)


def test_numbers_are_averaged_over_minibatches_and_maxima_kept():
    history = [
        {"policy/kl": torch.tensor([1.0, 2.0]), "policy/ratio_max": torch.tensor([1.5, 3.0])},
        {"policy/kl": torch.tensor([6.0]), "policy/ratio_max": torch.tensor([2.0])},
    ]
    expected = {"updates": 3, "policy/kl": 3.0, "policy/ratio_max": 3.0}
    means = summarize(history)
    assert {name: value.item() for name, value in means.items()} == expected


def test_nothing_was_learned_nothing_is_said():
    assert summarize([]) == {"updates": torch.tensor(0)}


# ---------------------------------------------------------------------- rows that count


def ratios() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log ρ, entropies and a mask, [T, n]; what does not count is far off."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(9, 6, generator=generator) < 0.6
    log_ratio, entropy = (torch.randn(9, 6, generator=generator) for _ in range(2))
    return torch.where(mask, log_ratio, 5.0), torch.where(mask, entropy, 1e6), mask


@pytest.mark.parametrize("clip_high", [None, 0.5])
def test_masked_numbers_are_those_of_the_rows_that_count(clip_high):
    log_ratio, entropy, mask = ratios()
    bounds = {"clip": 0.2, "clip_high": clip_high}
    masked = policy_metrics(log_ratio, entropy, **bounds, mask=mask)
    picked = policy_metrics(log_ratio[mask], entropy[mask], **bounds)
    assert masked.keys() == picked.keys()
    assert 0 < picked["policy/clip_fraction"] < 1
    for name, expected in picked.items():
        torch.testing.assert_close(masked[name], expected, atol=1e-6, rtol=1e-6)


def test_a_mask_of_all_rows_changes_nothing():
    log_ratio, entropy, _ = ratios()
    everything = torch.ones_like(log_ratio, dtype=torch.bool)
    masked = policy_metrics(log_ratio, entropy, clip=0.2, mask=everything)
    for name, expected in policy_metrics(log_ratio, entropy, clip=0.2).items():
        torch.testing.assert_close(masked[name], expected, atol=1e-6, rtol=1e-6)


def test_what_does_not_count_may_be_infinite():
    log_ratio, _, mask = ratios()
    lost = torch.where(mask, log_ratio, torch.inf)
    for name, value in ratio_metrics(lost, 0.2, mask=mask).items():
        torch.testing.assert_close(value, ratio_metrics(log_ratio, 0.2, mask=mask)[name])
    torch.testing.assert_close(approximate_kl(lost, mask), approximate_kl(log_ratio[mask]))
    torch.testing.assert_close(masked_mean(lost, mask), log_ratio[mask].mean())


def test_groups_without_a_spread_are_counted_by_their_raw_returns():
    raw = torch.tensor([[1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 3.0, 9.0]])
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    group = torch.tensor([0, 0, 1, 1]).expand(2, 4)
    rollout = bare_rollout(torch.rand(2, 4), raw_reward=raw, mask=mask, group=group)
    # Returns 2, 2 and 3, 2.
    assert spread_metrics(rollout, 2) == {"groups/without_spread": torch.tensor(0.5)}
    assert spread_metrics(bare_rollout(raw), 1) == {}


# ---------------------------------------------------------------------- rows of metrics


def added(averager: MetricAverager) -> MetricAverager:
    """Two iterations."""
    first = {"loss": torch.tensor(1.0), "x_max": torch.tensor(5.0), "updates": torch.tensor(3)}
    averager.add(first, [(2.0, 10)])
    averager.add({"loss": torch.tensor(2.0), "x_max": torch.tensor(4.0)}, [(4.0, 20), (6.0, 30)])
    return averager


def test_a_row_has_the_mean_of_each_number_over_the_iterations_that_had_it():
    averager = added(MetricAverager())
    averager.add({"now_and_then": torch.tensor(7)}, [])
    assert averager.values() == {
        "loss": 1.5,
        "x_max": 5.0,
        "now_and_then": 7.0,
        "train/return": 4.0,
        "train/length": 20.0,
        "train/episodes": 3,
    }
    averager.clear(96)
    assert averager.since == 96
    assert averager.values() == {"train/episodes": 0}


def test_a_loaded_row_goes_on_alike_and_its_state_is_a_snapshot():
    averager, loaded = added(MetricAverager()), MetricAverager()
    state = averager.state_dict()
    before = copy.deepcopy(state)
    loaded.load_state_dict(state)
    assert added(averager).values() == added(loaded).values()
    assert differences(state, before) == []


def test_numbers_are_kept_as_they_were():
    # An algorithm may log what it goes on with: a coefficient, say.
    averager, value = MetricAverager(), torch.tensor(1.0)
    averager.add({"schedule/kl_coefficient": value}, [])
    value.fill_(9.0)
    assert averager.values()["schedule/kl_coefficient"] == 1.0


def metrics(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def three_iterations(averager: MetricAverager) -> MetricAverager:
    """Note iterations, of which the second found no episode's end and skipped a loss."""
    averager.add(metrics(kl=1.0, loss=2.0, ratio_max=4.0), [(10.0, 4), (20.0, 5)])
    averager.add(metrics(kl=3.0, ratio_max=9.0), [])
    averager.add(metrics(kl=5.0, loss=5.0, ratio_max=6.0), [(60.0, 9)])
    return averager


# Each number is the mean over the iterations that had it, or the largest where its name asks for
# that; episodes count alike, whatever the iteration they ended in.
ROW = {
    "kl": 3.0,
    "loss": 3.5,
    "ratio_max": 9.0,
    "train/return": 30.0,
    "train/length": 6.0,
    "train/episodes": 3,
}


def test_a_row_is_about_all_iterations_since_the_last():
    averager = three_iterations(MetricAverager())
    assert averager.since == 0
    assert averager.values() == pytest.approx(ROW)
    averager.clear(32)
    assert averager.since == 32
    averager.add(metrics(kl=7.0), [])
    assert averager.values() == {"kl": 7.0, "train/episodes": 0}


def test_how_many_steps_an_optimiser_took_is_no_number_to_average():
    averager = MetricAverager()
    averager.add(metrics(kl=1.0, updates=40), [])
    assert averager.values() == {"kl": 1.0, "train/episodes": 0}


def test_a_number_that_is_lost_stays_lost_until_the_row_ends():
    averager = MetricAverager()
    for kl in (1.0, math.nan, 2.0):
        averager.add(metrics(kl=kl, ratio_max=kl), [])
    assert math.isnan(averager.values()["kl"])
    assert math.isnan(averager.values()["ratio_max"])
    averager.clear(24)
    averager.add(metrics(kl=4.0), [])
    assert averager.values()["kl"] == 4.0


def test_what_was_noted_is_a_copy():
    averager, numbers = MetricAverager(), metrics(kl=1.0)
    averager.add(numbers, [])
    numbers["kl"].fill_(100.0)
    averager.add(numbers, [])
    assert averager.values()["kl"] == 50.5
    assert numbers["kl"] == 100.0


def test_a_loaded_averager_goes_on_in_the_middle_of_a_row():
    averager, loaded = MetricAverager(), MetricAverager()
    averager.clear(32)
    three_iterations(averager)
    loaded.load_state_dict(copy.deepcopy(averager.state_dict()))
    assert loaded.since == 32
    assert loaded.values() == averager.values()
    before = averager.state_dict()
    for each in (averager, loaded):
        each.add(metrics(kl=0.1, loss=0.3, entropy=1.0), [(0.3, 2)])
    assert loaded.values() == averager.values()
    averager.clear(64)
    # A state is of its moment: what comes later does not change it.
    assert before["since"] == 32
    assert before["counts"] == {"kl": 3, "loss": 2, "ratio_max": 3}
    assert len(before["episodes"]) == 3
    assert before["totals"]["kl"] == 9.0
