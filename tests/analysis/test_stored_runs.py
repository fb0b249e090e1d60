"""Runs read back from their files, and from archives."""

import dataclasses
import json
import math
import os

import numpy as np
import pytest
from made_runs import made_run, write_run
from running import experiment, metrics, record, small

from rlrun.analysis.sources import archive_text, read_archive
from rlrun.analysis.stored_runs import (
    LONGEST_LINE,
    Evaluations,
    flatten,
    from_json,
    read_evaluations,
    read_run,
)
from rlrun.errors import UserError
from rlrun.runs import api
from rlrun.runs.files.directory import lock


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that rlrun made."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    words = [
        *("total_steps=640", "evaluation.every_steps=64", "evaluation.max_length=17"),
        f"run_dir={directory}",
    ]
    api.train(experiment(small("cartpole", *words)))
    return directory


@pytest.fixture
def run(tmp_path):
    """The files of a finished run, to be changed."""
    return write_run(made_run(), tmp_path / "run")


def assert_same(run, other):
    """Check that two runs have the same fields."""
    for field in dataclasses.fields(run):
        one, two = getattr(run, field.name), getattr(other, field.name)
        if isinstance(one, Evaluations):
            for column in dataclasses.fields(Evaluations):
                np.testing.assert_array_equal(getattr(one, column.name), getattr(two, column.name))
        else:
            assert one == two, field.name


# ---------------------------------------------------------------------- directories


def test_a_run_is_what_its_files_say(trained):
    run, said = read_run(trained), record(trained)
    evaluated = [row for row in metrics(trained) if "eval/return" in row]
    assert len(evaluated) == 11
    assert run.evaluations.steps.tolist() == [row["step"] for row in evaluated]
    assert run.evaluations.returns.tolist() == [row["eval/return"] for row in evaluated]
    assert run.evaluations.spreads.tolist() == [row["eval/return_std"] for row in evaluated]
    assert np.all(np.diff(run.evaluations.seconds) > 0)
    assert run.final_return == said["final_return"]
    assert said["return_std"] == evaluated[-1]["eval/return_std"]
    assert (run.status, run.seed, run.step, run.total_steps) == ("finished", 0, 640, 640)
    assert run.choices == {
        **{"algo": "ppo", "env": "cartpole", "advantage": "gae"},
        **{"collector": "segments", "model": "mlp", "hardware": "cpu"},
    }
    assert run.env_id == "CartPole-v1"
    assert run.settings["algo.gamma"] == 0.99
    assert run.settings["evaluation.max_length"] == 17
    assert "total_steps=640" in run.overrides
    assert run.commit == said["git_commit"]
    assert run.cpu == said["cpu"]
    assert run.versions["torch"] == said["versions"]["torch"]


def test_the_files_that_tests_write_are_read_back(tmp_path):
    wanted = made_run(seed=3, settings={"algo.clip": math.inf, "model.hidden_sizes": [64, 64]})
    found = read_run(write_run(wanted, tmp_path / "run"))
    assert_same(dataclasses.replace(found, source=wanted.source), wanted)


def test_a_run_whose_process_is_gone_was_killed(tmp_path):
    directory = write_run(made_run(status="running", step=300), tmp_path / "run")
    assert read_run(directory).status == "killed"
    with lock(directory):
        assert read_run(directory).status == "running"


def test_a_run_that_has_just_begun_has_no_evaluations(run):
    (run / "metrics.jsonl").unlink()
    assert len(read_run(run).evaluations) == 0
    assert math.isnan(read_run(run).final_return)


def test_a_run_that_converged_ends_where_it_did():
    run = made_run(total_steps=1000, step=50, evaluations=curve([0, 25, 50], [1, 2, 3]))
    assert (run.last_step, run.final_return) == (50, 3.0)


def curve(steps, returns):
    nothing = np.full(len(steps), math.nan)
    return Evaluations(np.array(steps, float), nothing, np.array(returns, float), nothing)


def test_settings_are_flat():
    config = {"a": {"b": {"c": 1}, "d": [1, {"e": 2}], "f": {}}, "g": None}
    flat = {"a.b.c": 1, "a.d": [1, {"e": 2}], "a.f": {}, "g": None}
    assert flatten(config) == flat


# ---------------------------------------------------------------------- metrics.jsonl

GOOD = '{"step": 0, "time_s": 1.5, "eval/return": 7.0, "eval/return_std": 0.5}\n'


@pytest.mark.parametrize("last", ["", '{"step": 64, "eval/ret', '{"step"', "\x00\x00"])
def test_a_torn_last_line_is_passed_over(tmp_path, last):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{GOOD}{{"step": 32, "train/return": 1.0}}\n{last}')
    found = read_evaluations(path)
    assert found.steps.tolist() == [0.0]
    assert (found.seconds[0], found.returns[0], found.spreads[0]) == (1.5, 7.0, 0.5)


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 64, "eval/return": 1.0',
        '{"step": 64, "eval/return": x}',
        '{"step": 64, "loss/pol{"step": 96, "loss/policy": 1.0}',
        '{"step": 64, "loss/policy": 1.0',
        '"step": 64}',
        '{"eval/return": 1.0}',
        '{"step": "x", "eval/return": 1.0}',
        '{"step": 64, "eval/return": []}',
        '{"step": 64, "eval/return": 1' + "0" * 400 + "}",
        '["eval/return"]',
        "\x00\x00\x00\x00",
        "",
        "x" * (LONGEST_LINE + 5),
        '{"step": 64, "a": ' + "[" * 50_000,
    ],
)
def test_a_broken_line_in_the_middle_is_named(run, line):
    (run / "metrics.jsonl").write_text(f"{GOOD}{line}\n{GOOD}")
    with pytest.raises(UserError) as caught:
        read_run(run)
    message = str(caught.value)
    assert message.startswith(f"{run} is not a run that can be read: metrics.jsonl, line 2: ")
    assert "\n" not in message


def test_a_return_that_is_not_finite_is_read_as_such(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "eval/return": null}\n{"step": 1, "eval/return": 1}\n')
    found = read_evaluations(path)
    assert math.isnan(found.returns[0])
    assert found.returns[1] == 1.0
    assert np.isnan(found.seconds).all()


def test_steps_that_go_backwards_are_no_run(run):
    (run / "metrics.jsonl").write_text(GOOD.replace("0,", "64,", 1) + GOOD)
    with pytest.raises(UserError, match="the evaluations' steps go backwards"):
        read_run(run)


# ---------------------------------------------------------------------- somebody else's


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "overrides.yaml", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_one_line(run, name, kind):
    path = run / name
    path.unlink()
    make = {"link": lambda p: p.symlink_to("/etc/passwd"), "pipe": os.mkfifo, "folder": os.mkdir}
    make[kind](path)
    with pytest.raises(UserError, match="is not a run that can be read: ") as caught:
        read_run(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": "x"}, "run.json.seed: expected a whole number, got 'x'"),
        ({"total_steps": 0}, "run.json.total_steps must be at least 1, got 0"),
        ({"status": "well"}, "run.json.status: expected one of"),
        ({"env_id": None}, "run.json.env_id: expected text, got null"),
        ({"versions": 3}, "run.json.versions: expected a mapping, got 3"),
        ({"time_s": math.inf}, "run.json.time_s must be"),
        ({"algo": 3}, "run.json.choices.algo: expected text, got 3"),
    ],
)
def test_a_record_of_something_else_is_one_line(run, changes, message):
    content = {**json.loads((run / "run.json").read_text()), **changes}
    (run / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_run(run)


def test_the_seeds_that_values_were_chosen_on_are_the_configs(run):
    config = (run / "config.yaml").read_text()
    assert "tuned_on" not in config
    assert read_run(run).tuned_on == []
    (run / "config.yaml").write_text(f"{config}tuned_on: [3]\n")
    assert read_run(run).tuned_on == [3]
    (run / "config.yaml").write_text(f"{config}tuned_on: [a]\n")
    with pytest.raises(UserError, match=r"tuned_on\[0\]: expected a whole number, got 'a'"):
        read_run(run)


def test_an_interpolation_stays_text(run, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    text = (run / "config.yaml").read_text().replace("cpu", "${oc.env:SECRET}")
    (run / "config.yaml").write_text(text)
    assert read_run(run).settings["hardware.device"] == "${oc.env:SECRET}"


# ---------------------------------------------------------------------- archives


def test_an_archive_holds_runs_whole(tmp_path, trained):
    runs = [
        read_run(trained),
        made_run(
            seed=7,
            commit=None,
            started=None,
            tuned_on=[7],
            settings={"algo.clip": math.inf, "algo.low": -math.inf, "env.options.a": [1, [".5"]]},
            evaluations=curve([0, 1000], [1.0, math.nan]),
        ),
    ]
    path = tmp_path / "archive.json"
    path.write_text(archive_text(runs, cautions=["a"]))
    for run, back in zip(runs, read_archive(path), strict=True):
        assert_same(run, back)
    # Any reader of JSON can have it: no NaN and no Infinity.
    content = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))
    assert content["runs"][1]["evaluations"]["returns"] == [1.0, None]
    assert content["cautions"] == ["a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluations": None}, "runs.0..evaluations: expected a mapping, got null"),
        ({"evaluations": {"steps": []}}, "runs.0..evaluations: expected steps, seconds, returns"),
        ({"evaluations": "unequal"}, "runs.0..evaluations: expected .* of equal lengths"),
        ({"settings": []}, "runs.0..settings: expected a mapping"),
        ({"choices": {}}, "runs.0.: algo is missing"),
        ({"seed": -1}, "runs.0..seed must be at least 0"),
        ({"sead": 1}, "runs.0..sead: no such setting; did you mean 'runs.0..seed'?"),
    ],
)
def test_a_damaged_archive_is_one_line(tmp_path, changes, message):
    content = made_run().to_json()
    if changes["evaluations" if "evaluations" in changes else next(iter(changes))] == "unequal":
        changes = {"evaluations": {**content["evaluations"], "steps": [0.0]}}
    path = tmp_path / "archive.json"
    path.write_text(json.dumps({"runs": [{**content, **changes}]}))
    with pytest.raises(UserError, match=f"is neither a run's directory nor an archive: {message}"):
        read_archive(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"runs": 3}', '{"runs": [3]}', "\x00"])
def test_what_is_no_archive_is_one_line(tmp_path, text):
    path = tmp_path / "archive.json"
    path.write_text(text)
    with pytest.raises(UserError, match="is neither a run's directory nor an archive") as caught:
        read_archive(path)
    assert "\n" not in str(caught.value)


def test_from_json_says_what_it_found():
    with pytest.raises(UserError, match="here: expected a mapping, got 3"):
        from_json(3, "here")
