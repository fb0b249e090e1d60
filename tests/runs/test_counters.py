from rlrun.runs.counters import Counters, Stopwatch


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
