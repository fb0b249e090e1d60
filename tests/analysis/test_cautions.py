"""What has to be said of a comparison, and what has not."""

import math
from dataclasses import replace

import pytest
from made_runs import made_run, seeds

from rlrun.analysis.cautions import cautions, listed
from rlrun.analysis.comparison import compare

FEW = "no interval under 3 seeds: "


def said(*runs, **options):
    return cautions(compare([run for some in runs for run in some], **options))


def test_equal_runs_need_no_caution():
    assert said(seeds("ppo", [1, 2, 3]), seeds("sac", [1, 2, 3])) == []


def test_what_was_left_out_is_named_with_the_reason():
    unfinished = made_run("sac", seed=3, status="interrupted", step=20)
    lost = made_run("sac", seed=4, returns=(0, math.inf, 1))
    lines = said(seeds("ppo", [1, 2, 3]), [unfinished, lost])
    assert lines == [
        "left out: outputs/sac_hopper_s3 is interrupted at step 20 of 1,000; "
        "outputs/sac_hopper_s4 has an evaluation that is not finite"
    ]


def test_runs_that_were_left_out_for_one_reason_share_its_words():
    short = seeds("sac", [1, 2, 3, 4], total_steps=500)
    unfinished = made_run("ppo", seed=5, status="failed", step=20, returns=(0,))
    lost = made_run("td3", seed=6, returns=(0, math.inf, 1))
    (line, *_) = said(seeds("ppo", [1, 2, 3]), short, [unfinished, lost], steps=1000)
    assert line == (
        "left out: 5 runs, each of which is not as long as 1,000 steps: outputs/sac_hopper_s0, "
        "outputs/sac_hopper_s1 and 3 more; "
        "outputs/td3_hopper_s6 has an evaluation that is not finite"
    )


def test_a_finished_run_that_lost_its_last_evaluation_is_named():
    torn = made_run("sac", seed=3, returns=(0, 50, 100))
    torn = replace(torn, step=1100, total_steps=1100)  # the evaluation there is gone
    line = (
        "sac on Hopper-v5: finished, but the evaluation at the end is missing in metrics.jsonl: "
        "outputs/sac_hopper_s3"
    )
    assert line in said(seeds("sac", [1, 2, 3]), [torn])
    assert not any("missing" in line for line in said(seeds("sac", [1, 2, 3]), [torn], steps=1000))
    # It is as long as 1,100 steps: of the last hundred nothing is known.
    (line, *_) = said(seeds("sac", [1, 2, 3], total_steps=1100), [torn], steps=1100)
    assert line == (
        "left out: outputs/sac_hopper_s3 is finished, but its metrics end before 1,100 steps"
    )


def test_other_versions_of_an_environment():
    lines = said(seeds("ppo", [1, 2, 3]), seeds("ppo", [1, 2, 3], env_id="Hopper-v4"))
    assert lines == ["Hopper-v5 and Hopper-v4 are different tasks, whose returns do not compare"]
    assert said(seeds("ppo", [1, 2, 3]), seeds("ppo", [1, 2, 3], env="walker2d")) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"settings": {"evaluation.episodes": 5}},
            "unequal episodes of an evaluation: 10 (ppo), 5",
        ),
        ({"settings": {"evaluation.max_length": 5}}, "unequal lengths of an episode of an "),
        (
            {"settings": {"evaluation.every_steps": 5}},
            "unequal steps between evaluations: 100 (ppo)",
        ),
        ({"commit": "fedcba9876"}, "unequal code: abcdef0 (ppo), fedcba9 (sac)"),
        ({"commit": "abcdef0123+changes"}, "unequal code: abcdef0 (ppo), abcdef0+changes (sac)"),
        ({"versions": {"torch": "3"}}, "unequal versions of torch: 2.13.0 (ppo), 3 (sac)"),
        (
            {"host": "other"},
            "times are of unequal machines (processor; device; threads): vm; cpu; 1",
        ),
        (
            {"settings": {"hardware.device": "cuda"}},
            "times are of unequal machines (processor; dev",
        ),
        ({"settings": {"hardware.threads": 2}}, "times are of unequal machines (processor; device"),
    ],
)
def test_what_should_be_equal_and_is_not(changes, line):
    (found,) = said(seeds("ppo", [1, 2, 3]), seeds("sac", [1, 2, 3], **changes))
    assert found.startswith(f"Hopper-v5: {line}")
    assert "(sac)" in found


def test_the_usual_interval_written_out_is_no_difference():
    usual = {"evaluation.every_steps": 100}  # a tenth of the steps
    assert said(seeds("ppo", [1, 2, 3]), seeds("sac", [1, 2, 3], settings=usual)) == []


def test_what_nobody_wrote_down_is_no_difference():
    unknown = {"commit": None, "host": None, "versions": {}}
    assert said(seeds("ppo", [1, 2, 3]), seeds("sac", [1, 2, 3], **unknown)) == []


def test_unequal_budgets_and_their_remedy():
    longer = seeds("sac", [1, 2, 3], total_steps=2000)
    short = seeds("ppo", [1, 2, 3])
    assert (
        "Hopper-v5: unequal budgets in steps (--steps N compares at a common one): "
        "1,000 (ppo), 2,000 (sac)"
    ) in said(short, longer)
    assert not any("budget" in line for line in said(short, longer, steps=1000))


def test_tasks_that_share_a_caution_share_its_line():
    def both(env):
        return [*seeds("ppo", [1, 2, 3], env), *seeds("sac", [1, 2, 3], env, commit="fedcba9876")]

    (line,) = said(both("hopper"), both("walker2d"))
    assert line.startswith("Hopper-v5, Walker2d-v5: unequal code: ")


def test_values_that_were_chosen_on_reported_seeds():
    tuned = [replace(run, tuned_on=[1, 2, 9]) for run in seeds("ppo", [1, 2, 3])]
    assert said(tuned) == ["ppo on Hopper-v5: values were chosen on seeds of this table: 1, 2"]
    assert said([replace(run, tuned_on=[9]) for run in tuned]) == []


def test_the_same_seed_twice():
    twice = [*seeds("ppo", [1, 2, 3]), made_run(seed=1, source="elsewhere")]
    assert said(twice) == ["ppo on Hopper-v5: more than one run of seed 1"]


def test_unequal_seeds():
    lines = said(seeds("ppo", [1, 2, 3]), seeds("sac", [1, 2, 3, 4]))
    assert lines == ["Hopper-v5: unequal seeds: 0, 1, 2 (ppo); 0, 1, 2, 3 (sac)"]


def test_too_few_seeds_have_no_interval_and_it_is_said():
    assert f"{FEW}sac on Hopper-v5 (2)" in said(seeds("ppo", [1, 2, 3]), seeds("sac", [1, 2]))


def test_a_method_on_a_single_task_is_not_in_statistics_over_tasks():
    both = [*seeds("ppo", [1, 2, 3]), *seeds("ppo", [1, 2, 3], "walker2d")]
    (line,) = said(both, seeds("sac", [1, 2, 3]))
    assert line == "sac on Hopper-v5: no other task, and so not in what is over tasks"
    assert said(both, seeds("sac", [1, 2, 3]), seeds("sac", [1, 2, 3], "walker2d")) == []


def test_what_the_user_put_together():
    runs = [*seeds("ppo", [1, 2, 3]), *seeds("ppo", [1, 2, 3], settings={"algo.gamma": 0.9})]
    lines = said(runs, by=["algo"])
    assert "ppo on Hopper-v5: pools runs that differ in algo.gamma (0.99, 0.9)" in lines
    assert not any("pools" in line for line in said(runs))


def test_long_lists_end_in_a_number():
    assert listed("abc") == "a, b, c"
    assert listed(map(str, range(10))) == "0, 1, 2, 3, 4, 5 and 4 more"


def test_a_setting_of_any_kind_is_written(tmp_path):
    # Somebody else's config has not been checked.
    for value in ("x", [1], {"a": 1}, -3, 0.5):
        odd = seeds("sac", [1, 2, 3], settings={"evaluation.every_steps": value})
        (line,) = said(seeds("ppo", [1, 2, 3]), odd)
        assert "unequal steps between evaluations" in line
