"""Updates from a replay buffer, compiled: equal to Python's, and beside the physics or not."""

from dataclasses import replace

import pytest
import torch
from running import experiment, metrics, small
from tiny import CPU, Corridor, PointMass, control, set_up, small_model

from rlrun.hardware.compile import Compilation
from rlrun.runs import api

COMPILED = replace(CPU, compile="on")
ALL_OF_DQN = {
    "dueling": True,
    "noisy": {"sigma": 0.5},
    "priorities": {"exponent": 0.6, "correction": 0.4, "epsilon": 1e-6},
    "replay.n_step": 3,
}


@pytest.mark.parametrize(
    ("algo", "make_env", "changes"),
    [("dqn", Corridor, ALL_OF_DQN), ("td3", PointMass, {}), ("sac", PointMass, {})],
    ids=["dqn", "td3", "sac"],
)
def test_compiled_updates_are_those_of_python(algo, make_env, changes, compiler):
    weights = []
    for hardware in (None, COMPILED):
        env = control(make_env, 4)
        settings = {"model": small_model(activation="relu"), "updates_per_step": 4 / 32, **changes}
        if hardware is not None:
            settings["hardware"] = hardware
        ours, collector = set_up(env, algo, horizon=8, **settings)
        if hardware is not None:
            functions = ours.body.learner.functions
            Compilation(functions, hardware, total_steps=10**6).run()
            assert all(function.is_compiled for function in functions)
        for _ in range(5):
            ours.explore(0.0)
            transitions = collector.collect(ours.agent.actor)
            ours.update(0.0)
            ours.buffer.append(transitions)
            ours.agent.publish()
        weights.append(ours.agent.weights() | ours.body.learner.state._asdict())
    for name, tensor in weights[0].items():
        if isinstance(tensor, torch.Tensor):
            torch.testing.assert_close(tensor, weights[1][name], atol=1e-5, rtol=1e-4)


def test_physics_beside_the_updates_changes_nothing(tmp_path, compiler):
    words = ["total_steps=512", "hardware.compile=on", "hardware.learner_threads=1"]
    rows = []
    for threads in (1, 2):  # with one, the updates come before the physics
        directory = tmp_path / f"threads_{threads}"
        given = [*words, f"hardware.threads={threads}", f"run_dir={directory}"]
        api.train(experiment(small("cartpole", *given, algo="dqn")))
        rows.append(metrics(directory))
    assert rows[0] == rows[1]
    assert rows[0][-1]["update"] > 0
