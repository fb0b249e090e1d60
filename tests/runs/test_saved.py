"""Runs as a notebook looks at them: what is read of a directory, somebody else's perhaps."""

import json
import math
import os
import shutil

import numpy as np
import pytest
from running import experiment, record, small

import rlrun
from rlrun.errors import UserError
from rlrun.runs import api
from rlrun.runs.files.directory import lock
from rlrun.runs.saved import SavedRun


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "run"
    words = ["total_steps=192", "evaluation.every_steps=64", f"run_dir={directory}"]
    api.train(experiment(small("cartpole", *words)))
    return directory


@pytest.fixture
def copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy", symlinks=True)


def test_everything_that_is_asked_of_a_run(run):
    (saved,) = rlrun.runs(run.parent)
    assert saved.name == "run"
    assert saved.status == "finished"
    assert saved.standing.error is None
    assert saved.step == 192
    now = record(run)
    assert saved.final_return == now["final_return"]
    assert saved.best_return == now["best_return"]
    assert saved.record == now
    assert saved.config["algo"]["gamma"] == 0.99
    last = f"{now['return']:,.1f} ± {now['return_std']:,.1f}"
    assert repr(saved) == (
        f"<run {run}: finished, 192 steps, return {now['final_return']:,.1f}, "
        f"last evaluation {last}>"
    )


def test_metrics_are_columns_with_one_row_a_step(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = SavedRun(run).metrics
    assert metrics["step"].tolist() == [0, 64, 128, 192]
    assert metrics["step"].dtype == np.int64
    names = {name for line in lines for name in line}
    assert metrics.keys() == names
    assert {len(values) for values in metrics.values()} == {4}
    for line in lines:
        row = metrics["step"].tolist().index(line["step"])
        for name in line:
            if name not in ("time_s", "update"):  # of the later line of two
                value = math.nan if line[name] is None else line[name]
                np.testing.assert_equal(metrics[name][row], value)
    assert np.isnan(metrics["loss/policy"][0])
    evaluations = SavedRun(run).evaluations
    assert evaluations["step"].tolist() == [0, 64, 128, 192]
    np.testing.assert_array_equal(evaluations["return"], metrics["eval/return"])


def test_a_run_before_its_first_evaluation(copied):
    (copied / "metrics.jsonl").write_text("")
    assert SavedRun(copied).metrics == {}
    assert {len(values) for values in SavedRun(copied).evaluations.values()} == {0}


def test_whether_it_runs_or_was_killed(copied):
    now = {**record(copied), "status": "running"}
    (copied / "run.json").write_text(json.dumps(now))
    assert SavedRun(copied).status == "killed"
    with lock(copied):
        assert SavedRun(copied).status == "running"


SPOILT = {
    "run.json": ("{", "cannot be read"),
    "config.yaml": ("a: [", "cannot be read"),
    "metrics.jsonl": ('{"step": 1}\n{\n{"step": 2}\n', "metrics.jsonl, line 2"),
}
READ = {"run.json": "status", "config.yaml": "config", "metrics.jsonl": "metrics"}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_is_one_line(copied, name):
    text, message = SPOILT[name]
    (copied / name).write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        getattr(SavedRun(copied), READ[name])
    assert "\n" not in str(raised.value)
    repr(SavedRun(copied))


@pytest.mark.parametrize("value", ["x", [], True, -1, 1e400])
def test_a_record_with_another_kind_of_value_is_one_line(copied, value):
    (copied / "run.json").write_text(json.dumps({**record(copied), "step": value}))
    with pytest.raises(UserError, match="step"):
        _ = SavedRun(copied).step
    assert repr(SavedRun(copied)) == f"<run {copied}: unreadable>"


@pytest.mark.parametrize("name", READ)
def test_a_link_or_a_pipe_is_not_followed(copied, tmp_path, name):
    for make in (lambda path: path.symlink_to("/etc/passwd"), os.mkfifo):
        (copied / name).unlink()
        make(copied / name)
        with pytest.raises(UserError):
            getattr(SavedRun(copied), READ[name])


def test_nothing_of_a_run_is_resolved_or_imported(copied):
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(text.replace("gamma: 0.99", "gamma: ${oc.env:HOME}"))
    assert SavedRun(copied).config["algo"]["gamma"] == "${oc.env:HOME}"
    (copied / "config.yaml").write_text(text + "\nmore: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UserError, match="a value of type"):
        _ = SavedRun(copied).config
