import copy
import math

import pytest
import torch

from rlrun.learning.metrics import MetricAverager
from rlrun.runs.counters import Counters, Stopwatch


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


def test_the_clock_goes_on_from_the_counters():
    counters = Counters(time_s=100.0)
    stopwatch = Stopwatch(counters)
    with stopwatch.measure("time/collect_s"):
        pass
    stopwatch.tick()
    assert 100.0 < counters.time_s < 101.0
    phases = stopwatch.drain()
    assert phases.keys() == {"time/collect_s"}
    assert stopwatch.drain() == {}
