"""N steps = N/2, killed or stopped, resumed, N/2: the same bits, for every algorithm."""

import itertools
import re
import resource
import signal

import pytest
from running import (
    Process,
    assert_same_run,
    checkpoints,
    differences,
    experiment,
    fragile,
    metrics,
    record,
    small,
)
from tiny import algorithms, algorithms_of_language_alone, yaml_of

from rlrun import loops
from rlrun.envs.control import ControlEnv
from rlrun.errors import EnvironmentFailure, Interrupted, UserError
from rlrun.runs import api
from rlrun.runs.files.checkpoint import load
from rlrun.runs.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")

ALGORITHMS = algorithms(loops.on_policy)
ENVIRONMENTS = ["cartpole", "hopper"]
# 60 iterations of PPO, with evaluations after 15, 30, 45 and 60 of them. Episodes are so short
# that a clock that was not saved would show.
STEPS = ["total_steps=3840", "evaluation.every_steps=960", "env.max_episode_steps=25"]
NEVER = "checkpoint.every_seconds=3600"


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def env(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(env, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reference") / "run"
    api.train(experiment(small(env, *STEPS, NEVER, f"run_dir={directory}")))
    return directory


def find(state, name):
    """The first entry of that name in a nest of dicts."""
    if not isinstance(state, dict):
        return None
    found = (find(value, name) for value in state.values())
    return state.get(name, next((value for value in found if value is not None), None))


KILLED = (signal.SIGKILL, -signal.SIGKILL, "running", "checkpoint.every_seconds=0")
# One signal for each environment: what follows is the same.
STOPPED = {
    "cartpole": (signal.SIGINT, 128 + signal.SIGINT, "interrupted", NEVER),
    "hopper": (signal.SIGTERM, 128 + signal.SIGTERM, "interrupted", NEVER),
}


@pytest.mark.parametrize("killed", [True, False])
def test_half_a_run_and_the_other_half_are_the_run(env, uninterrupted, tmp_path, killed):
    number, code, status, every = KILLED if killed else STOPPED[env]
    directory = tmp_path / "run"
    process = Process(small(env, *STEPS, every, f"run_dir={directory}"), tmp_path)
    process.wait_for_rows(directory, 20)
    process.send(number)
    assert process.wait() == code
    assert record(directory)["status"] == status
    middle = load(checkpoints(directory)[-1]).state
    step = middle["counters"]["step"]
    assert 0 < step < 3840
    assert (find(middle, "lengths") > 0).any(), "no episode is in its middle"
    if not killed:  # it ended in order: nothing of what it did is lost
        assert record(directory)["step"] == metrics(directory)[-1]["step"] == step
        assert (directory / "curves.png").exists()
        assert f"rlrun resume {directory}" in process.output()

    api.resume(directory, total_steps=None)
    assert_same_run(directory, uninterrupted)


def test_a_run_killed_before_its_second_checkpoint_starts_again(env, uninterrupted, tmp_path):
    directory = tmp_path / "run"
    process = Process(small(env, *STEPS, NEVER, f"run_dir={directory}"), tmp_path)
    process.wait_for_rows(directory, 2)
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [load(path).info["step"] for path in checkpoints(directory)] == [0]
    api.resume(directory, total_steps=None)
    assert_same_run(directory, uninterrupted)


# Rows of more than one iteration, so that a run can be stopped in the middle of one.
ROWS = ["total_steps=384", "evaluation.every_steps=256", "log_every_steps=100"]
SHORT = "env.max_episode_steps=25"
TINY = ("model.width=8", "model.heads=2")
CASES = {
    **{algo: ("cartpole", algo) for algo in ALGORITHMS},
    "value_iteration": ("frozen_lake", "value_iteration"),
    **{algo: ("cliff_walking", algo) for algo in algorithms(loops.online)},
    "dqn": ("cartpole", "dqn"),
    "dqn with all": (
        "cartpole",
        "dqn",
        "algo.dueling=true",
        "algo.noisy={sigma: 0.5}",
        "algo.priorities={exponent: 0.6, correction: 0.4, epsilon: 1e-6}",
        "algo.replay.n_step=3",
    ),
    # More is written than the buffer holds.
    **{
        algo: ("pendulum", algo, "algo.replay.capacity=150")
        for algo in algorithms(loops.off_policy)
        if algo != "dqn"
    },
    "ddpg with correlated noise": ("pendulum", "ddpg", "algo.noise.reversion=0.15"),
    "sac with choices": ("cartpole", "sac"),
    "ppo on hopper": ("hopper", "ppo"),
    **{
        f"{algo} of tokens": (env, algo, *TINY)
        for algo, env in {
            "grpo": "add",
            "dapo": "parity",
            "ppo": "copy",
            "reinforce": "add",
        }.items()
    },
    "sft": ("copy", "sft", *TINY),
    "rft": ("parity", "rft", *TINY),
    # Beside another policy, which is read again when the run goes on.
    **{
        f"{algo} beside another": ("parity", algo, *TINY, "model.init={start}", *words)
        for algo, words in {
            **{algo: () for algo in algorithms_of_language_alone() if algo not in ("sft", "rft")},
            "rft": ("algo.reference={start}",),
            "grpo": (
                "algo.kl.reference={start}",
                "algo.kl.coefficient=0.1",
                "algo.kl.refresh_every=2",
            ),
        }.items()
    },
    "tokens with critics": ("add", "reinforce", "model.width=8", "advantage=baseline_value"),
    "ppo in groups": ("hopper", "ppo", "collector=episodes", "collector.group_size=2"),
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    directory = tmp_path_factory.mktemp("start") / "run"
    api.train(experiment(small("parity", *ROWS, *TINY, f"run_dir={directory}", algo="sft")))
    return directory


@pytest.mark.parametrize(
    ("env", "algo", "words"), [(c[0], c[1], c[2:]) for c in CASES.values()], ids=CASES
)
def test_every_algorithm_goes_on_as_if_it_had_not_been_stopped(
    env, algo, words, start, tmp_path, monkeypatch
):
    reference, directory = tmp_path / "reference", tmp_path / "run"
    words = [*ROWS, NEVER, *(word.replace("{start}", str(start)) for word in words)]
    if "max_episode_steps" in yaml_of("env", env):
        words.append(SHORT)
    api.train(experiment(small(env, *words, f"run_dir={reference}", algo=algo)))

    log = Run.log

    def stopped(run, metrics):
        log(run, metrics)
        if run.counters.step >= 150 and run.assembly.averager.since < run.counters.step:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Run, "log", stopped)
    with pytest.raises(Interrupted):
        api.train(experiment(small(env, *words, f"run_dir={directory}", algo=algo)))
    monkeypatch.undo()
    middle = load(checkpoints(directory)[-1]).state
    rows = [row["step"] for row in metrics(directory) if "train/episodes" in row]
    assert rows[-1] < middle["counters"]["step"] < 384

    api.resume(directory, total_steps=None)
    assert_same_run(directory, reference)
    asked = {"episodes": 2, "seed": 0, "checkpoint": "last"}
    played = [api.evaluate_run(place, **asked) for place in (directory, reference)]
    assert played[0].pop("checkpoint") != played[1].pop("checkpoint")
    assert played[0] == played[1]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    directory = tmp_path_factory.mktemp("unbroken") / "run"
    api.train(experiment(fragile(directory, *STEPS, f"run_dir={directory}")))
    return directory


def test_an_environment_that_raises_ends_the_run_after_a_checkpoint(unbroken, tmp_path):
    directory, order = tmp_path / "run", tmp_path / "raise"
    process = Process(fragile(tmp_path, *STEPS, NEVER, f"run_dir={directory}"), tmp_path)
    process.wait_for_rows(directory, 5)
    order.touch()
    assert process.wait() == 1
    output = process.output()
    assert "raise ArithmeticError" in output  # the line of the user's file
    (line,) = (line for line in output.splitlines() if line.startswith("rlrun: "))
    assert re.fullmatch(
        r"rlrun: environment [01] \(seed \d+\) raised ArithmeticError: the simulator broke", line
    )
    assert record(directory)["status"] == "failed"
    assert record(directory)["error"] == f"EnvironmentFailure: {line.removeprefix('rlrun: ')}"
    # Everything that was logged is in the checkpoint, and nothing of the broken iteration.
    saved = checkpoints(directory)[-1]
    assert load(saved).info["step"] == metrics(directory)[-1]["step"] == record(directory)["step"]

    order.unlink()
    with pytest.raises(UserError, match="uses code of 'fragile': allow it with --plugin fragile"):
        api.resume(directory, total_steps=None)
    api.resume(directory, total_steps=None, plugins=["fragile"])
    assert_same_run(directory, unbroken)


def test_an_environment_that_raises_beside_updates_costs_the_steps_since_the_checkpoint(tmp_path):
    """The learner goes on while the environment fails, and cannot be taken back."""
    package = ["env.id=Fragile-v0", "plugins=[fragile]", f"+env.options.directory={tmp_path}"]
    words = small("gym", *package, *STEPS, NEVER, algo="dqn")
    whole, directory, order = tmp_path / "whole", tmp_path / "run", tmp_path / "raise"
    api.train(experiment([*words, f"run_dir={whole}"]))
    process = Process([*words, f"run_dir={directory}"], tmp_path)
    process.wait_for_rows(directory, 8)
    order.touch()
    assert process.wait() == 1
    assert record(directory)["status"] == "failed"
    saved = load(checkpoints(directory)[-1]).info["step"]
    assert saved < metrics(directory)[-1]["step"]
    order.unlink()
    api.resume(directory, total_steps=None, plugins=["fragile"])
    assert_same_run(directory, whole)


def test_an_observation_that_is_not_a_number_ends_the_run(unbroken, tmp_path):
    directory, order = tmp_path / "run", tmp_path / "nan"
    words = fragile(tmp_path, *STEPS, "checkpoint.every_seconds=0", f"run_dir={directory}")
    process = Process(words, tmp_path)
    process.wait_for_rows(directory, 5)
    order.touch()
    assert process.wait() == 1
    last = checkpoints(directory)[-1]
    counters = load(last).state["counters"]
    line = process.output().splitlines()[-1]
    assert re.fullmatch(
        r"rlrun: observation of environment [01] is not finite after update "
        rf"{counters['update']} \(step {counters['step']}\); the last good checkpoint is {last}",
        line,
    )
    assert "Traceback" not in process.output()
    assert record(directory)["error"] == line.removeprefix("rlrun: ")
    order.unlink()
    api.resume(directory, total_steps=None, plugins=["fragile"])
    assert_same_run(directory, unbroken)


def test_a_full_disk_ends_the_run_and_costs_no_checkpoint(unbroken, tmp_path):
    directory = tmp_path / "run"
    words = fragile(tmp_path, *STEPS, "checkpoint.every_seconds=0", f"run_dir={directory}")
    process = Process(words, tmp_path)
    process.wait_for_rows(directory, 5)
    # No file can grow beyond this any more, which is less than a checkpoint has.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    assert process.wait() == 1
    line = process.output().splitlines()[-1]
    assert re.fullmatch(
        rf"rlrun: {directory}/checkpoints/step-\d+ could not be written: .*File too large", line
    )
    assert "Traceback" not in process.output()
    assert record(directory)["status"] == "failed"
    api.resume(directory, total_steps=None, plugins=["fragile"])
    assert_same_run(directory, unbroken)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path, capsys):
    words = small("cartpole", "total_steps=256", "checkpoint.every_seconds=0")
    whole, directory = tmp_path / "whole", tmp_path / "run"
    for path in (whole, directory):
        api.train(experiment([*words, f"run_dir={path}"]))
    newest = checkpoints(directory)[-1]
    damaged = newest / "state.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    leftover = directory / "checkpoints" / ".writing-step-000000999999"
    leftover.mkdir()
    capsys.readouterr()
    api.resume(directory, total_steps=None)
    message = f"{newest} is passed over: state.pt does not match its checksum"
    assert message in capsys.readouterr().err
    assert not leftover.exists()
    assert_same_run(directory, whole)


def test_a_run_that_keeps_one_checkpoint_keeps_a_whole_one(tmp_path):
    directory = tmp_path / "run"
    words = ["total_steps=256", "checkpoint.every_seconds=0", "checkpoint.keep=3"]
    api.train(experiment(small("cartpole", *words, f"run_dir={directory}")))
    config = directory / "config.yaml"
    assert config.read_text().count("keep: 3\n") == 1
    config.write_text(config.read_text().replace("keep: 3\n", "keep: 1\n"))
    (directory / "checkpoints" / "best").unlink()
    for path in checkpoints(directory)[-2:]:
        (path / "state.pt").write_bytes(b"zeros, say")
    api.resume(directory, total_steps=192)  # one iteration from step 128, short of the damaged 256
    assert [path.name for path in checkpoints(directory)] == ["step-000000000192"]
    assert load(checkpoints(directory)[-1]).info["step"] == record(directory)["step"] == 192
    api.resume(directory, total_steps=256)
    assert record(directory)["status"] == "finished"


@pytest.mark.parametrize(
    ("algo", "collector"),
    [
        ("ppo", "segments"),
        ("reinforce", "episodes"),
        ("grpo", "groups"),
        ("dapo", "dynamic_sampling"),
    ],
)
def test_what_an_environments_error_leaves_is_the_state_before_the_iteration(
    algo, collector, tmp_path, monkeypatch
):
    steps = ["total_steps=640", "evaluation.every_steps=320", SHORT, NEVER]
    words = small("cartpole", *steps, f"collector={collector}", algo=algo)
    words.append("evaluation.episodes=3")
    whole, failed = tmp_path / "whole", tmp_path / "failed"
    api.train(experiment([*words, f"run_dir={whole}"]))
    calls, step = itertools.count(), ControlEnv.step

    def failing(env, action, rows=None):
        result = step(env, action, rows)  # some of them have stepped when one raises
        if env.num_envs == 2 and next(calls) == 200:  # not in an evaluation, which has 3
            raise EnvironmentFailure(0, 3, ArithmeticError("the wheels came off"))
        return result

    monkeypatch.setattr(ControlEnv, "step", failing)
    with pytest.raises(EnvironmentFailure):
        api.train(experiment([*words, f"run_dir={failed}"]))
    monkeypatch.undo()
    assert record(failed)["status"] == "failed"
    assert load(checkpoints(failed)[-1]).info["step"] == record(failed)["step"] > 0
    api.resume(failed, total_steps=None)
    assert_same_run(failed, whole)


def test_a_finished_run_goes_on_to_a_later_end(tmp_path):
    directory = tmp_path / "run"
    api.train(experiment(small("cartpole", "total_steps=256", f"run_dir={directory}")))
    before = metrics(directory)
    weights = load(checkpoints(directory)[-1]).weights

    for total in (None, 256, 128):
        with pytest.raises(UserError, match="has done its 256 steps"):
            api.resume(directory, total_steps=total)
    assert metrics(directory) == before

    api.resume(directory, total_steps=512)
    after = metrics(directory)
    assert after[: len(before)] == before
    steps = [row["step"] for row in after if "train/episodes" in row]
    assert steps == list(range(64, 513, 64))
    assert [row["step"] for row in after if "eval/return" in row] == [0, 256, 512]
    assert record(directory)["total_steps"] == 512
    assert record(directory)["status"] == "finished"
    assert differences(weights, load(checkpoints(directory)[-1]).weights) != []
    # The new total is the run's own now.
    with pytest.raises(UserError, match="has done its 512 steps"):
        api.resume(directory, total_steps=None)


def test_a_run_killed_between_its_last_checkpoint_and_its_end_is_finished(tmp_path):
    directory = tmp_path / "run"
    words = small("cartpole", "total_steps=512", f"run_dir={directory}")
    api.train(experiment(words))
    last, best = checkpoints(directory)[-1], directory / "checkpoints" / "best"
    assert best.resolve() == last.resolve(), "take another seed"
    rows, files = metrics(directory), checkpoints(directory)
    # What is on the disk at that moment: everything but the last writing of run.json and `best`.
    text = (directory / "run.json").read_text().replace('"finished"', '"running"')
    (directory / "run.json").write_text(text)
    best.unlink()
    api.resume(directory, total_steps=None)
    assert record(directory)["status"] == "finished"
    assert (metrics(directory), checkpoints(directory)) == (rows, files)
    assert best.resolve() == last.resolve()


def test_a_resume_that_is_refused_changes_nothing(tmp_path):
    directory = tmp_path / "run"
    api.train(experiment(small("cartpole", "total_steps=128", f"run_dir={directory}")))
    path = directory / "metrics.jsonl"
    path.write_text(path.read_text().replace("}\n", "\n", 1))
    files = ("run.json", "config.yaml", "overrides.yaml", "metrics.jsonl")
    before = [(directory / name).read_text() for name in files]
    with pytest.raises(UserError, match=r"metrics.jsonl, line 1: "):
        api.resume(directory, total_steps=256)
    assert [(directory / name).read_text() for name in files] == before
