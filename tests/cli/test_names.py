"""A run's name, and what run.json and the loggers are told of it."""

import json
from dataclasses import replace

import pytest
from running import compose, experiment, record, small

from rlrun.cli.hydra_bridge import usual_choices
from rlrun.config.load import load_run
from rlrun.errors import UserError
from rlrun.loggers.jsonl import read_metrics
from rlrun.runs import api
from rlrun.runs.files.record import title

NAMES = {
    "algo=ppo env=hopper": "ppo_hopper_s0",
    "algo=ppo env=hopper advantage=gae seed=3": "ppo_hopper_s3",  # its own estimator
    "algo=ppo env=hopper advantage=td hardware=gpu": "ppo_hopper_td_s0",
    "algo=a2c env=hopper": "a2c_hopper_s0",
    "algo=grpo env=cartpole": "grpo_cartpole_s0",
    "algo=ppo env=hopper model=mlp_small_noise": "ppo_hopper_mlp_small_noise_s0",
    "algo=ppo env=hopper collector=episodes advantage=td": "ppo_hopper_td_episodes_s0",
    "algo=grpo env=cartpole advantage=rloo": "grpo_cartpole_rloo_s0",
    "env=gym env.id=MountainCar-v0": "ppo_MountainCar-v0_s0",
    "env=gym env.id=tests/Some-v0 plugins=[slashed] advantage=td": "ppo_tests-Some-v0_td_s0",
}


@pytest.mark.parametrize("words", NAMES)
def test_a_run_is_called_after_what_is_its_own(words, tmp_path, monkeypatch):
    entry = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
    register = f"import gymnasium\n\ngymnasium.register('tests/Some-v0', '{entry}')\n"
    (tmp_path / "slashed.py").write_text(register)
    monkeypatch.syspath_prepend(tmp_path)
    assert experiment(words.split()).name == NAMES[words]


def test_what_an_algorithm_brings_is_known_with_the_users_own_groups(tmp_path):
    files = {
        "algo/mine.yaml": "defaults:\n  - ppo\n  - override /advantage@_global_.advantage: td\n",
        "advantage/own.yaml": "_target_: rlrun.advantages.temporal.td\n_partial_: true\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    search = f"hydra.searchpath=[file://{tmp_path}]"
    for words, name in (
        (["algo=mine"], "mine_cartpole_s0"),
        (["algo=mine", "advantage=gae"], "mine_cartpole_gae_s0"),
        (["algo=ppo", "advantage=own"], "ppo_cartpole_own_s0"),
    ):
        assert experiment([*words, "env=cartpole", search]).name == name
    _, settings = compose(["algo=mine", "advantage=own", search])
    assert usual_choices(settings)["advantage"] == "td"


def test_flat_keys_name_every_part():
    described = experiment(["algo=trpo", "env=gym", "env.id=CartPole-v1", "advantage=td", "seed=4"])
    identity = {
        "algo": "trpo",
        "env": "CartPole-v1",
        "env_id": "CartPole-v1",
        "advantage": "td",
        "collector": "segments",
        "hardware": "cpu",
        "model": "mlp",
        "seed": 4,
    }
    assert described.identity == identity
    assert list(described.identity) == list(identity)
    assert title(described) == "trpo · CartPole-v1 · td · segments · mlp · seed 4"


def test_the_names_come_back_with_the_run(tmp_path):
    directory = tmp_path / "run"
    words = ["advantage=td", "total_steps=640", "evaluation.every_steps=64", f"run_dir={directory}"]
    described = experiment(small("cartpole", *words))
    api.train(described)
    first = record(directory)
    names = {"label": "ppo_cartpole_td", **described.identity}
    assert {name: first[name] for name in names} == names
    rows = read_metrics(directory / "metrics.jsonl")
    evaluations = {row["step"]: row["eval/return"] for row in rows if "eval/return" in row}
    assert first["final_return"] == (evaluations[576] + evaluations[640]) / 2

    api.resume(directory, total_steps=704)
    second = record(directory)
    assert {name: second[name] for name in names} == names
    rows = read_metrics(directory / "metrics.jsonl")
    evaluations = {row["step"]: row["eval/return"] for row in rows if "eval/return" in row}
    # The last tenth of 704 steps begins before the point of resumption, at 633.6.
    assert second["final_return"] == (evaluations[640] + evaluations[704]) / 2


def test_the_sweep_is_in_the_record_and_comes_back_with_the_run(tmp_path):
    directory = tmp_path / "run"
    described = experiment(small("cartpole", "total_steps=64", f"run_dir={directory}"))
    assert described.sweep is None
    api.train(replace(described, sweep="2026-01-02/12-00-00_sweep"))
    assert record(directory)["sweep"] == "2026-01-02/12-00-00_sweep"
    assert load_run(directory).sweep == "2026-01-02/12-00-00_sweep"
    api.resume(directory, total_steps=128)
    assert record(directory)["sweep"] == "2026-01-02/12-00-00_sweep"
    (directory / "run.json").write_text(json.dumps({**record(directory), "sweep": 3}))
    with pytest.raises(UserError, match=r"run\.json: sweep: expected text or null, got 3"):
        load_run(directory)
