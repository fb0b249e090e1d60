import json
import shutil

import pytest
import same_numbers
import torch
from running import experiment
from safetensors.torch import save_file

from rlrun.config.files import conf_directory
from rlrun.runs.setup.assembly import Assembly

ROWS = [
    {"step": 64, "loss/policy": 0.5, "time/update_s": 1.0, "speed/steps_per_s": 9.0},
    {"step": 128, "loss/policy": None, "eval/return": 20.0, "time_s": 3.0},
]


@pytest.fixture
def run(tmp_path):
    """What is compared of a run: rows, and the weights of its newest checkpoint."""
    directory = tmp_path / "one"
    write_rows(directory, ROWS)
    for step, value in ((64, 1.0), (128, 2.0)):
        write_weights(directory, step, torch.full((3,), value))
    return directory


def write_rows(directory, rows):
    directory.mkdir(exist_ok=True)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_weights(directory, step, weight):
    checkpoint = directory / "checkpoints" / f"step-{step:012}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    save_file({"policy.weight": weight}, checkpoint / "weights.safetensors")


@pytest.fixture
def other(run):
    """The same once more, to be changed."""
    return shutil.copytree(run, run.with_name("other"))


def compare(run, other, *, tolerance=0.0, count=None):
    return same_numbers.compare(run, other, tolerance=tolerance, count=count)


def test_the_clock_is_not_compared(run, other):
    write_rows(other, [{**row, "time_s": 99.0, "time/update_s": 5.0} for row in ROWS])
    assert compare(run, other) == ""


def test_a_number_that_differs_is_named_with_its_row(run, other):
    write_rows(other, [ROWS[0], {**ROWS[1], "eval/return": 20.001}])
    assert compare(run, other) == "row 1: eval/return is 20.0 and 20.001"
    assert compare(run, other, tolerance=1e-3) == ""
    assert compare(run, other, count=1) == ""


def test_the_evaluation_before_the_first_step_is_not_compared(run, other):
    write_rows(other, [{"step": 0, "eval/return": 9.0}, *ROWS])
    assert compare(run, other) == ""


def test_numbers_that_changed_their_meaning_are_not_compared(run, other):
    write_rows(run, [{**row, "update": 1} for row in ROWS])
    write_rows(other, [{**row, "update": 9} for row in ROWS])
    assert compare(run, other) == "row 0: update is 1 and 9"
    ignored = same_numbers.changed(("algo=reinforce", "env=hopper"))
    assert same_numbers.compare(run, other, tolerance=0.0, count=None, ignored=ignored) == ""
    assert same_numbers.changed(("algo=ppo", "env=hopper")) == set()


def test_no_number_is_as_near_as_another(run, other):
    write_rows(other, [ROWS[0], {**ROWS[1], "loss/policy": 0.0}])
    assert compare(run, other, tolerance=1.0) == "row 1: loss/policy is None and 0.0"


def test_a_name_that_only_one_has_counts_where_all_has_to_be_the_same(run, other):
    write_rows(other, [ROWS[0], {**ROWS[1], "policy/kl": 0.0}])
    assert compare(run, other) == "row 1: only one has policy/kl"
    assert compare(run, other, tolerance=1e-9) == ""


def test_a_row_that_is_missing_is_told(run, other):
    write_rows(other, ROWS[:1])
    assert compare(run, other) == "2 rows and 1"


@pytest.mark.parametrize("weight", [torch.tensor([2.0, 2.0, 2.0001]), torch.full((4,), 2.0)])
def test_the_newest_weights_are_compared(run, other, weight):
    write_weights(other, 128, weight)
    assert compare(run, other) == "the weights differ"
    assert compare(run, other, count=2) == ""  # rows alone


def test_a_network_that_only_one_has_is_told(run, other):
    checkpoint = other / "checkpoints" / f"step-{128:012}"
    weights = {"policy.weight": torch.full((3,), 2.0), "value.weight": torch.zeros(1)}
    save_file(weights, checkpoint / "weights.safetensors")
    assert compare(run, other) == "the weights differ"


def test_older_weights_are_not_compared(run, other):
    write_weights(other, 64, torch.zeros(3))
    assert compare(run, other) == ""


def test_the_tolerance_is_relative_to_the_larger_of_the_number_and_one():
    near = same_numbers.near
    assert near(1e-9, 0.0, 1e-6)
    assert near(1_000_000.0, 1_000_000.5, 1e-6)
    assert not near(1.0, 1.00001, 1e-6)
    assert not near(1e-9, 0.0, 0.0)
    assert near(None, None, 0.0)
    assert not near(None, 0.0, 1.0)


def test_every_algorithm_and_every_estimator_is_among_the_cases():
    words = {word for case in same_numbers.cases() for word in case}
    for path in (conf_directory() / "algo").glob("*.yaml"):
        assert f"algo={path.stem}" in words or path.stem in same_numbers.FROM_ANOTHER_RUN
    named = {word.partition("=")[2] for word in words if word.startswith("advantage=")}
    brought = {
        line.rpartition(" ")[2]
        for path in (conf_directory() / "algo").glob("*.yaml")
        for line in path.read_text().splitlines()
        if "/advantage@" in line
    }
    estimators = {path.stem for path in (conf_directory() / "advantage").glob("*.yaml")}
    assert estimators <= named | brought


@pytest.mark.parametrize("words", [case for case in same_numbers.cases() if len(case) > 3])
def test_few_updates_are_a_whole_number(words):
    Assembly(experiment([*words, *same_numbers.PLAIN]), checkpoint=None).close()
