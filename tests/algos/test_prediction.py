"""Prediction of a given policy: by hand, against the exact value, and as the notes claim."""

import gymnasium as gym
import pytest
import torch
from gymnasium import spaces
from running import experiment, metrics
from tiny import CPU, control, no_policy, part_of, problem_of

from rlrun.algos.tabular.prediction import nearly_best
from rlrun.data.seeding import Streams
from rlrun.envs.control import EnvStep
from rlrun.envs.tabular import TabularModel
from rlrun.errors import UserError
from rlrun.learning.bellman import exact_value
from rlrun.learning.contract import Context
from rlrun.runs import api

GAMMA = 0.5


class Line(gym.Env):
    """Three states in a row and two moves; nobody plays it, its steps are made up."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(2)


def line() -> TabularModel:
    """0 → 1 → 2 → the end, by either move; rewards 1, 2, 4, and 1 more by the second move."""
    transition = torch.zeros(3, 2, 3, dtype=torch.float64)
    transition[0, :, 1] = transition[1, :, 2] = 1
    reward = torch.tensor([[1.0, 2.0], [2.0, 3.0], [4.0, 5.0]], dtype=torch.float64)
    return TabularModel(transition, reward)


def method(name: str, **changes):
    """A method on that line."""
    algorithm = part_of("algo", name, **{"gamma": GAMMA, **changes})
    problem = problem_of(control(Line, 1))
    algorithm.setup(
        Context(
            problem=problem,
            total_steps=100,
            collected=None,
            networks=None,
            estimator=None,
            hardware=CPU,
            streams=Streams.from_seed(0),
            read_table=line,
            load_policy=no_policy,
        )
    )
    return algorithm


def taught(algorithm, s: int, r: float, successor: int, end: str = ""):
    """Have a method learn from one step."""
    one_hot = torch.eye(3)
    step = EnvStep(
        obs=one_hot[[0 if end else successor]],
        next_obs=one_hot[[successor]],
        reward=torch.tensor([r]),
        terminated=torch.tensor([end == "terminated"]),
        truncated=torch.tensor([end == "truncated"]),
    )
    return algorithm.learn(one_hot[[s]], torch.tensor([0]), step, progress=0.0)


def values(algorithm) -> list[float]:
    return algorithm.agent.value.tolist()


def test_the_exact_value_of_a_random_policy():
    policy = nearly_best(line(), GAMMA, 1.0)
    assert torch.equal(policy, torch.full((3, 2), 0.5, dtype=torch.float64))
    wanted = [1.5 + GAMMA * (2.5 + GAMMA * 4.5), 2.5 + GAMMA * 4.5, 4.5]
    assert exact_value(line(), policy, GAMMA).tolist() == pytest.approx(wanted)
    better = nearly_best(line(), GAMMA, 0.2)
    torch.testing.assert_close(better[0], torch.tensor([0.1, 0.9], dtype=torch.float64))
    wanted = [1.9 + GAMMA * (2.9 + GAMMA * 4.9), 2.9 + GAMMA * 4.9, 4.9]
    assert exact_value(line(), better, GAMMA).tolist() == pytest.approx(wanted)


def test_the_best_policy_arrives_where_circling_is_as_good():
    """0 and 1 lead to each other, and 1 to the end by its second move, which pays 1."""
    transition = torch.zeros(2, 2, 2, dtype=torch.float64)
    transition[0, :, 1] = transition[1, 0, 0] = 1
    model = TabularModel(transition, torch.tensor([[0.0, 0], [0, 1]], dtype=torch.float64))
    policy = nearly_best(model, 1.0, 0.0)
    assert policy[1].tolist() == [0, 1]
    assert exact_value(model, policy, 1.0).tolist() == pytest.approx([1, 1])


def test_td_zero_by_hand():
    td = method("td_prediction", step_size=0.1)
    td.agent.value.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert taught(td, 0, 1.0, 1) == {}
    assert values(td) == pytest.approx([1 + 0.1 * (1 + GAMMA * 2 - 1), 2, 3])
    taught(td, 1, 2.0, 2, "terminated")
    assert values(td)[1] == pytest.approx(2 + 0.1 * (2 - 2))
    taught(td, 1, 2.0, 2, "truncated")
    assert values(td)[1] == pytest.approx(2 + 0.1 * (2 + GAMMA * 3 - 2))


def test_traces_by_hand():
    td = method("td_prediction", step_size=0.1, trace_decay=0.8)
    td.agent.value.copy_(torch.tensor([1.0, 2.0, 3.0]))
    taught(td, 0, 1.0, 1)
    first = 1 + 0.1 * (1 + GAMMA * 2 - 1)
    delta = 2 + GAMMA * 3 - 2
    taught(td, 1, 2.0, 2)
    assert values(td) == pytest.approx([first + 0.1 * 0.8 * GAMMA * delta, 2 + 0.1 * delta, 3])
    taught(td, 2, 4.0, 2, "terminated")
    # The next episode begins without a trace.
    before = values(td)
    taught(td, 1, 0.0, 2)
    assert values(td)[0] == before[0]
    assert values(td)[2] == before[2]


def test_a_trace_grows_where_a_state_is_visited_again():
    td = method("td_prediction", step_size=0.1, trace_decay=0.8)
    taught(td, 0, 0.0, 0)
    taught(td, 0, 1.0, 2, "terminated")
    assert values(td)[0] == pytest.approx(0.1 * (1 + 0.8 * GAMMA))


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_n_steps_end_with_the_episode(end):
    td = method("td_prediction", step_size=0.1, n_step=3)
    td.agent.value.copy_(torch.tensor([1.0, 2.0, 3.0]))
    taught(td, 0, 1.0, 1)
    taught(td, 1, 2.0, 2, end)
    following = 2 + (GAMMA * 3 if end == "truncated" else 0)
    wanted = [1 + 0.1 * (1 + GAMMA * following - 1), 2 + 0.1 * (following - 2), 3]
    assert values(td) == pytest.approx(wanted)
    assert td.window == []


def test_n_steps_by_hand():
    td = method("td_prediction", step_size=0.1, n_step=2)
    td.agent.value.copy_(torch.tensor([1.0, 2.0, 3.0]))
    taught(td, 0, 1.0, 1)
    assert values(td) == [1, 2, 3]
    taught(td, 1, 2.0, 2)
    first = 1 + 0.1 * (1 + GAMMA * 2 + GAMMA**2 * 3 - 1)
    assert values(td) == pytest.approx([first, 2, 3])
    taught(td, 2, 4.0, 2, "terminated")
    second = 2 + 0.1 * (2 + GAMMA * 4 - 2)
    assert values(td) == pytest.approx([first, second, 3 + 0.1 * (4 - 3)])


def test_what_was_begun_in_an_episode_is_forgotten_with_it():
    traces, steps = method("td_prediction", trace_decay=0.5), method("td_prediction", n_step=2)
    returns = method("mc_prediction")
    for algorithm in (traces, steps, returns):
        taught(algorithm, 0, 0.0, 1)
        algorithm.forget_episode()
        taught(algorithm, 1, 1.0, 2, "terminated")
        assert values(algorithm)[0] == 0
        assert values(algorithm)[1] > 0


@pytest.mark.parametrize(("visits", "count"), [("first", 1), ("every", 2)])
def test_monte_carlo_by_hand(visits, count):
    mc = method("mc_prediction", visits=visits)
    taught(mc, 0, 1.0, 1)
    taught(mc, 1, 2.0, 0)
    taught(mc, 0, 4.0, 2, "terminated")
    last, following = 4.0, 2 + GAMMA * 4
    first = 1 + GAMMA * following
    mean = first if count == 1 else (first + last) / 2
    assert values(mc) == pytest.approx([mean, following, 0])


def test_monte_carlo_with_a_constant_step():
    mc = method("mc_prediction", step_size=0.1)
    taught(mc, 0, 1.0, 2, "terminated")
    taught(mc, 0, 3.0, 2, "terminated")
    assert values(mc)[0] == pytest.approx(0.1 + 0.1 * (3 - 0.1))


def test_the_error_is_over_the_states_that_are_reached():
    td = method("td_prediction", step_size=0.1)
    td.act(torch.eye(3)[[1]], 0.0)
    td.agent.value.copy_(torch.tensor([100.0, 0.0, 0.0]))
    exact = td.body.exact
    wanted = ((exact[1] ** 2 + exact[2] ** 2) / 2).sqrt()
    assert td.body.score()["value/rms_error"].item() == pytest.approx(wanted.item())
    # What V means for actions is what an evaluation acts by.
    q = td.agent.action_value
    assert q[2].tolist() == [4, 5]
    assert q[0].tolist() == pytest.approx([1, 2])


def test_two_ways_to_look_ahead_at_once_are_refused():
    with pytest.raises(UserError, match="one of them looks ahead"):
        part_of("algo", "td_prediction", n_step=2, trace_decay=0.5)


def errors(directory, *words: str) -> list[float]:
    run = ["env=frozen_lake", "total_steps=5000", "log_every_steps=100", f"run_dir={directory}"]
    quiet = ["evaluation.every_steps=5000", "evaluation.episodes=2", "hardware.threads=1"]
    api.train(experiment([*run, *quiet, *words]))
    return [row["value/rms_error"] for row in metrics(directory) if "value/rms_error" in row]


def test_errors_fall_and_are_drawn(tmp_path):
    found = {
        "mc": errors(tmp_path / "mc", "algo=mc_prediction"),
        "td": errors(tmp_path / "td", "algo=td_prediction", "algo.n_step=4"),
    }
    for name, error in found.items():
        assert sum(error[-10:]) / 10 < 0.5 * error[0], name
    assert (tmp_path / "mc" / "prediction.png").stat().st_size > 10_000
    assert (tmp_path / "mc" / "table.png").exists()


@pytest.mark.parametrize("env", ["cliff_walking", "taxi"])
@pytest.mark.parametrize("algo", ["mc_prediction", "td_prediction algo.step_size=0.5"])
def test_errors_fall_where_episodes_are_cut(algo, env, tmp_path):
    """With γ = 1 they would rise: what the time limit cuts off is most of a value."""
    error = errors(tmp_path / "run", f"env={env}", *f"algo={algo}".split())
    assert error[-1] < 0.97 * error[0]


def test_an_environment_without_a_model_is_named():
    with pytest.raises(UserError, match="Blackjack-v1 does not say its transitions"):
        api.train(experiment(["algo=td_prediction", "env=blackjack"]))
