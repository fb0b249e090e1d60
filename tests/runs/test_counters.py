import math

import pytest

from rlrun.runs.counters import Counters


def test_a_state_goes_on_where_it_was():
    counters, later = Counters(step=64, last_return=7.0, last_std=0.5), Counters()
    later.load_state_dict(counters.state_dict())
    assert later == counters


def test_a_state_of_an_earlier_version_has_no_spread():
    state = Counters(step=64, last_return=7.0).state_dict()
    del state["last_std"]
    counters = Counters()
    counters.load_state_dict(state)
    assert counters.last_return == 7.0
    assert math.isnan(counters.last_std)


def test_the_state_of_something_else_is_refused():
    with pytest.raises(KeyError):
        Counters().load_state_dict({"last_std": 1.0})
