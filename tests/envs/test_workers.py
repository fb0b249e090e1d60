"""Worker processes: the same data as in one process, and what goes wrong in them is named."""

import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from corridors import (
    Breaks,
    Chatty,
    Dies,
    Odd,
    Random,
    Secretive,
    Sleepy,
    Unrepeatable,
    Witness,
    cannot_be_made,
    crash,
    exit_at_once,
    kill_itself,
)
from gymnasium.utils.env_checker import data_equivalence
from test_serial import draw_rows, random_actions
from tiny import part_of

from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.envs.workers.vector import WorkerVectorEnv
from rlrun.errors import EnvironmentFailure, UserError, WorkerFailure

# Shares of a different size.
NUM_ENVS, WORKERS = 5, 2


def shared_out(make_env, num_envs=NUM_ENVS, workers=WORKERS, timeout=60.0) -> WorkerVectorEnv:
    return WorkerVectorEnv(
        make_env, num_envs=num_envs, workers=workers, timeout=timeout, plugins=[]
    )


def pair(make_env) -> tuple[WorkerVectorEnv, SerialVectorEnv]:
    """The same environments in workers, and in this process."""
    return shared_out(make_env), SerialVectorEnv([make_env] * NUM_ENVS)


def single(name: str, limit: int):
    """What makes one of conf/env/."""
    return partial(part_of("env", name, max_episode_steps=limit).make_single, render_mode=None)


def play(env: WorkerVectorEnv, steps: int) -> None:
    env.reset(seed=40)
    for action in random_actions(env, steps):
        env.step(action)


def is_there(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids(env: WorkerVectorEnv) -> set[int]:
    return {worker._process.pid for worker in env._workers}


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


CASES = [
    (single("cartpole", 30), 2),
    (single("lunar_lander", 90), 3),
    (Chatty, 1),
    (Chatty, 5),
]


@pytest.mark.parametrize(("make_env", "workers"), CASES)
def test_the_data_are_those_of_one_process(make_env, workers):
    ours, theirs = shared_out(make_env, workers=workers), SerialVectorEnv([make_env] * NUM_ENVS)
    assert len(pids(ours)) == workers
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata == theirs.metadata
    assert data_equivalence(ours.reset(seed=7), theirs.reset(seed=7), exact=True)
    ended = 0
    for action in random_actions(theirs, 120):
        got, expected = ours.step(action), theirs.step(action)
        assert data_equivalence(got, expected, exact=True)
        assert list(got[4]) == list(expected[4])
        ended += "final_obs" in got[4]
    assert ended > 0
    assert data_equivalence(ours.state_dict(), theirs.state_dict(), exact=True)
    ours.close()


def test_a_subset_is_stepped():
    ours, theirs = pair(Chatty)
    ours.reset(seed=3)
    theirs.reset(seed=3)
    rows = [*draw_rows(40, NUM_ENVS), np.array([0]), np.array([], np.intp)]
    for action, chosen in zip(random_actions(theirs, 42), rows, strict=True):
        got, expected = ours.step(action, chosen), theirs.step(action, chosen)
        assert data_equivalence(got, expected, exact=True)
    assert data_equivalence(ours.state_dict(), theirs.state_dict(), exact=True)
    ours.close()


def test_a_partial_reset():
    ours, theirs = pair(Chatty)
    with pytest.raises(gym.error.ResetNeeded):
        ours.reset(options={"reset_mask": np.arange(NUM_ENVS) == 1})
    for env in (ours, theirs):
        env.reset(seed=3, options={"shift": 1.0})
    rng = np.random.default_rng(0)
    for action in random_actions(theirs, 12):
        mask = rng.random(NUM_ENVS) < 0.4
        mask[rng.integers(NUM_ENVS)] = True
        seeds = [4, None, 6, 7, None]
        got, expected = (
            env.reset(seed=seeds, options={"reset_mask": mask, "shift": 100.0})
            for env in (ours, theirs)
        )
        assert data_equivalence(got, expected, exact=True)
        assert data_equivalence(ours.step(action), theirs.step(action), exact=True)
    assert data_equivalence(ours.state_dict(), theirs.state_dict(), exact=True)
    ours.close()


def test_a_snapshot_continues_with_any_number_of_workers():
    original = shared_out(Chatty)
    original.reset(seed=11)
    actions = random_actions(original, 60)
    for action in actions[:13]:
        original.step(action)
    state = pickle.loads(pickle.dumps(original.state_dict()))
    others = [shared_out(Chatty, workers=3), SerialVectorEnv([Chatty] * NUM_ENVS)]
    for other in others:
        assert other.load_state_dict(state) == {}
    # Those that are not stepped at first have their observations, too.
    rows = [np.array([1]), *[None] * 46]
    for action, chosen in zip(actions[13:], rows, strict=True):
        expected = original.step(action, chosen)
        for other in others:
            assert data_equivalence(other.step(action, chosen), expected, exact=True)
    original.close()
    others[0].close()


def test_what_does_not_replay_says_so_once(capfd):
    original = shared_out(Unrepeatable)
    original.reset(seed=0)
    for action in random_actions(original, 3):
        original.step(action)
    restored = shared_out(Unrepeatable)
    first = restored.load_state_dict(original.state_dict())
    assert list(first) == list(range(NUM_ENVS))
    assert capfd.readouterr().err == (
        "environment Unrepeatable does not replay exactly: its episode starts anew\n"
    )
    nobody = np.array([], np.intp)
    obs, *_ = restored.step(random_actions(restored, 1)[0], nobody)
    for index, begun in first.items():
        assert (obs["position"][index] == begun["position"]).all()
    original.close()
    restored.close()


def test_workers_are_small_and_deaf_to_interrupts(tmp_path):
    env = shared_out(partial(Witness, str(tmp_path)))
    obs, _ = env.reset(seed=0)
    processes = set(obs[:, 0].astype(int))
    assert processes == pids(env)
    assert os.getpid() not in processes
    assert not obs[:, 1].any(), "a worker has imported torch"
    assert obs[:, 2].all()
    for pid in processes:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(pid, number)
    env.step(np.zeros(NUM_ENVS, np.int64))
    env.close()
    assert not any(map(is_there, processes))
    assert {int(path.name) for path in tmp_path.iterdir()} == processes  # environments are closed


@pytest.mark.parametrize(
    ("where", "when", "error"),
    [("reset", 1, ZeroDivisionError), ("step", 4, SystemExit), ("step", 1, ZeroDivisionError)],
)
def test_an_error_names_the_environment(where, when, error):
    env = shared_out(partial(Breaks, where, when, error))
    with pytest.raises(WorkerFailure) as failure:
        play(env, when)
    # All break in the same call; the first is named.
    assert (failure.value.index, failure.value.seed) == (0, 40)
    line = f"environment 0 (seed 40) raised {error.__name__}: the corridor collapsed"
    assert str(failure.value) == line
    assert "raise self.error(" in failure.value.details
    env.close()


def test_what_a_space_does_not_allow_names_the_environment():
    ours, theirs = pair(Odd)
    messages = []
    for env in (ours, theirs):
        env.reset(seed=40)
        with pytest.raises(EnvironmentFailure, match=r"environment 1 \(seed 41\)") as failure:
            env.step(random_actions(theirs, 1)[0])
        messages.append(str(failure.value))
    assert messages[0] == messages[1]
    ours.close()


def test_an_info_that_cannot_be_sent_is_named():
    env = shared_out(Secretive)
    env.reset(seed=0)
    line = r"^environments 0 to 1: an info cannot be sent from their worker process: cannot pickle"
    with pytest.raises(WorkerFailure, match=line):
        env.step(random_actions(env, 1)[0])
    env.close()


DEATHS = {
    exit_at_once: "its worker process exited with code 3",
    kill_itself: "its worker process was ended by SIGKILL, for want of memory perhaps",
    crash: "its worker process was ended by SIGSEGV",
}


@pytest.mark.parametrize("how", DEATHS)
def test_an_environment_that_ends_its_process_is_named(how):
    env = shared_out(partial(Dies, how))
    processes = pids(env)
    with pytest.raises(WorkerFailure) as failure:
        play(env, 3)
    assert (failure.value.index, failure.value.seed) == (3, 43)
    assert str(failure.value) == f"environment 3 (seed 43): {DEATHS[how]}"
    with pytest.raises(WorkerFailure):  # nor is it waited for again
        env.state_dict()
    env.close()
    assert not any(map(is_there, processes))


def test_an_environment_that_hangs_is_named():
    env = shared_out(partial(Dies, partial(time.sleep, 60)), timeout=0.3)
    processes = pids(env)
    start = time.monotonic()
    with pytest.raises(WorkerFailure) as failure:
        play(env, 3)
    assert time.monotonic() - start < 10
    assert str(failure.value) == (
        "environment 3 (seed 43): it hangs: no end of a call after 0.3 s (env.worker_timeout)"
    )
    env.close()
    assert not any(map(is_there, processes))


def test_time_in_which_all_are_suspended_does_not_count():
    """As where a cluster suspends a job."""
    process = start_keeper(seconds=1.0, timeout=2.0)
    everybody = [process.pid, *map(int, process.stdout.readline().split())]
    time.sleep(0.7)  # in the middle of the step
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in everybody:
            os.kill(pid, number)
        time.sleep(2.5 if number == signal.SIGSTOP else 0)
    assert process.stdout.readline() == "stepped\n"
    process.kill()
    process.communicate()


def test_a_share_may_take_longer_than_a_call():
    env = shared_out(partial(Sleepy, 0.2), num_envs=4, workers=1, timeout=0.5)
    env.reset(seed=0)
    env.step(np.zeros(4, np.int64))  # 0.8 s
    env.close()


def test_an_environment_that_ends_its_process_when_it_is_made():
    with pytest.raises(WorkerFailure) as failure:
        shared_out(partial(cannot_be_made, exit_at_once))
    assert str(failure.value) == f"environment 0 (seed None): {DEATHS[exit_at_once]}"


def test_spaces_that_differ_are_refused():
    with pytest.raises(ValueError, match="has other spaces than environment"):
        shared_out(Random)


def test_what_cannot_be_made_is_one_line():
    spec = part_of("env", "frozen_lake", options={"map_name": "9x9"}, workers=2)
    with pytest.raises(UserError, match=r"KeyError: '9x9' \(in a worker process\)") as error:
        spec.make(num_envs=3, threads=1)
    assert "\n" not in str(error.value)


def test_a_plugin_that_cannot_be_imported_twice_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "once.py").write_text(
        "import pathlib\n\n"
        "mark = pathlib.Path(__file__).with_suffix('.mark')\n"
        "if mark.exists():\n    raise OSError('the licence is taken')\n"
        "mark.touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import once  # noqa: F401

    spec = part_of("env", "cartpole", plugins=["once"], workers=2)
    line = r"env.workers: once cannot be imported: OSError: the licence is taken \(in a worker"
    with pytest.raises(UserError, match=line):
        spec.make(num_envs=2, threads=1)
    del sys.modules["once"]


def test_there_are_no_more_workers_than_environments():
    env = part_of("env", "cartpole", workers=8).make(num_envs=2, threads=1)
    assert len(pids(env)) == 2
    env.close()


# A run's process, as far as its workers know.
KEEPER = """
import sys
from functools import partial

import numpy as np
from corridors import Sleepy

from rlrun.envs.workers.vector import WorkerVectorEnv

seconds, timeout = map(float, sys.argv[1:])
env = WorkerVectorEnv(
    partial(Sleepy, seconds), num_envs=2, workers=2, timeout=timeout, plugins=[]
)
obs, _ = env.reset(seed=0)
print(*obs[:, 0].astype(int), flush=True)
env.step(np.zeros(2, np.int64))
print("stepped", flush=True)
sys.stdin.read()
"""


def start_keeper(seconds: float, timeout: float) -> subprocess.Popen:
    """Start a process with two workers, whose ids it prints, and a step of so many seconds."""
    return subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(seconds), str(timeout)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("seconds", [0, 60], ids=["idle", "in a step"])
def test_workers_end_with_a_process_that_is_killed(seconds):
    with start_keeper(seconds, timeout=60.0) as process:
        workers = list(map(int, process.stdout.readline().split()))
        assert len(workers) == 2
        assert all(map(is_there, workers))
        process.kill()
    wait_for(lambda: not any(map(is_there, workers)))


def test_closing_does_not_wait_for_a_step_that_does_not_end(monkeypatch):
    env = shared_out(partial(Sleepy, 60.0))
    env.reset(seed=0)
    monkeypatch.setattr("rlrun.envs.workers.vector.CLOSING_S", 0.2)
    with pytest.raises(KeyboardInterrupt):
        with_alarm(0.2, lambda: env.step(np.zeros(NUM_ENVS, np.int64)))
    processes = pids(env)
    env.close()
    assert not any(map(is_there, processes))


def with_alarm(seconds, work):
    """Do something that is interrupted after so many seconds, as by Ctrl-C."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        work()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_worker_is_free_of_torch():
    code = "import rlrun.envs.workers.process, rlrun.envs.gym_env, rlrun.envs.mujoco.env, sys"
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"])
    assert done.returncode == 0
