"""A run as a whole: what it leaves, when it evaluates, and what it survives."""

import copy
import math
import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
import yaml
from fragile import Fragile
from running import (
    SERVER,
    Process,
    assert_same_run,
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
from rlrun.envs.control import ControlEnv
from rlrun.errors import EnvironmentFailure, NonFiniteError, UserError
from rlrun.loggers.jsonl import read_metrics
from rlrun.runs import api
from rlrun.runs.files.checkpoint import load
from rlrun.runs.run import Run
from rlrun.runs.setup.assembly import Assembly

WORDS = small("cartpole", "total_steps=576", "seed=3", "checkpoint.keep=2", "tags=[a,b]")
EVERY = 150
# Iterations have 64 steps: the beginning, the first ends of one after 150, 300 and 450 steps, and
# the last of all.
EVALUATED = [0, 192, 320, 512, 576]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The words of a run, what it returned, and its directory."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    words = [*WORDS, f"evaluation.every_steps={EVERY}", f"run_dir={directory}"]
    return words, api.train(experiment(words)), directory


def test_a_run_leaves_these_files(finished):
    words, _, directory = finished
    assert sorted(path.name for path in directory.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "curves.png",
        "metrics.jsonl",
        "overrides.yaml",
        "run.json",
    ]
    assert [path.name for path in checkpoints(directory)][-2:] == [
        "step-000000000512",
        "step-000000000576",
    ]
    assert (directory / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((directory / "overrides.yaml").read_text()) == words


def test_the_config_makes_the_same_run_again(finished):
    words, _, directory = finished
    config = yaml.safe_load((directory / "config.yaml").read_text())
    assert config == experiment(words).config
    assert config["seed"] == 3
    assert config["tags"] == ["a", "b"]
    assert config["algo"]["optimizer"]["learning_rate"] == 3e-4
    again = load_run(directory)
    assert again.config == config
    assert again.identity == experiment(words).identity
    assert again.name == experiment(words).name


def test_the_record_says_where_the_numbers_come_from(finished):
    _, final_return, directory = finished
    evaluations = [row for row in metrics(directory) if "eval/return" in row]
    now = record(directory)
    known = {
        "status": "finished",
        "algo": "ppo",
        "env": "cartpole",
        "env_id": "CartPole-v1",
        "advantage": "gae",
        "hardware": "cpu",
        "seed": 3,
        "step": 576,
        "total_steps": 576,
        "return": evaluations[-1]["eval/return"],
        "best_return": max(row["eval/return"] for row in evaluations),
        "final_return": evaluations[-1]["eval/return"],  # the only one in the last tenth
        "error": None,
        "pid": os.getpid(),
        "host": os.uname().nodename,
    }
    assert {name: now[name] for name in known} == known
    assert now["return"] == final_return
    assert now["time_s"] > 0
    assert now["versions"]["torch"] == torch.__version__
    assert now["versions"].keys() >= {"rlrun", "python", "numpy", "gymnasium", "mujoco"}
    assert {"started", "git_commit", "command"} <= now.keys()


def test_every_iteration_and_evaluation_is_a_row(finished):
    directory = finished[2]
    rows = read_metrics(directory / "metrics.jsonl")
    iterations = [row for row in rows if "train/episodes" in row]
    evaluations = [row for row in rows if "eval/return" in row]
    assert len(rows) == len(iterations) + len(evaluations)
    assert [row["step"] for row in iterations] == list(range(64, 577, 64))
    # 2 epochs x 64 / 32 minibatches
    assert [row["update"] for row in iterations] == list(range(4, 37, 4))
    assert [row["step"] for row in evaluations] == EVALUATED
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    times = [row["time_s"] for row in rows]
    assert times == sorted(times)
    assert times[0] > 0
    for row in iterations:
        assert row.keys() >= {
            "loss/policy",
            "loss/value",
            "policy/entropy",
            "policy/kl",
            "policy/clip_fraction",
            "value/explained_variance",
            "schedule/learning_rate",
            "speed/steps_per_s",
            "time/collect_s",
            "time/update_s",
            "train/episodes",
        }
        assert all(math.isfinite(value) for value in row.values())
    names = {"eval/return", "eval/return_std", "eval/length", "time/evaluate_s"}
    assert all(row.keys() >= names for row in evaluations)
    # CartPole pays 1 a step.
    assert all(row["train/return"] == row["train/length"] for row in rows if "train/return" in row)
    ended = sum(row["train/episodes"] for row in iterations)
    steps = sum(row["train/episodes"] * row.get("train/length", 0) for row in iterations)
    assert ended > 0
    assert steps == pytest.approx(576, abs=2 * 100)  # but for the two episodes at the end


@pytest.mark.parametrize(
    ("every", "ends"),
    # Iterations of 64 steps: rows of two of them and of eight, and the rest at the end.
    [(65, [128, 256, 384, 512, 576]), (128, [128, 256, 384, 512, 576]), (500, [512, 576])],
)
def test_a_row_is_about_the_iterations_since_the_last(finished, tmp_path, every, ends):
    words, _, directory = finished
    fewer = tmp_path / "run"
    api.train(experiment([*words, f"log_every_steps={every}", f"run_dir={fewer}"]))
    single = [row for row in metrics(directory) if "train/episodes" in row]
    rows = [row for row in metrics(fewer) if "train/episodes" in row]
    assert [row["step"] for row in rows] == ends
    for begin, row in zip([0, *ends], rows, strict=False):
        several = [one for one in single if begin < one["step"] <= row["step"]]
        assert row["update"] == several[-1]["update"]
        for name in ("loss/policy", "policy/kl", "value/explained_variance"):
            mean = sum(one[name] for one in several) / len(several)
            assert row[name] == pytest.approx(mean, rel=1e-4, abs=1e-7)
        # Episodes count alike, whatever the iteration they ended in.
        ended = sum(one["train/episodes"] for one in several)
        total = sum(one.get("train/return", 0) * one["train/episodes"] for one in several)
        assert row["train/episodes"] == ended
        assert row["train/return"] * ended == pytest.approx(total)
    # What the rows leave out is no part of the run.
    last, other = (content(checkpoints(path)[-1]) for path in (fewer, directory))
    assert differences(last, other) == []
    evaluations = [[r for r in metrics(path) if "eval/return" in r] for path in (fewer, directory)]
    assert evaluations[0] == evaluations[1]


def test_a_run_of_whole_episodes_says_so(tmp_path):
    directory = tmp_path / "run"
    words = small("cartpole", "total_steps=300", "env.max_episode_steps=30", algo="rloo")
    api.train(experiment([*words, "algo.num_envs=4", f"run_dir={directory}"]))
    rows = [row for row in metrics(directory) if "train/episodes" in row]
    steps = [0, *(row["step"] for row in rows)]
    assert steps[-2] < 300 <= steps[-1]
    for before, row in zip(steps, rows, strict=False):
        # Each environment has played one episode, and every step was in one of them.
        assert row["train/episodes"] == 4
        assert row["step"] - before == pytest.approx(4 * row["train/length"])


def test_best_is_the_best_evaluation_and_last_the_last(finished):
    directory = finished[2]
    evaluations = {
        row["step"]: row["eval/return"] for row in metrics(directory) if "eval/return" in row
    }
    best = load(directory / "checkpoints" / "best").info
    assert best["eval/return"] == max(evaluations.values()) == evaluations[best["step"]]
    last = load(checkpoints(directory)[-1]).info
    assert last["eval/return"] == evaluations[576]
    assert last["update"] == 36


def test_the_same_seed_gives_the_same_run_and_another_one_another(finished, tmp_path):
    words, _, directory = finished
    for seed, same in ((3, True), (4, False)):
        other = tmp_path / str(seed)
        api.train(experiment([*words, f"seed={seed}", f"run_dir={other}"]))
        assert (metrics(other) == metrics(directory)) is same


def test_evaluation_does_not_touch_training(finished, tmp_path):
    words, _, directory = finished
    often = tmp_path / "run"
    more = ["evaluation.every_steps=64", f"run_dir={often}"]
    api.train(experiment([*words, *more]))

    def rows(path, name):
        return [row for row in metrics(path) if name in row]

    assert rows(often, "train/episodes") == rows(directory, "train/episodes")
    # And an evaluation depends on its step, not on the evaluations before it.
    at_same_steps = [row for row in rows(often, "eval/return") if row["step"] in EVALUATED]
    assert at_same_steps == rows(directory, "eval/return")
    assert len(rows(often, "eval/return")) == 10
    last, other = (content(checkpoints(path)[-1]) for path in (often, directory))
    del last["counters"], other["counters"]
    assert differences(last, other) == []


def test_evaluation_leaves_the_normalisers_and_streams_as_they_are(finished):
    directory = finished[2]
    run = Assembly(load_run(directory), load(checkpoints(directory)[-1]))
    parts = {
        "streams": run.streams,
        **run.algorithm.learners,
        **run.algorithm.parts,
    }

    def state():
        states = {name: part.state_dict() for name, part in parts.items()}
        return states | run.algorithm.agent.weights()

    before = copy.deepcopy(state())
    assert before["observation_normalizer"]["count"] == 576
    first = run.evaluator.play(3, seed=1)
    assert differences(state(), before) == []
    assert run.evaluator.play(3, seed=1) == first


def test_environments_of_an_evaluation_are_kept_for_as_many_episodes(monkeypatch):
    made, closed = [], []
    make, close = ControlEnv.make.__func__, ControlEnv.close
    monkeypatch.setattr(
        ControlEnv, "make", classmethod(lambda *a, **k: made.append(make(*a, **k)) or made[-1])
    )
    monkeypatch.setattr(ControlEnv, "close", lambda env: closed.append(env) or close(env))
    with closing(Assembly(experiment(small("cartpole")), checkpoint=None)) as run:
        for episodes in (3, 3, 2):
            assert len(run.evaluator.play(episodes, seed=1).returns) == episodes
        assert [env.num_envs for env in made] == [2, 3, 2]  # the first for training
        assert closed == [made[1]]
    assert set(closed) == set(made)


# ---------------------------------------------------------------------- what goes wrong

# A step so long that nothing is a number afterwards.
LOST = "algo.optimizer.learning_rate=1e30"


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(tmp_path):
    words, first = small("cartpole", "total_steps=128"), tmp_path / "first"
    with pytest.raises(
        NonFiniteError,
        match=r"loss/\w+ is not finite after update 4 \(step 64\); .* checkpoint is "
        rf"{first}/checkpoints/step-0+$",
    ):
        api.train(experiment([*words, f"run_dir={first}", LOST]))
    assert [load(path).info["step"] for path in checkpoints(first)] == [0]

    # In the middle of a run.
    directory = tmp_path / "run"
    api.train(experiment([*words, f"run_dir={directory}"]))
    files = {path: path.read_bytes() for path in checkpoints(directory)[-1].iterdir()}
    config = yaml.safe_load((directory / "config.yaml").read_text())
    config["algo"]["optimizer"]["learning_rate"] = 1e30
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(NonFiniteError, match=r"\(step 192\)") as raised:
        api.resume(directory, total_steps=256)
    last = checkpoints(directory)[-1]
    assert str(raised.value).endswith(f"the last good checkpoint is {last}")
    assert last.name == "step-000000000128"
    assert {path: path.read_bytes() for path in last.iterdir()} == files
    assert record(directory)["status"] == "failed"
    assert record(directory)["error"] == str(raised.value)
    assert len(read_metrics(directory / "metrics.jsonl")) == 4


@pytest.mark.parametrize(
    "often", ["checkpoint.every_seconds=0", "evaluation.every_steps=64", "seed=0"]
)
def test_what_is_lost_in_the_middle_of_a_row_is_not_saved(tmp_path, often):
    # A row of ten iterations, of which the first breaks the weights.
    directory = tmp_path / "run"
    words = small("cartpole", "total_steps=640", "log_every_steps=640", often)
    with pytest.raises(NonFiniteError, match=r"the last good checkpoint is .*/step-0+$"):
        api.train(experiment([*words, f"run_dir={directory}", LOST]))
    assert [load(path).info["step"] for path in checkpoints(directory)] == [0]
    (first,) = metrics(directory)
    assert first["step"] == 0
    assert record(directory)["best_return"] == first["eval/return"]


def test_a_number_that_was_lost_once_in_a_row_ends_the_run(tmp_path, monkeypatch):
    # The weights are well again afterwards, and the next iterations' numbers finite.
    log = Run.log

    def losing(run, metrics):
        if run.counters.step == 192:
            metrics["loss/policy"] = torch.tensor(math.nan)
        log(run, metrics)

    monkeypatch.setattr(Run, "log", losing)
    directory = tmp_path / "run"
    words = small("cartpole", "total_steps=640", "log_every_steps=320")
    saved = ["checkpoint.every_seconds=0", f"run_dir={directory}"]
    with pytest.raises(NonFiniteError, match=r"^loss/policy is not finite .*\(step 192\)"):
        api.train(experiment([*words, *saved]))
    assert [load(path).info["step"] for path in checkpoints(directory)] == [0, 64, 128]


def test_a_first_evaluation_that_fails_leaves_nothing(tmp_path):
    directory = tmp_path / "run"
    words = fragile(tmp_path, "total_steps=192", f"run_dir={directory}")
    Fragile.instances = 0
    with pytest.raises(UserError, match="no licence left for another simulator"):
        api.train(experiment([*words, "+env.options.most_instances=2"]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("algo", "env"), [("ppo", "cartpole"), ("dqn", "cartpole"), ("sarsa", "cliff_walking")]
)
def test_an_evaluation_whose_environment_fails_costs_no_step(algo, env, tmp_path, monkeypatch):
    directory, step = tmp_path / "run", ControlEnv.step
    words = small(env, "total_steps=640", "evaluation.every_steps=320", algo=algo)
    words += ["evaluation.episodes=3", "checkpoint.every_seconds=3600", "env.max_episode_steps=25"]

    def failing(env, action, rows=None):
        if env.num_envs == 3 and (directory / "checkpoints").exists():  # not in the first one
            raise EnvironmentFailure(0, 3, ArithmeticError("the wheels came off"))
        return step(env, action, rows)

    monkeypatch.setattr(ControlEnv, "step", failing)
    with pytest.raises(EnvironmentFailure):
        api.train(experiment([*words, f"run_dir={directory}"]))
    monkeypatch.undo()
    saved = load(checkpoints(directory)[-1]).info["step"]
    assert saved == record(directory)["step"] >= 320
    api.resume(directory, total_steps=None)
    api.train(experiment([*words, f"run_dir={tmp_path / 'whole'}"]))
    assert_same_run(directory, tmp_path / "whole")


@pytest.mark.parametrize(
    ("every", "failed", "evaluated"),
    [
        (128, 128, [0, 64, 128, 192]),
        (192, 192, [0, 64, 192]),  # the last one
    ],
)
def test_an_evaluation_that_fails_costs_no_step_and_is_made_up_for(
    tmp_path, every, failed, evaluated
):
    directory = tmp_path / "run"
    words = fragile(
        tmp_path, "total_steps=64", f"evaluation.every_steps={every}", f"run_dir={directory}"
    )
    Fragile.instances = -10
    api.train(experiment([*words, "+env.options.most_instances=2"]))

    Fragile.instances = 0
    with pytest.raises(UserError, match="no licence left for another simulator"):
        api.resume(directory, total_steps=192, plugins=["fragile"])
    assert record(directory)["status"] == "failed"
    steps = [load(path).info["step"] for path in checkpoints(directory)]
    assert steps[-1] == record(directory)["step"] == failed

    Fragile.instances = -10
    final_return = api.resume(directory, total_steps=None, plugins=["fragile"])
    evaluations = [row for row in metrics(directory) if "eval/return" in row]
    assert [row["step"] for row in evaluations] == evaluated
    assert evaluations[-1]["eval/return"] == final_return
    iterations = [row["step"] for row in metrics(directory) if "train/episodes" in row]
    assert iterations == [64, 128, 192]
    assert record(directory)["status"] == "finished"


def test_a_picture_that_cannot_be_drawn_does_not_stop_the_run(tmp_path, capfd):
    directory = tmp_path / "run"
    words = small("cartpole", "total_steps=128", f"run_dir={directory}")
    api.train(experiment(words))
    (directory / "curves.png").unlink()
    (directory / "curves.png" / "in the way").mkdir(parents=True)
    api.resume(directory, total_steps=256)
    assert "warning: curves.png was not drawn: IsADirectoryError" in capfd.readouterr().err
    assert record(directory)["status"] == "finished"


def test_an_environment_that_breaks_its_time_limit_cannot_give_whole_episodes(tmp_path):
    choice = ["plugins=[endless]", "env.id=Endless-v0", "total_steps=64"]
    words = [*small("gym", *choice, algo="reinforce"), f"run_dir={tmp_path}/run"]
    with pytest.raises(UserError, match="goes on after 20 steps, the time limit"):
        api.train(experiment(words))
    assert list(tmp_path.iterdir()) == []


def _without_a_reader(words, directory):
    os.chdir(directory)
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, sys.stderr.fileno())
    sys.argv = ["rlrun", *words]
    cli.main()


def test_a_terminal_that_is_gone_does_not_stop_the_run(tmp_path):
    words = small("cartpole", "total_steps=128", f"run_dir={tmp_path}/run")
    process = SERVER.Process(target=_without_a_reader, args=(words, tmp_path), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert record(tmp_path / "run")["status"] == "finished"


def _own_memory(pid):
    """Bytes of a process that no file and no other process shares."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def test_memory_does_not_grow_with_the_steps(tmp_path):
    directory = tmp_path / "run"
    # Rollouts of 2,048 rows, about 300 kB with everything that is computed from them; after every
    # second one an evaluation, a checkpoint and now and then a picture.
    sizes = ["algo.num_envs=16", "algo.horizon=128", "algo.epochs=1", "algo.minibatch_size=1024"]
    words = ["total_steps=10_000_000", "evaluation.every_steps=4096", f"run_dir={directory}"]
    process = Process([*small("cartpole", *words), *sizes], tmp_path)
    process.wait_for_rows(directory, 20)
    before = _own_memory(process.pid)
    process.wait_for_rows(directory, 60)
    grown = _own_memory(process.pid) - before
    process.send(signal.SIGKILL)
    process.wait()
    assert grown < 3e6  # keeping the rollouts would be 8e6
