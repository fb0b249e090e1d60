"""Runs at W&B, from the offline files that rlrun's own logger writes."""

import dataclasses
import os

import numpy as np
import pytest
import wandb
import wandb_file
from running import experiment, small

from rlrun.analysis import wandb_runs
from rlrun.analysis.comparison import compare
from rlrun.analysis.stored_runs import read_run
from rlrun.analysis.wandb_runs import parse, read, stored_run
from rlrun.errors import UserError
from rlrun.runs import api

SOURCE = "https://wandb.ai/team/project/runs/abc"


@pytest.fixture(scope="module", autouse=True)
def no_account(tmp_path_factory):
    """No key to be found, and none of the settings of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        home = str(tmp_path_factory.mktemp("home"))
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("HOME", home)
        patch.setenv("NETRC", f"{home}/netrc")
        wandb.teardown()
        yield
        wandb.teardown()


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A run's directory, and what W&B has of the same run."""
    directory = tmp_path_factory.mktemp("logged") / "run"
    words = [
        *("total_steps=640", "evaluation.every_steps=128", "algo.optimizer.max_grad_norm=.inf"),
        *(f"run_dir={directory}", "logger=wandb"),
    ]
    api.train(experiment(small("cartpole", *words)))
    wandb.teardown()
    (file,) = wandb_file.run_files(directory)
    # W&B's summary has the last value of everything that was logged.
    summary = {name: value for row in file.rows for name, value in row.items()} | file.summary
    return directory, file.config, summary, file.rows


def test_what_wandb_has_is_what_the_directory_has(logged):
    directory, *of_wandb = logged
    run, expected = stored_run(SOURCE, "finished", *of_wandb), read_run(directory)
    np.testing.assert_array_equal(run.evaluations.steps, expected.evaluations.steps)
    np.testing.assert_allclose(run.evaluations.returns, expected.evaluations.returns)
    np.testing.assert_allclose(run.evaluations.spreads, expected.evaluations.spreads)
    np.testing.assert_allclose(run.evaluations.seconds, expected.evaluations.seconds)
    assert run.time_s == expected.evaluations.seconds[-1]  # that of the last row
    same = ("status", "choices", "env_id", "seed", "total_steps", "step", "commit", "versions")
    for name in same:
        assert getattr(run, name) == getattr(expected, name), name
    assert dict(run.settings) == dict(expected.settings)
    assert run.settings["algo.optimizer.max_grad_norm"] == float("inf")
    assert run.source == SOURCE


def test_it_is_compared_with_a_directory_as_the_same_method(logged):
    directory, *of_wandb = logged
    both = compare([read_run(directory), stored_run(SOURCE, "finished", *of_wandb)])
    ((cell, row),) = both.figures.items()
    assert cell == ("CartPole-v1", "ppo")
    assert row.finals[0] == row.finals[1]


@pytest.mark.parametrize(
    ("state", "status"),
    [("finished", "finished"), ("running", "running"), ("failed", "failed"), ("crashed", "killed")],
)
def test_how_it_goes(logged, state, status):
    _, *of_wandb = logged
    assert stored_run(SOURCE, state, *of_wandb).status == status


def test_an_evaluation_that_is_not_finite_stays_so(logged):
    _, config, summary, rows = logged
    lost = [{**row, "eval/return": "NaN"} if "eval/return" in row else row for row in rows]
    run = stored_run(SOURCE, "finished", config, summary, lost)
    assert np.isnan(run.evaluations.returns).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": None}, "there are no settings in its config: not a run of rlrun"),
        ({"env_id": None}, "env_id: expected text, got null"),
        ({"algo": None}, "algo is missing"),
        ({"seed": "x"}, "seed: expected a whole number"),
    ],
)
def test_runs_of_something_else_are_one_line(logged, changes, message):
    _, config, summary, rows = logged
    with pytest.raises(UserError, match=f"{SOURCE}.*{message}"):
        stored_run(SOURCE, "finished", {**config, **changes}, summary, rows)


def test_rows_of_something_else_are_one_line(logged):
    _, config, summary, _ = logged
    with pytest.raises(UserError, match=f"{SOURCE}: a row of its history"):
        stored_run(SOURCE, "finished", config, summary, [{"step": "a", "eval/return": 1.0}])


def test_addresses():
    assert parse("wandb:team/project") == ("team/project", {})
    assert parse("wandb:team/project?group=a%20b&tag=c") == (
        "team/project",
        {"group": "a b", "tags": "c"},
    )


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("wandb:", "expected wandb:entity/project"),
        ("wandb:project", "expected wandb:entity/project"),
        ("wandb:a/b/c", "expected wandb:entity/project"),
        ("wandb:/b", "expected wandb:entity/project"),
        ("wandb:a/b?grup=c", "no filter 'grup'; did you mean 'group'?"),
    ],
)
def test_an_address_that_is_none_is_one_line(address, message):
    with pytest.raises(UserError, match=message) as caught:
        parse(address)
    assert "\n" not in str(caught.value)


def test_without_a_key_or_a_network_there_is_one_line(monkeypatch):
    with pytest.raises(UserError, match=r"^wandb:team/project: ") as caught:
        list(read("wandb:team/project"))
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(wandb_runs, "SECONDS", 1)
    with pytest.raises(UserError, match=r"^wandb:team/project: ") as caught:
        list(read("wandb:team/project"))
    assert "\n" not in str(caught.value)


def test_runs_are_frozen(logged):
    _, *of_wandb = logged
    with pytest.raises(dataclasses.FrozenInstanceError):
        stored_run(SOURCE, "finished", *of_wandb).seed = 1
