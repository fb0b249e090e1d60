"""Alarms: each failure is said once, with its numbers, and what is no failure is not said."""

import re

import pytest
from running import PLAIN, experiment

from rlrun.runs import api
from rlrun.runs.language.alarms import ROWS, Alarms

GOOD = {
    "policy/entropy": 1.0,
    "train/length": 6.0,
    "train/return": 0.5,
    "train/outcome": 0.5,
    "groups/without_spread": 0.3,
}


def warnings(capsys, *stretches: dict[str, float], alarms: Alarms | None = None) -> list[str]:
    """What is said of stretches of rows, each of a usual row with some changes."""
    alarms = alarms or Alarms()
    for changes in stretches:
        for _ in range(2 * ROWS):
            now = {**GOOD, **changes}
            updates = now.pop("updates", 1)
            kept = {name: value for name, value in now.items() if value is not None}
            alarms.look(kept, updates=updates)
    return capsys.readouterr().err.splitlines()


CASES = {
    "entropy collapse: policy/entropy is 0.01, at first 1, and 50% of the answers": [
        {},
        {"policy/entropy": 0.01},
    ],
    "length drift: train/length is 1[0-9.]*, at first 6.0, and 5[0-2]% of the answers are right": [
        {},
        {"train/length": 18.5, "train/outcome": 0.52},
    ],
    "length drift: train/length is [0-9.]*, at first 6.0": [{}, {"train/length": 2.5}],
    "no group with a spread: groups/without_spread is 1 in 5 rows, with 10% of the answers": [
        {"groups/without_spread": 1.0, "train/outcome": 0.1},
    ],
    "no update in 5 rows, with 0% of the answers right": [
        {"updates": 0, "train/outcome": 0.0, "groups/without_spread": None},
    ],
    "nothing is paid: train/return is 0 in 5 rows": [
        {
            "train/outcome": 0.0,
            "train/return": 0.0,
            "groups/without_spread": None,
            "policy/kl": 0.01,
        },
    ],
    "train/return rose from 0.6 to 0.[67][0-9]* while train/outcome fell from 0.6 to 0.[45]": [
        {},
        {"train/return": 0.6, "train/outcome": 0.6},
        {"train/return": 0.7, "train/outcome": 0.4},
    ],
}


@pytest.mark.parametrize(("message", "stretches"), CASES.items(), ids=[c[:14] for c in CASES])
def test_each_is_said_once_with_its_numbers(message, stretches, capsys):
    said = warnings(capsys, *stretches, stretches[-1])
    assert len(said) == 1
    assert re.search(message, said[0])


@pytest.mark.parametrize(
    "stretches",
    [
        [{}, {}],
        [{}, {"policy/entropy": 0.01, "train/outcome": 0.95, "train/return": 0.95}],  # solved
        [{}, {"train/length": 14.0, "train/outcome": 0.7, "train/return": 0.7}],  # learned
        [{}, {"groups/without_spread": 1.0, "train/outcome": 1.0}],
        [{}, {"groups/without_spread": 0.99}],
        [{}, {"train/return": 0.3, "train/outcome": 0.3}],  # both fell
        [{}, {"train/return": 0.7}],
        [{"groups/without_spread": None}],
        # A teacher's answers are learned from, whatever they are paid.
        [{"train/outcome": 0.0, "train/return": 0.0, "groups/without_spread": None}],
    ],
)
def test_what_is_no_failure_is_not_said(stretches, capsys):
    assert warnings(capsys, *stretches) == []


def test_one_row_is_no_reason(capsys):
    alarms = Alarms()
    for n in range(20):
        alarms.look({**GOOD, "policy/entropy": 0.01 if n == 12 else 1.0}, updates=n)
    assert capsys.readouterr().err == ""


def test_rows_without_some_of_the_numbers_are_looked_at_for_the_others(capsys):
    few = {"train/outcome": 0.5, "train/length": 6.0}
    alarms = Alarms()
    for _ in range(ROWS):
        alarms.look(few, updates=1)
    for _ in range(ROWS):
        alarms.look({**few, "train/length": 20.0}, updates=1)
    alarms.look({"speed/steps_per_s": 1.0}, updates=1)
    assert "length drift" in capsys.readouterr().err


def test_a_resumed_run_knows_what_was_at_first_and_what_was_said(capsys):
    alarms = Alarms()
    warnings(capsys, {}, {"policy/entropy": 0.01}, alarms=alarms)
    resumed = Alarms()
    resumed.load_state_dict(alarms.state_dict())
    said = warnings(capsys, {"policy/entropy": 0.01, "train/length": 20.0}, alarms=resumed)
    assert len(said) == 1
    assert re.search("train/length is [0-9.]*, at first 6.0", said[0])


def test_a_run_looks_at_its_rows(tmp_path, capsys):
    # Whole copies are never right by chance, so that the groups of an exact reward all tie.
    words = ("model.width=8", "model.heads=2", "algo.num_envs=8", "total_steps=600")
    api.train(
        experiment(
            [
                "algo=grpo",
                "env=copy",
                "env.reward=exact",
                *PLAIN,
                *words,
                f"run_dir={tmp_path / 'run'}",
            ]
        )
    )
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len([line for line in said if "no group with a spread" in line]) == 1


@pytest.mark.parametrize("algo", ["rft", "reinforce"])
def test_a_run_that_learns_nothing_says_so(algo, tmp_path, capsys):
    words = ("model.width=8", "model.heads=2", "algo.num_envs=8", "total_steps=600")
    task = ("env=copy", "env.shortest=6", "env.reward=exact")
    api.train(experiment([f"algo={algo}", *task, *PLAIN, *words, f"run_dir={tmp_path / 'run'}"]))
    said = capsys.readouterr().err
    expected = {"rft": "no update in 5 rows", "reinforce": "nothing is paid"}[algo]
    assert said.count(expected) == 1
    assert ("has taken no update" in said) is (algo == "rft")
