"""What is refused as another run's checkpoint, and what a failed resume leaves as it was."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest
import torch
from fragile import Fragile
from running import (
    checkpoints,
    content,
    differences,
    experiment,
    fragile,
    metrics,
    record,
    small,
)

from rlrun.cli import main as cli
from rlrun.config.load import load_run
from rlrun.errors import EnvironmentFailure, UserError
from rlrun.runs import api
from rlrun.runs.counters import Counters
from rlrun.runs.files.checkpoint import CheckpointStore, load
from rlrun.runs.setup.assembly import Assembly

pytestmark = pytest.mark.usefixtures("undrawn")

STEPS = ["total_steps=192", "evaluation.every_steps=1000", "checkpoint.every_seconds=0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """PPO on CartPole for three iterations, with a checkpoint after each."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    api.train(experiment(small("cartpole", *STEPS, f"run_dir={directory}")))
    return directory


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """That run, to be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "copy", symlinks=True))


# ---------------------------------------------------------------------- a failed resume


@pytest.mark.parametrize("order", ["raise at reset", "raise"], ids=["at reset", "at replay"])
def test_a_resume_whose_environments_fail_leaves_the_checkpoint_as_it_was(order, tmp_path):
    directory, whole = tmp_path / "run", tmp_path / "whole"
    for path in (directory, whole):
        api.train(experiment(fragile(tmp_path, *STEPS, "seed=4", f"run_dir={path}")))
    before = checkpoints(directory)
    saved = content(before[-1])
    # An episode that is longer than the step at which the order is looked at.
    assert max(len(env["actions"]) for env in environments(before[-1])) > 10, "take another seed"
    (tmp_path / order).touch()
    with pytest.raises(EnvironmentFailure, match="ArithmeticError"):
        api.resume(directory, total_steps=320, plugins=["fragile"])
    assert record(directory)["status"] == "failed"
    assert checkpoints(directory) == before
    assert differences(content(before[-1]), saved) == []

    (tmp_path / order).unlink()
    for path in (directory, whole):
        api.resume(path, total_steps=320, plugins=["fragile"])
    assert metrics(directory) == metrics(whole)
    last, expected = (content(checkpoints(path)[-1]) for path in (directory, whole))
    assert differences(last, expected) == []


def environments(checkpoint: Path) -> list[dict]:
    """The states of the environments in a checkpoint."""
    return load(checkpoint).state["collector"]["env"]["vector_env"]["environments"]


def test_a_first_reset_that_fails_leaves_no_checkpoint(tmp_path):
    directory = tmp_path / "run"
    (tmp_path / "raise at reset").touch()
    with pytest.raises(EnvironmentFailure, match="does not start"):
        api.train(experiment(fragile(tmp_path, *STEPS, f"run_dir={directory}")))
    assert checkpoints(directory) == []
    (tmp_path / "raise at reset").unlink()
    api.resume(directory, total_steps=None, plugins=["fragile"])
    assert record(directory)["status"] == "finished"


# ---------------------------------------------------------------------- another run's state


def spoil(directory: Path, change) -> Path:
    """Write the newest checkpoint again, whole, after a change of its state and its facts."""
    newest = load(checkpoints(directory)[-1])
    state, info = newest.state, {**newest.info}
    info.pop("step"), info.pop("sha256")
    state = change(state, info) or state
    store = CheckpointStore(directory / "checkpoints", keep=3)
    store.save(newest.info["step"], weights=newest.weights, state=state, info=info)
    return newest.path


def without(*names):
    """Leave out an entry of the state."""

    def change(state, info):
        for name in names[:-1]:
            state = state[name]
        del state[names[-1]]

    return change


def counting(**values):
    """Change the counters."""
    return lambda state, info: state["counters"].update(values)


def with_a_small_normalizer(state, info):
    """As if the observations were of another size."""
    moments = state["algorithm.observation_normalizer"]
    moments["mean"], moments["variance"] = torch.zeros(2), torch.ones(2)


@pytest.mark.parametrize(
    ("change", "verbs"),
    [
        (lambda state, info: [1, 2], "both"),
        (without("counters"), "both"),
        (without("counters", "step"), "both"),
        (counting(step="many"), "both"),
        (counting(step=None), "both"),
        (without("loggers"), "both"),
        (without("loggers", "jsonl"), "both"),
        (without("streams", "init"), "both"),
        (without("algorithm.observation_normalizer"), "both"),
        (with_a_small_normalizer, "both"),
        (without("collector"), "resume"),
        (without("collector", "env"), "resume"),
        (lambda state, info: {**state, "replay_buffer": {}}, "resume"),
        (lambda state, info: without("compiled")(info, None), "resume"),
    ],
)
def test_a_checkpoint_of_another_shape_is_one_line(copied, change, verbs, monkeypatch, capfd):
    newest = spoil(copied, change)
    refused(["resume", copied, "total_steps=320"], newest, monkeypatch, capfd)
    if verbs == "both":
        refused(["eval", copied], newest, monkeypatch, capfd)


def test_networks_of_another_size_are_one_line(copied, monkeypatch, capfd):
    config = copied / "config.yaml"
    text = config.read_text()
    changed = text.replace("hidden_sizes:\n  - 64\n  - 64\n", "hidden_sizes:\n  - 8\n")
    assert changed != text
    config.write_text(changed)
    newest = checkpoints(copied)[-1]
    for words in (["resume", copied, "total_steps=320"], ["eval", copied]):
        refused(words, newest, monkeypatch, capfd)


def refused(words, checkpoint, monkeypatch, capfd):
    """Call the command line, which has to say in one line that a checkpoint is another run's."""
    before = checkpoints(checkpoint.parent.parent)
    monkeypatch.setattr("sys.argv", ["rlrun", *map(str, words)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit:
        cli.main()
    error = capfd.readouterr().err
    assert exit.value.code == 2
    (line,) = (line for line in error.splitlines() if line.startswith("rlrun: "))
    assert line.startswith(f"rlrun: {checkpoint}")
    assert "belong to this config" in line
    assert "Traceback" not in error
    assert checkpoints(checkpoint.parent.parent) == before


def test_counters_take_their_own_numbers_only():
    counters = Counters()
    counters.load_state_dict({**Counters(step=5).state_dict(), "state_dict": 1})
    assert counters.step == 5
    assert "state_dict" not in vars(counters)


# ---------------------------------------------------------------------- damaged metrics


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"update": 1}', b'{"step": "x"}', b'{"step": 1, "x": []}']
)
def test_a_damaged_row_is_one_line(copied, line, monkeypatch, capfd):
    path = copied / "metrics.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([line.ljust(len(first) - 1) + b"\n", *others]))
    monkeypatch.setattr("sys.argv", ["rlrun", "resume", str(copied), "total_steps=320"])
    before = record(copied)
    with pytest.raises(SystemExit) as exit:
        cli.main()
    error = capfd.readouterr().err
    assert exit.value.code == 2
    assert error.startswith(f"rlrun: {path}, line 1: ")
    assert error.count("\n") == 1
    assert record(copied) == before


# ---------------------------------------------------------------------- environments


@pytest.fixture
def closed(monkeypatch) -> list[Fragile]:
    """The environments that were closed."""
    environments = []
    monkeypatch.setattr(Fragile, "close", lambda env: environments.append(env))
    return environments


def test_environments_are_closed_whatever_happens(tmp_path, closed):
    directory = tmp_path / "run"
    words = fragile(tmp_path, *STEPS, f"run_dir={directory}")
    made = Fragile.instances = 0

    def all_closed() -> bool:
        nonlocal made
        new, made = Fragile.instances - made, Fragile.instances
        there = len(closed)
        closed.clear()
        return there == new > 0

    run = experiment(words)
    api.train(run)
    assert all_closed()
    with pytest.raises(UserError, match="has done its 192 steps"):
        api.resume(directory, total_steps=None, plugins=["fragile"])
    assert all_closed()
    with pytest.raises(UserError, match="exists"):
        api.train(experiment(words))
    assert all_closed()
    (tmp_path / "raise at reset").touch()
    with pytest.raises(EnvironmentFailure):
        api.evaluate_run(directory, episodes=3, seed=0, checkpoint="last", plugins=["fragile"])
    assert all_closed()
    newest = spoil(directory, without("counters"))
    with pytest.raises(UserError, match="lacks counters"):
        Assembly(load_run(directory, ["fragile"]), load(newest))
    assert all_closed()


def test_a_run_says_how_it_is_without_touching_the_process(trained):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with closing(Assembly(load_run(trained), load(checkpoints(trained)[-1]))):
            assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


# ---------------------------------------------------------------------- records of before


def test_a_record_of_an_earlier_version_says_so(copied):
    facts = json.loads((copied / "run.json").read_text())
    del facts["label"]
    (copied / "run.json").write_text(json.dumps(facts))
    with pytest.raises(
        UserError, match=r"run\.json: label is missing: .* earlier version of rlrun"
    ):
        api.resume(copied, total_steps=320)
