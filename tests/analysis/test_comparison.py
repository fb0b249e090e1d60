"""Figures of methods, by hand."""

import math

import numpy as np
import pytest
from made_runs import made_run, seeds

from rlrun.analysis.comparison import compare, interval_of, median
from rlrun.analysis.stored_runs import Evaluations
from rlrun.errors import UserError

PPO = ("Hopper-v5", "ppo")


def curve(steps, returns, seconds=None):
    seconds = np.full(len(steps), math.nan) if seconds is None else np.array(seconds, float)
    spreads = np.full(len(steps), math.nan)
    return Evaluations(np.array(steps, float), seconds, np.array(returns, float), spreads)


def test_figures_by_hand():
    (row,) = compare(seeds("ppo", [10, 20, 30, 40, 90])).figures.values()
    assert row.seeds == [0, 1, 2, 3, 4]
    assert row.finals.tolist() == [10, 20, 30, 40, 90]
    assert row.mean == 38.0
    assert row.deviation == pytest.approx(np.std([10, 20, 30, 40, 90], ddof=1))
    assert row.iqm == 30.0
    assert row.best == 38.0
    assert row.area == pytest.approx(19.0)  # a straight line from 0
    assert row.minutes == 0.5
    assert row.steps == (1000, 1000)
    low, high = row.interval
    assert 10 < low < 30 < high < 90


def test_runs_are_in_the_order_of_their_seeds():
    runs = [made_run(seed=seed, returns=(0, seed)) for seed in (12, 3, 7)]
    row = compare(runs).figures[PPO]
    assert row.seeds == [3, 7, 12]
    assert row.finals.tolist() == [3, 7, 12]


def test_the_best_is_not_the_last():
    assert compare([made_run(returns=(0, 90, 10))]).figures[PPO].best == 90.0


def test_the_area_weighs_by_steps():
    # 0 to 100 over the first tenth, then 100.
    run = made_run(evaluations=curve([0, 100, 1000], [0, 100, 100]))
    assert compare([run]).figures[PPO].area == pytest.approx((5_000 + 90_000) / 1000)
    single = made_run(evaluations=curve([1000], [7]))
    assert compare([single]).figures[PPO].area == 7.0


@pytest.mark.parametrize("count", [1, 2])
def test_there_is_no_interval_under_three_seeds(count):
    row = compare(seeds("ppo", [1.0] * count)).figures[PPO]
    assert row.interval is None
    assert math.isnan(row.deviation) == (count == 1)
    assert interval_of(np.arange(3.0)) is not None


def test_the_same_runs_have_the_same_intervals():
    runs = seeds("ppo", [10, 20, 30, 40, 90])
    one, other = compare(runs).figures[PPO], compare(runs[::-1]).figures[PPO]
    assert one.interval == other.interval


# ---------------------------------------------------------------------- what stands out


def standing_out(*runs):
    figures = compare([run for some in runs for run in some]).figures
    return [row.method for row in figures.values() if row.stands_out]


def test_what_lies_above_all_others_stands_out():
    high, low = seeds("sac", [90, 91, 92]), seeds("ppo", [10, 11, 12])
    assert standing_out(high, low) == ["sac"]
    assert standing_out(high, low, seeds("td3", [91, 92, 93])) == []  # overlaps with the best
    assert standing_out(high, low, seeds("td3", [80, 81, 82])) == ["sac"]


def test_nothing_stands_out_alone_or_beside_what_has_no_interval():
    high = seeds("sac", [90, 91, 92])
    assert standing_out(high) == []
    assert standing_out(high, seeds("ppo", [10, 11])) == []
    assert standing_out(seeds("ppo", [10, 11, 12]), seeds("sac", [90, 91])) == []


def test_equal_ends_are_no_difference():
    assert standing_out(seeds("sac", [5, 5, 5]), seeds("ppo", [5, 5, 5])) == []


# ---------------------------------------------------------------------- thresholds


def test_when_a_return_was_reached():
    runs = [
        made_run(seed=0, returns=(0, 50, 100)),  # at step 500, after 10 s
        made_run(seed=1, returns=(0, 10, 50)),  # 1000, 20 s
        made_run(seed=2, returns=(60, 0, 0)),  # 0, 0 s
        made_run(seed=3, returns=(0, 0, 49)),  # never
    ]
    reached = compare(runs, thresholds={"": 50.0}).figures[PPO].reached
    assert (reached.threshold, reached.seeds) == (50.0, 3)
    assert (reached.steps, reached.minutes) == (1000.0, pytest.approx(20 / 60))


def test_what_half_of_the_seeds_never_reach_has_no_time():
    reached = compare(seeds("ppo", [10, 90]), thresholds={"": 50.0}).figures[PPO].reached
    assert reached.seeds == 1
    assert math.isinf(reached.steps)
    assert median([1, 2, math.inf]) == 2
    assert math.isnan(median([1, math.nan, 3]))


def test_minutes_are_unknown_where_nobody_wrote_them_down():
    run = made_run(evaluations=curve([0, 1000], [0, 100]))
    reached = compare([run], thresholds={"": 50.0}).figures[PPO].reached
    assert reached.steps == 1000.0
    assert math.isnan(reached.minutes)


def test_thresholds_are_gymnasiums_if_nobody_says_others():
    runs = [made_run(), made_run(env="cartpole"), made_run(env="mine", env_id="Mine-v0")]
    found = {row.task: row.reached for row in compare(runs).figures.values()}
    assert found["Hopper-v5"].threshold == 3800
    assert found["CartPole-v1"].threshold == 475
    assert found["Mine-v0"] is None


def test_thresholds_by_environment():
    runs = [made_run(), made_run(env="cartpole"), made_run(env="walker2d")]

    def thresholds(given):
        rows = compare(runs, thresholds=given).figures.values()
        return {row.task: row.reached and row.reached.threshold for row in rows}

    assert thresholds({"hopper": 3.0, "CartPole-v1": 4.0}) == {
        **{"Hopper-v5": 3.0, "CartPole-v1": 4.0, "Walker2d-v5": None}
    }
    assert thresholds({"": 1.0, "hopper": 3.0}) == {
        **{"Hopper-v5": 3.0, "CartPole-v1": 1.0, "Walker2d-v5": 1.0}
    }
    with pytest.raises(UserError, match=r"--threshold hoper: .*; did you mean 'hopper'?"):
        thresholds({"hoper": 3.0})


# ---------------------------------------------------------------------- what is compared


def test_only_what_has_ended_and_is_finite_is_compared():
    lost = made_run(seed=4, returns=(0, math.nan, 100))
    runs = [
        made_run(seed=0),
        *(made_run(seed=1 + n, status=s) for n, s in enumerate(["running", "killed", "failed"])),
        lost,
    ]
    found = compare(runs)
    assert found.figures[PPO].seeds == [0]
    reasons = {run.seed: reason for run, reason in found.left_out}
    assert reasons == {
        1: "is running at step 1,000 of 1,000",
        2: "is killed at step 1,000 of 1,000",
        3: "is failed at step 1,000 of 1,000",
        4: "has an evaluation that is not finite",
    }
    with pytest.raises(
        UserError, match="none of 1 runs can be compared: outputs/ppo_hopper_s4 has"
    ):
        compare([lost])


def test_a_common_budget_cuts_what_is_longer():
    long = made_run("ppo", total_steps=2000, returns=(0, 10, 20, 30, 40, 50, 60, 70, 80))
    short = made_run("sac", total_steps=1000, returns=(0, 5, 10, 15, 25))
    found = compare([long, short], steps=1000)
    assert found.figures[PPO].mean == 40.0
    assert found.figures["Hopper-v5", "sac"].mean == 25.0
    assert found.figures[PPO].best == 40.0
    assert found.figures[PPO].minutes == pytest.approx(40 / 60)
    assert found.steps == 1000


def test_an_evaluation_a_little_behind_a_budget_belongs_to_it():
    run = made_run(evaluations=curve([0, 500, 1010, 1049, 1500], [0, 1, 2, 3, 4]))
    assert compare([run], steps=1000).figures[PPO].mean == 2.0
    run = made_run(evaluations=curve([0, 950, 1051, 1500], [0, 1, 2, 3]))
    assert compare([run], steps=1000).figures[PPO].mean == 1.0


def test_a_run_that_was_stopped_counts_up_to_what_it_reached():
    killed = made_run(
        status="killed", total_steps=9000, evaluations=curve([0, 500, 1000], [1, 2, 3])
    )
    assert compare([killed], steps=1000).figures[PPO].mean == 3.0
    with pytest.raises(UserError, match="is not as long as 2,000 steps"):
        compare([killed], steps=2000)


def test_what_is_lost_behind_the_budget_does_no_harm():
    run = made_run(evaluations=curve([0, 500, 1000], [1, 2, math.nan]))
    assert compare([run], steps=500).figures[PPO].mean == 2.0


def test_a_run_without_a_figure_is_named():
    run = made_run(evaluations=curve([0, 500], [1, 2]))
    with pytest.raises(
        UserError, match=r"ppo_hopper_s0 has no evaluation in the last tenth of its"
    ):
        compare([run])
    # Beside others it is left out, and they are compared.
    whole = made_run(seed=1)
    both = compare([run, whole])
    assert both.runs == [whole]
    ((left, reason),) = both.left_out
    assert left == run
    assert reason.startswith("has no evaluation in the last tenth of its 1,000 steps")


def test_methods_without_a_task_in_common_are_nothing_to_compare():
    with pytest.raises(UserError, match=r"nothing to compare: .*ppo on Hopper-v5, sac on CartPole"):
        compare([made_run(), made_run("sac", "cartpole")])
    # One method is a table; so is a method that has a task more.
    assert len(compare([made_run(), made_run(env="cartpole")]).figures) == 2
    assert len(compare([made_run(), made_run("sac"), made_run("sac", "cartpole")]).figures) == 3


def test_numbers_are_those_of_json():
    numbers = compare([made_run()]).figures[PPO].numbers()
    assert (numbers["task"], numbers["method"], numbers["mean"]) == ("Hopper-v5", "ppo", 100.0)
    assert numbers["iqm_low"] is None
    assert numbers["std"] is None
    assert numbers["threshold"] == 3800
    assert numbers["threshold_steps"] is None
