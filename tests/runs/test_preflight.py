from dataclasses import replace

import pytest
from running import experiment, small

from rlrun.envs.gym_env import GymEnv
from rlrun.errors import UserError
from rlrun.runs.preflight import Rehearsal


def test_runs_with_the_same_environment_share_a_single_one(monkeypatch):
    made = []
    make = GymEnv.make
    monkeypatch.setattr(
        GymEnv,
        "make",
        lambda self, *, num_envs, threads: (
            made.append((self.id, num_envs)) or make(self, num_envs=num_envs, threads=threads)
        ),
    )
    rehearsal = Rehearsal()
    for env in ("cartpole", "acrobot", "cartpole"):
        for algo in ("ppo", "trpo"):
            rehearsal.check(experiment(small(env, algo=algo)))
    assert made == [("CartPole-v1", 1), ("Acrobot-v1", 1)]


def test_the_settings_of_the_environment_count():
    rehearsal = Rehearsal()
    words = [*small("cartpole", algo="dapo"), "algo.overlong_buffer=100"]
    rehearsal.check(experiment(words))
    with pytest.raises(UserError, match=r"overlong_buffer"):
        rehearsal.check(experiment([*words, "env.max_episode_steps=50"]))


def test_the_settings_of_the_collector_count():
    rehearsal = Rehearsal()
    words = small("cartpole", algo="grpo")
    rehearsal.check(experiment(words))
    with pytest.raises(UserError, match=r"from one start: collector=groups"):
        rehearsal.check(experiment([*words, "collector.group_size=1"]))


def test_a_run_needs_its_device():
    run = experiment(small("cartpole"))
    with pytest.raises(UserError, match=r"hardware\.device=cuda"):
        Rehearsal().check(replace(run, hardware=replace(run.hardware, device="cuda:99")))
