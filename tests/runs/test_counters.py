import copy
import math

import pytest
import torch

from rlrun.learning.metrics import Ledger
from rlrun.runs.counters import Counters, Stopwatch


def metrics(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def three_iterations(ledger: Ledger) -> Ledger:
    """Note iterations, of which the second found no episode's end and skipped a loss."""
    ledger.add(metrics(kl=1.0, loss=2.0, ratio_max=4.0), [(10.0, 4), (20.0, 5)], steps=8)
    ledger.add(metrics(kl=3.0, ratio_max=9.0), [], steps=16)
    ledger.add(metrics(kl=5.0, loss=5.0, ratio_max=6.0), [(60.0, 9)], steps=8)
    return ledger


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
    ledger = three_iterations(Ledger())
    assert ledger.steps == 32
    assert ledger.values() == pytest.approx(ROW)
    ledger.clear()
    assert ledger.steps == 0
    ledger.add(metrics(kl=7.0), [], steps=8)
    assert ledger.values() == {"kl": 7.0, "train/episodes": 0}


def test_a_number_that_is_lost_stays_lost_until_the_row_ends():
    ledger = Ledger()
    for kl in (1.0, math.nan, 2.0):
        ledger.add(metrics(kl=kl), [], steps=8)
    assert math.isnan(ledger.values()["kl"])


def test_what_was_noted_is_a_copy():
    ledger, numbers = Ledger(), metrics(kl=1.0)
    ledger.add(numbers, [], steps=8)
    numbers["kl"].fill_(100.0)
    ledger.add(numbers, [], steps=8)
    assert ledger.values()["kl"] == 50.5
    assert numbers["kl"] == 100.0


def test_a_loaded_ledger_goes_on_in_the_middle_of_a_row():
    ledger, loaded = three_iterations(Ledger()), Ledger()
    loaded.load_state_dict(copy.deepcopy(ledger.state_dict()))
    assert loaded.steps == 32
    assert loaded.values() == ledger.values()
    before = ledger.state_dict()
    for each in (ledger, loaded):
        each.add(metrics(kl=0.1, loss=0.3, entropy=1.0), [(0.3, 2)], steps=8)
    assert loaded.values() == ledger.values()
    # A state is of its moment: what comes later does not change it.
    assert before["steps"] == 32
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
