"""Whole runs of wrapped environments, and with worker processes: killed, broken, evaluated."""

import os
import re
import signal
from pathlib import Path

import pytest
from running import (
    Process,
    assert_same_run,
    checkpoints,
    experiment,
    fragile,
    metrics,
    record,
    small,
)

from rlrun.errors import UserError
from rlrun.runs import api
from rlrun.runs.files.checkpoint import load
from rlrun.runs.reports.film import Film

pytestmark = pytest.mark.usefixtures("undrawn")

STEPS = ["total_steps=1920", "evaluation.every_steps=960", "env.max_episode_steps=25"]
NEVER = "checkpoint.every_seconds=3600"
STICKY = "{name: StickyAction, repeat_action_probability: 0.3, repeat_action_duration: [1, 3]}"
STACK = "{name: FrameStackObservation, stack_size: 3}"
WRAPPED = [f"env.wrappers=[{STICKY},{STACK}]"]
WORKERS = ["env.workers=2", "env.worker_timeout=60"]
CASES = {
    "ppo": small("cartpole", *STEPS, *WRAPPED),
    "ppo on MuJoCo": small("hopper", *STEPS, *WRAPPED),
    "dqn": small("cartpole", *STEPS, *WRAPPED, "algo.num_envs=2", algo="dqn"),
}


@pytest.fixture(scope="module", params=CASES)
def words(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """A run in one process, never interrupted."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    api.train(experiment([*words, NEVER, f"run_dir={directory}"]))
    return directory


def workers_of(pid: int) -> list[int]:
    """The processes that a process has started and that are running."""
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(parent) == pid and state != "Z":
            children.append(int(path.parent.name))
    return children


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_killed_run_goes_on_as_if_it_had_not_been(words, whole, tmp_path):
    """With workers, too: they compute what one process does."""
    directory = tmp_path / "run"
    every = "checkpoint.every_seconds=0"
    process = Process([*words, *WORKERS, every, f"run_dir={directory}"], tmp_path)
    process.wait_for_rows(directory, 12)
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    state = load(checkpoints(directory)[-1]).state
    assert 0 < state["counters"]["step"] < 1920
    api.resume(directory, total_steps=None)
    assert_same_run(directory, whole)


@pytest.mark.parametrize("words", ["ppo"], indirect=True)
def test_an_interrupt_of_the_whole_group_ends_in_order(whole, words, tmp_path):
    """As from a terminal, where Ctrl-C reaches the workers, too."""
    directory = tmp_path / "run"
    process = Process([*words, *WORKERS, NEVER, f"run_dir={directory}"], tmp_path)
    process.wait_for_rows(directory, 12)
    workers = workers_of(process.pid)
    assert len(workers) == 4  # of the training, and of evaluations
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    assert record(directory)["status"] == "interrupted"
    assert "Traceback" not in process.output()
    assert not any(map(is_there, workers))
    # It goes on in one process: a checkpoint does not know of workers.
    config = directory / "config.yaml"
    assert config.read_text().count("  workers: 2\n") == 1
    config.write_text(config.read_text().replace("  workers: 2\n", "  workers: 0\n"))
    api.resume(directory, total_steps=None)
    assert_same_run(directory, whole)


DEATHS = {
    "exit": r"environment [01] \(seed \d+\): its worker process exited with code 3",
    "hang": r"environment [01] \(seed \d+\): it hangs: no end of a call after 3 s \(env.worker_t.*",
    "raise": r"environment [01] \(seed \d+\) raised ArithmeticError: the simulator broke",
}


# An evaluation of one episode needs no other worker.
ONE = [*STEPS, NEVER, "evaluation.episodes=1"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    directory = tmp_path_factory.mktemp("unbroken") / "run"
    words = fragile(directory.parent, *ONE, f"run_dir={directory}")
    api.train(experiment(words))
    return directory


@pytest.mark.parametrize("order", DEATHS)
def test_what_an_environment_does_to_its_worker_costs_no_step(order, unbroken, tmp_path):
    directory = tmp_path / "run"
    words = fragile(tmp_path, *ONE, f"run_dir={directory}")
    process = Process([*words, "env.workers=2", "env.worker_timeout=3"], tmp_path)
    process.wait_for_rows(directory, 5)
    (tmp_path / order).touch()
    assert process.wait() == 1
    output = process.output()
    line = output.splitlines()[-1]
    assert re.fullmatch(rf"rlrun: {DEATHS[order]}", line)
    assert ("raise ArithmeticError" in output) == (order == "raise")  # the line of the user's file
    assert record(directory)["error"] == f"WorkerFailure: {line.removeprefix('rlrun: ')}"
    saved = checkpoints(directory)[-1]
    assert load(saved).info["step"] == metrics(directory)[-1]["step"] == record(directory)["step"]
    (tmp_path / order).unlink()
    api.resume(directory, total_steps=None, plugins=["fragile"])
    assert_same_run(directory, unbroken)


def test_evaluations_are_of_the_wrapped_environment(tmp_path):
    """A step of CartPole pays 1, of which half is left, and episodes are cut after 9."""
    nodes = "[{name: ClipReward, max_reward: 0.5},{name: TimeLimit, max_episode_steps: 9}]"
    directory = tmp_path / "run"
    words = small("cartpole", "total_steps=64", f"env.wrappers={nodes}", f"run_dir={directory}")
    api.train(experiment(words))
    for row in metrics(directory):
        if "eval/return" in row:
            assert row["eval/return"] == row["eval/length"] / 2 <= 4.5
        if "train/return" in row:
            assert row["train/return"] == row["train/length"] / 2 <= 4.5
    again = api.evaluate_run(directory, episodes=3, seed=0, checkpoint="last")
    assert again["return"] == again["length"] / 2 <= 4.5


def test_a_film_is_of_the_wrapped_environment(tmp_path):
    directory, video = tmp_path / "run", tmp_path / "film.mp4"
    words = small("cartpole", "total_steps=64", *WRAPPED, *WORKERS, f"run_dir={directory}")
    api.train(experiment(words))
    figures = {"episodes": 2, "seed": 0, "checkpoint": "last"}
    film = Film(video)
    filmed = api.evaluate_run(directory, **figures, film=film)
    assert film.error is None
    assert video.stat().st_size > 1000
    assert filmed == api.evaluate_run(directory, **figures)


def test_what_wrappers_cost_is_said(tmp_path, capsys):
    words = [*WRAPPED, "total_steps=64", f"run_dir={tmp_path / 'run'}"]
    api.train(experiment(small("hopper", *words)))
    assert capsys.readouterr().err.count("each Hopper-v5 is stepped by itself, as Gymnasium") == 1


MISTAKES = {
    "env=hopper env.workers=2": "env.workers=2: Hopper-v5 is simulated in a batch on threads",
    "env=cartpole env.workers=3": "env.workers=3, but there are algo.num_envs=2 to step",
    "env=cartpole env.workers=-1": "env.workers must be at least 0, got -1",
    "env=cartpole env.worker_timeout=0": "env.worker_timeout must be positive, got 0",
    "env=frozen_lake algo=value_iteration env.wrappers=[{name: ClipReward, max_reward: 0}]": (
        "FrozenLake-v1: its P does not know of the wrapper ClipReward"
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(case, tmp_path):
    choices, _, setting = case.partition(" env.")
    env, _, algo = choices.removeprefix("env=").partition(" algo=")
    words = small(env, f"env.{setting}", f"run_dir={tmp_path / 'run'}", algo=algo or "ppo")
    with pytest.raises(UserError) as error:
        api.train(experiment(words))
    assert str(error.value).startswith(MISTAKES[case])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
