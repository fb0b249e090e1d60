"""Planners: they agree, they find the known paths, and their runs are runs like any other."""

import json
from functools import cache

import pytest
import torch
from running import differences, experiment, metrics, record
from tiny import algorithms

from rlrun import loops
from rlrun.algos.tabular.table import Plan
from rlrun.data.seeding import Streams
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem
from rlrun.errors import UserError
from rlrun.learning.bellman import action_values, exact_value
from rlrun.runs import api
from rlrun.runs.setup.preflight import make_context, set_up

PLANNERS = ["policy_iteration", "value_iteration"]
ONLINE = algorithms(loops.online)
TABLES = ["frozen_lake", "cliff_walking", "taxi"]
EXACT, ITERATIVE = "algo.evaluation=exact", "algo.evaluation=iterative"
METHODS = {
    "value_iteration": ["algo=value_iteration", "algo.tolerance=1e-13"],
    "exact": ["algo=policy_iteration", EXACT],
    "iterative": ["algo=policy_iteration", ITERATIVE, "algo.tolerance=1e-13"],
}


def planner(*words: str):
    """A planner that is set up for a run."""
    run = experiment([*words])
    env = ControlEnv.make(run.env, num_envs=1, threads=1)
    context = make_context(
        run, Problem.of(run.env, env), Streams.from_seed(0), load_policy=lambda *_: None
    )
    set_up(run.algo, context)
    return run.algo


@cache
def planned(method: str, env: str) -> Plan:
    """What a method comes to."""
    algorithm = planner(*METHODS[method], f"env={env}", "algo.gamma=0.95")
    for _ in range(2_000):
        algorithm.sweep()
        if algorithm.plan.converged:
            return algorithm.plan
    raise AssertionError("it did not converge")


@pytest.mark.parametrize("env", TABLES)
@pytest.mark.parametrize("method", METHODS)
def test_all_find_the_values_of_the_best_policy(method, env):
    plan, other = planned(method, env), planned("exact", env)
    torch.testing.assert_close(plan.value, other.value, rtol=0, atol=1e-10)
    # The value of its own policy, by a linear solve; and no action is better than the policy's.
    solved = exact_value(plan.model, plan.policy, 0.95)
    torch.testing.assert_close(plan.value, solved, rtol=0, atol=1e-10)
    best = action_values(plan.model, solved, 0.95).max(-1).values
    torch.testing.assert_close(best, solved, rtol=0, atol=1e-10)


def test_a_sweep_of_value_iteration_by_hand():
    algorithm = planner("algo=value_iteration", "env=cliff_walking", "algo.gamma=0.5")
    first = algorithm.sweep()
    assert algorithm.plan.value[:36].tolist() == [-1.0] * 36
    assert first["value/change"] == 1.0
    algorithm.sweep()
    assert algorithm.plan.value[35] == -1.0  # down, and the episode is over
    assert algorithm.plan.value[34] == -1.5
    assert not algorithm.plan.converged


@pytest.mark.parametrize("algo", PLANNERS)
def test_the_shortest_way_along_the_cliff_is_thirteen_steps(algo, tmp_path, capfd):
    directory = tmp_path / "run"
    words = [f"algo={algo}", "env=cliff_walking", "evaluation.episodes=2", f"run_dir={directory}"]
    assert api.train(experiment(words)) == -13.0
    said = record(directory)
    shown = capfd.readouterr()
    assert f"after {said['step']} sweeps, where it converged" in shown.out
    assert "of 10,000 sweeps" in shown.err
    assert (said["status"], said["final_return"]) == ("finished", -13.0)
    assert said["step"] < said["total_steps"]
    rows = [row for row in metrics(directory) if "value/change" in row]
    assert [row["step"] for row in rows] == list(range(1, said["step"] + 1))
    assert (directory / "table.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"has converged after \d+ sweeps"):
        api.resume(directory, total_steps=20_000)
    result = api.evaluate_run(directory, episodes=3, seed=1, checkpoint="best")
    assert json.dumps(result).count("-13.0") >= 1


def test_policy_iteration_leaves_an_action_only_for_one_that_is_better_by_more_than_its_tolerance():
    algorithm = planner("algo=policy_iteration", EXACT, "env=frozen_lake", "algo.tolerance=10")
    before = algorithm.plan.policy.clone()
    assert algorithm.sweep()["policy/changed_states"] == 0  # no action is worth more than 1 there
    assert torch.equal(algorithm.plan.policy, before)
    assert algorithm.plan.converged


@pytest.mark.parametrize("algo", PLANNERS)
def test_a_plan_goes_on_from_its_state(algo):
    one, other = (planner(f"algo={algo}", "env=frozen_lake") for _ in range(2))
    for _ in range(3):
        one.sweep()
    other.agent.load_weights(one.agent.weights())
    other.plan.load_state_dict(one.plan.state_dict())
    for _ in range(2):
        assert differences(one.sweep(), other.sweep()) == []
    assert differences(one.agent.weights(), other.agent.weights()) == []


def test_a_plan_of_another_table_is_refused():
    lake, cliff = (planner("algo=value_iteration", f"env={env}") for env in TABLES[:2])
    with pytest.raises(ValueError, match="a policy of 16 states, not 48"):
        cliff.plan.load_state_dict(lake.plan.state_dict())


def test_without_a_discount_policies_may_be_worth_nothing_finite():
    with pytest.raises(UserError, match=r"algo\.gamma must be in \[0, 1\), got 1"):
        experiment(["algo=policy_iteration", "env=frozen_lake", "algo.gamma=1"])
