"""A policy of another run: what is read of a run, and which mistakes are named in one line."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from gymnasium import spaces
from running import checkpoints, differences, experiment, small
from tiny import algorithm_of

from rlrun.cli import main as cli
from rlrun.envs.problem import Problem
from rlrun.errors import UserError
from rlrun.models.reference import Reference
from rlrun.runs import api
from rlrun.runs.files.checkpoint import CheckpointStore, load
from rlrun.runs.reopen import saved_run
from rlrun.runs.setup.policies import load_policy, unread_policy

CPU = torch.device("cpu")
CARTPOLE = Problem(
    env_id="CartPole-v1",
    obs_size=4,
    action_space=spaces.Discrete(2),
    action_units="raw",
    time_limit=500,
)
every_penalised = pytest.mark.parametrize("algo", ["rloo", "grpo", "gspo"])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """PPO on CartPole for eight iterations, with an evaluation after the fourth."""
    directory = tmp_path_factory.mktemp("reference") / "run"
    words = ("total_steps=512", "evaluation.every_steps=256", "model.hidden_sizes=[8,8]")
    api.train(experiment(small("cartpole", *words, f"run_dir={directory}")))
    return directory


@pytest.fixture
def copied(run, tmp_path) -> Path:
    """That run, to be spoilt."""
    return Path(shutil.copytree(run, tmp_path / "copy", symlinks=True))


# ---------------------------------------------------------------------- what is read


def test_it_is_the_policy_of_the_runs_newest_checkpoint(run):
    reference = load_policy(str(run), CPU, problem=CARTPOLE)
    raw_obs = torch.randn(3, 2, 4)
    with saved_run(run, "last", plugins=[]) as (trained, _):
        agent = trained.algorithm.agent
    expected = agent.networks.policy(agent.observation_normalizer(raw_obs))
    assert torch.equal(reference(raw_obs).logits, expected.logits)
    # Its own normaliser has seen something.
    assert not torch.equal(reference(raw_obs).logits, agent.networks.policy(raw_obs).logits)


def test_a_resumed_run_reads_nothing_but_its_own_state(run):
    state = load_policy(str(run), CPU, problem=CARTPOLE).state_dict()
    reference = unread_policy("/no/such/run", CPU, problem=CARTPOLE)
    reference.load_state_dict(state)
    assert differences(reference.state_dict(), state) == []


def test_one_checkpoint_can_be_named(run):
    first, *_, last = checkpoints(run)
    best = run / "checkpoints" / "best"
    named = {
        path: load_policy(str(path), CPU, problem=CARTPOLE).state_dict() for path in (first, last)
    }
    assert differences(named[first], named[last]) != []
    for path, same in ((run, last), (best, best.resolve())):
        state = load_policy(str(path), CPU, problem=CARTPOLE).state_dict()
        assert differences(state, named[same]) == []


def test_the_directory_of_a_runs_checkpoints_means_the_run(run, monkeypatch):
    monkeypatch.chdir(run / "checkpoints")
    state = load_policy(str(run), CPU, problem=CARTPOLE).state_dict()
    for path in (str(run / "checkpoints"), "."):
        assert differences(load_policy(path, CPU, problem=CARTPOLE).state_dict(), state) == []


def test_its_state_is_the_policy_and_can_be_kept_in_a_checkpoint(run, tmp_path):
    reference = load_policy(str(run), CPU, problem=CARTPOLE)
    torch.save(reference.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = Reference(CARTPOLE, CPU)
    other.load_state_dict(state)
    assert differences(other.state_dict(), state) == []
    raw_obs = torch.randn(3, 2, 4)
    assert torch.equal(other(raw_obs).logits, reference(raw_obs).logits)
    assert not any(weight.requires_grad for weight in other.state_dict()["weights"].values())


def test_nothing_of_the_run_is_imported(copied):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["algo"]["_target_"] = "os.system"
    config["plugins"] = ["no_such_package"]
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    load_policy(str(copied), CPU, problem=CARTPOLE)


# ---------------------------------------------------------------------- what is refused


def message(path: object, problem: Problem = CARTPOLE) -> str:
    with pytest.raises(UserError) as error:
        load_policy(str(path), CPU, problem=problem)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_path_that_does_not_exist(run):
    said = message(run.with_name("runs"))
    assert said == f"algo.kl.reference={run}s: no such directory; did you mean '{run}'?"


def test_a_file(run):
    assert message(run / "run.json").endswith("run.json is a file, not a directory")


def test_an_empty_name():
    assert message("") == (
        "algo.kl.reference is empty: give a run's directory, a checkpoint's, or null"
    )


def test_a_directory_that_is_no_run(tmp_path):
    assert message(tmp_path) == (
        f"algo.kl.reference={tmp_path} is no run, nor a checkpoint in one: "
        f"no config.yaml in {tmp_path}"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", "[]"),
        ("config.yaml", "a: ["),
        ("config.yaml", "algo: {}"),
        ("config.yaml", "algo:"),
    ],
)
def test_a_run_whose_files_are_spoilt(copied, name, content):
    (copied / name).write_text(content)
    assert "is no run with a policy" in message(copied)


def test_a_run_without_a_checkpoint(copied):
    shutil.rmtree(copied / "checkpoints")
    assert message(copied) == f"no readable checkpoint in {copied / 'checkpoints'}"


def test_a_damaged_checkpoint(copied):
    checkpoint = checkpoints(copied)[0]
    (checkpoint / "weights.safetensors").write_bytes(b"damaged")
    said = message(checkpoint)
    assert said == (
        f"algo.kl.reference={checkpoint} cannot be read: weights.safetensors does not match its "
        "checksum"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env_id": "Acrobot-v1"}, "is a policy for CartPole-v1, not for Acrobot-v1"),
        ({"obs_size": 6}, "is a policy for other observations or actions than these"),
        ({"action_space": spaces.Discrete(3)}, "other observations or actions .*: 4 numbers"),
        ({"action_space": spaces.Box(-1.0, 1.0, (2,))}, "other observations or actions"),
    ],
    ids=["environment", "observations", "number of actions", "kind of actions"],
)
def test_a_policy_for_something_else(run, changes, words):
    problem = Problem(**{**vars(CARTPOLE), **changes})
    with pytest.raises(UserError, match=rf"^algo\.kl\.reference={run} .*{words}"):
        load_policy(str(run), CPU, problem=problem)


def test_a_policy_with_other_units_of_actions(run):
    box = {"action_space": spaces.Box(-1.0, 1.0, (2,)), "action_units": "box"}
    said = message(run, Problem(**{**vars(CARTPOLE), **box}))
    assert said == (f"algo.kl.reference={run} is a policy with env.action_units=raw, not box")
    # A choice has no units.
    load_policy(str(run), CPU, problem=Problem(**{**vars(CARTPOLE), "action_units": "box"}))


@pytest.mark.parametrize(
    ("normalizer", "words"),
    [
        (None, "'algorithm.observation_normalizer'"),
        (3, "not subscriptable"),
        ({}, "'mean'"),
        (
            {"mean": torch.zeros(2), "variance": torch.ones(2), "count": 1},
            r"statistics of \(2,\) numbers, not of \(4,\)",
        ),
    ],
    ids=["none", "a number", "empty", "another size"],
)
def test_a_state_that_is_no_policys(copied, normalizer, words):
    newest = load(checkpoints(copied)[-1])
    state = {name: part for name, part in newest.state.items() if "observation" not in name}
    if normalizer is not None:
        state["algorithm.observation_normalizer"] = normalizer
    store = CheckpointStore(copied / "checkpoints", keep=2)
    store.save(newest.info["step"], weights=newest.weights, state=state, info={})
    place = f"algo.kl.reference={copied}: the state in {newest.path} is not that of a policy"
    assert re.fullmatch(f"{place}: .*{words}.*", message(copied))


@every_penalised
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coefficient": 0.1}, "coefficient must be 0 without a policy to stay near"),
        ({"coefficient": -0.1}, "coefficient must be at least 0"),
        ({"kl.horizon": 0}, "horizon must be at least 1"),
        ({"target": 0.0}, "target must be positive"),
        ({"target": 0.1}, "target multiplies coefficient, which must not be 0"),
        (
            {"reference": "x", "coefficient": 0.1, "estimator": "k1", "place": "loss"},
            "estimator must be k2 or k3 with place=loss",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(algo, changes, words):
    with pytest.raises(UserError, match=rf"^algo\.kl\.{words}"):
        algorithm_of(algo, **changes)


def test_the_command_line_says_it_in_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (["algo.kl.reference=nowhere"], "algo.kl.reference=nowhere: no such directory"),
        (
            ["algo.kl.coefficient=0.1"],
            "algo.kl.coefficient must be 0 without a policy to stay near",
        ),
        (["algo.kl.estimator=k4"], "algo.kl.estimator"),
    ):
        monkeypatch.setattr("sys.argv", ["rlrun", *small("cartpole", *words, algo="grpo")])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        assert exit.value.code == 2
        error = capfd.readouterr().err
        assert error.startswith(f"rlrun: {said}")
        assert error.count("\n") == 1
        assert list(tmp_path.iterdir()) == []
