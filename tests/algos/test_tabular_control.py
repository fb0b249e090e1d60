"""Methods that learn a table while they act."""

from collections import Counter
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from running import assert_same_run, experiment, metrics
from tiny import CPU, control, no_policy, no_table, part_of, problem_of

from rlrun.algos.tabular.table import TableAgent
from rlrun.data.seeding import Streams
from rlrun.envs.control import ControlEnv, EnvStep
from rlrun.errors import EnvironmentFailure, UserError
from rlrun.learning.contract import Context
from rlrun.learning.exploration import Exploration
from rlrun.models.tables import Table
from rlrun.runs import api


class Line(gym.Env):
    """Three states in a row and two moves; nobody plays it, its steps are made up."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(2)


def context() -> Context:
    """What a method is set up with there."""
    return Context(
        problem=problem_of(control(Line, 1)),
        total_steps=1_000,
        collected=None,
        networks=None,
        estimator=None,
        hardware=CPU,
        streams=Streams.from_seed(0),
        read_table=no_table,
        load_policy=no_policy,
    )


def method(name: str, **changes):
    """A method on that line, which always takes a best action unless told otherwise."""
    changes = {"gamma": 0.5, "exploration.start": 0.0, "exploration.end": 0.0, **changes}
    algorithm = part_of("algo", name, **changes)
    algorithm.setup(context())
    return algorithm


def one_hot(state: int) -> torch.Tensor:
    return torch.eye(3)[[state]]


def taught(algorithm, s: int, a: int, r: float, successor: int, end: str = "", progress=0.0):
    """Have a method learn from one step."""
    step = EnvStep(
        obs=one_hot(0 if end else successor),
        next_obs=one_hot(successor),
        reward=torch.tensor([r]),
        terminated=torch.tensor([end == "terminated"]),
        truncated=torch.tensor([end == "truncated"]),
    )
    return algorithm.learn(one_hot(s), torch.tensor([a]), step, progress=progress)


Q = torch.tensor([[0.0, 2.0], [8.0, 4.0], [0.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "changes", "target"),
    [
        ("q_learning", {}, 1 + 0.5 * 8),
        ("sarsa", {}, 1 + 0.5 * 8),
        ("expected_sarsa", {}, 1 + 0.5 * 8),
        # Half of the actions are random, half of these the best one.
        (
            "expected_sarsa",
            {"exploration.start": 0.5, "exploration.end": 0.5},
            1 + 0.5 * (0.75 * 8 + 0.25 * 4),
        ),
        ("q_learning", {"exploration.start": 0.5, "exploration.end": 0.5}, 1 + 0.5 * 8),
    ],
)
@pytest.mark.parametrize("end", ["", "terminated", "truncated"])
def test_the_target_by_hand(name, changes, target, end):
    algorithm = method(name, step_size=0.25, **changes)
    algorithm.agent.action_value.copy_(Q)
    said = taught(algorithm, 0, 1, 1.0, 1, end)
    target = 1.0 if end == "terminated" else target
    assert algorithm.agent.action_value[0, 1] == 2 + 0.25 * (target - 2)
    assert said["value/td_error"] == abs(target - 2)
    assert algorithm.agent.value[0] == algorithm.agent.action_value[0].max()
    assert torch.equal(algorithm.agent.action_value[1:], Q[1:])


@pytest.mark.parametrize("end", ["", "terminated", "truncated"])
def test_double_q_learning_lets_the_other_table_judge(end):
    algorithm = method("double_q_learning", step_size=0.25)
    # The first would choose action 0 in state 1, the second action 1.
    first, second = Q.clone(), Q.clone()
    second[1] = torch.tensor([3.0, 7.0])
    targets = [1 + 0.5 * 3, 1 + 0.5 * 4]
    moved = [0, 0]
    for _ in range(40):
        algorithm.tables.values.copy_(torch.stack([first, second]))
        said = taught(algorithm, 0, 1, 1.0, 1, end)
        changed = algorithm.tables.values != torch.stack([first, second])  # [2, S, A]
        assert changed.sum() == 1
        i = int(changed.flatten(1).any(1).int().argmax())
        moved[i] += 1
        target = 1.0 if end == "terminated" else targets[i]
        assert algorithm.tables.values[i, 0, 1] == 2 + 0.25 * (target - 2)
        assert said["value/td_error"] == abs(target - 2)
        # It acts by both.
        assert algorithm.agent.action_value[0, 1] == 2 + 0.125 * (target - 2)
        assert algorithm.agent.value[0] == algorithm.agent.action_value[0].max()
    assert min(moved) > 8


def test_sarsa_takes_the_action_that_it_has_learned_from():
    algorithm = method("sarsa", step_size=1.0, **{"exploration.start": 1.0, "exploration.end": 1.0})
    taken = Counter()
    for _ in range(200):
        algorithm.agent.action_value.copy_(Q)
        taught(algorithm, 0, 0, 0.0, 1)
        action = int(algorithm.act(one_hot(1), 0.0))
        assert algorithm.agent.action_value[0, 0] == 0.5 * Q[1, action]
        taken[action] += 1
    assert 60 < taken[0] < 140
    # An episode that was cut begins anew, somewhere else.
    algorithm.agent.action_value.copy_(Q)
    taught(algorithm, 0, 0, 0.0, 1, "truncated")
    assert algorithm.body.state_dict() == {"next_action": None}


@pytest.mark.parametrize(("visits", "value"), [("first", 1 + 0.5 * 2 + 0.25 * 4), ("every", None)])
def test_monte_carlo_is_the_mean_of_returns(visits, value):
    algorithm = method("mc_control", visits=visits)
    assert taught(algorithm, 0, 0, 1.0, 0) == {}
    taught(algorithm, 0, 0, 2.0, 1)
    taught(algorithm, 1, 1, 4.0, 2, "terminated")
    first, second = 1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4
    wanted = first if visits == "first" else (first + second) / 2
    assert algorithm.agent.action_value[0, 0] == wanted
    assert algorithm.agent.action_value[1, 1] == 4
    # The next episode's return is averaged with these.
    taught(algorithm, 1, 1, 10.0, 2, "truncated")
    assert algorithm.agent.action_value[1, 1] == 7
    assert algorithm.memory.steps == []


def test_exploration_falls_to_its_end():
    exploration = Exploration(start=1.0, end=0.2, share=0.5)
    assert [exploration.epsilon(x) for x in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.6, 0.2, 0.2]
    assert Exploration(start=1.0, end=0.2, share=0.0).epsilon(0.0) == 0.2


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.5), (1.0, 0.0)])
def test_epsilon_falls_wherever_it_is_asked_for(progress, share):
    """In what is done, in SARSA's next action and in the expected one."""
    changes = {"exploration.start": 1.0, "exploration.end": 0.0, "step_size": 1.0}
    sarsa, expected = method("sarsa", **changes), method("expected_sarsa", **changes)
    acted, promised = 0, 0
    for _ in range(400):
        sarsa.agent.action_value.copy_(Q)
        acted += int(sarsa.act(one_hot(1), progress)) == 1
        taught(sarsa, 0, 0, 0.0, 1, progress=progress)
        promised += int(sarsa.act(one_hot(1), progress)) == 1
    assert acted / 400 == pytest.approx(share, abs=0.1 * (share > 0))
    assert promised / 400 == pytest.approx(share, abs=0.1 * (share > 0))
    expected.agent.action_value.copy_(Q)
    taught(expected, 0, 1, 1.0, 1, progress=progress)
    assert expected.agent.action_value[0, 1] == 1 + 0.5 * ((1 - share) * 8 + share * 4)


@pytest.mark.parametrize(
    "name", ["q_learning", "double_q_learning", "sarsa", "expected_sarsa", "mc_control"]
)
def test_logs_have_epsilon(name):
    changes = {"exploration.start": 1.0, "exploration.end": 0.0, "exploration.share": 1.0}
    metrics = taught(method(name, **changes), 0, 0, 1.0, 1, "terminated", progress=0.75)
    assert metrics["schedule/epsilon"] == 0.25


def test_actions_are_random_as_often_as_epsilon_says():
    algorithm = method("q_learning", **{"exploration.start": 0.4, "exploration.end": 0.4})
    algorithm.agent.action_value.copy_(Q)
    taken = Counter(int(algorithm.act(one_hot(1), 0.0)) for _ in range(4_000))
    assert taken[1] / 4_000 == pytest.approx(0.2, abs=0.03)
    assert algorithm.body.probabilities(1, 0.0).tolist() == pytest.approx([0.8, 0.2])
    assert algorithm.body.probabilities(2, 0.0).tolist() == pytest.approx([0.5, 0.5])


def test_what_was_begun_in_an_episode_is_forgotten_with_it():
    sarsa = method("sarsa", **{"exploration.start": 1.0, "exploration.end": 1.0})
    taught(sarsa, 0, 0, 0.0, 1)
    assert sarsa.parts["next_action"].state_dict()["next_action"] is not None
    sarsa.forget_episode()
    assert sarsa.parts["next_action"].state_dict()["next_action"] is None

    algorithm = method("mc_control")
    taught(algorithm, 0, 0, 7.0, 1)
    algorithm.forget_episode()
    taught(algorithm, 1, 1, 4.0, 2, "terminated")
    assert algorithm.agent.action_value[0, 0] == 0
    assert algorithm.agent.action_value[1, 1] == 4


# ---------------------------------------------------------------------- runs


DICE = """
import gymnasium as gym, numpy as np
from gymnasium import spaces

class Dice(gym.Env):
    observation_space = spaces.Discrete(4_000)
    action_space = spaces.Discrete(2)
    dice = np.random.default_rng()  # of nobody's seed

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return int(self.dice.integers(4_000)), {}

    def step(self, action):
        return int(self.dice.integers(4_000)), 0.0, False, False, {}
"""


def test_a_resumed_run_forgets_the_episode_that_it_cannot_go_on_with(tmp_path, monkeypatch):
    (tmp_path / "three_dice.py").write_text(DICE)
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    others = ["env.id=three_dice:Dice", "plugins=[three_dice]", "env.max_episode_steps=1000"]
    others += ["evaluation.max_length=5", "total_steps=40", f"run_dir={run}"]
    api.train(experiment(words("mc_control", "gym", *others)))
    for total, remembered in ((46, 6), (80, 34)):
        api.resume(run, total_steps=total, plugins=["three_dice"])
        state = torch.load(max(run.glob("checkpoints/step-*")) / "state.pt", weights_only=True)
        assert len(state["algorithm.episode"]["steps"]) == remembered


def words(algo: str, env: str, *others: str) -> list[str]:
    return [f"algo={algo}", f"env={env}", "evaluation.episodes=2", "logger=none", *others]


# Sutton & Barto, example 6.6: the greedy policy of Q-learning walks along the edge, where a random
# step falls; SARSA, which will take such steps, keeps away from it.
@pytest.mark.parametrize(
    ("algo", "length"), [("q_learning", {13}), ("sarsa", {15, 17}), ("expected_sarsa", {15, 17})]
)
def test_the_ways_along_the_cliff_are_the_books(algo, length, tmp_path):
    directory = tmp_path / "run"
    others = ["total_steps=20_000", "evaluation.every_steps=20_000", f"run_dir={directory}"]
    assert -api.train(experiment(words(algo, "cliff_walking", *others))) in length
    trained = [row["train/return"] for row in metrics(directory) if "train/return" in row][-3:]
    assert (np.mean(trained) < -35) == (algo == "q_learning")
    assert (directory / "table.png").stat().st_size > 10_000


@pytest.mark.parametrize("algo", ["q_learning", "double_q_learning", "sarsa", "expected_sarsa"])
def test_the_goal_beyond_slippery_ice_is_found(algo, tmp_path):
    others = ["total_steps=30_000", "evaluation.every_steps=30_000", "evaluation.episodes=200"]
    run = experiment([*words(algo, "frozen_lake"), *others, f"run_dir={tmp_path / 'run'}"])
    # The best policy arrives in .74 of the episodes, a random one in .01.
    assert api.train(run) > 0.35


def test_monte_carlo_learns_to_stick():
    run = experiment(words("mc_control", "blackjack", "total_steps=6_000"))
    api.train(run)
    values = run.algo.agent.action_value.reshape(32, 11, 2, 2)
    # With 20 or 21, whatever the dealer shows: another card (1) breaks nearly every such hand.
    assert values[20:22, 1:, 0, 0].mean() > 0.3
    assert values[20:22, 1:, 0, 1].mean() < 0


def test_a_state_is_a_combination_of_its_categories():
    table = Table((32, 11, 2), 1)
    hands = torch.tensor([[20, 10, 1], [0, 0, 0], [31, 10, 1], [3, 2, 0]])
    obs = torch.cat([torch.eye(n)[hands[:, k]] for k, n in enumerate((32, 11, 2))], -1)
    expected = [20 * 22 + 10 * 2 + 1, 0, 32 * 22 - 1, 3 * 22 + 2 * 2]
    assert table.states(obs).tolist() == expected
    table.rows.data[:, 0] = torch.arange(32 * 22)
    assert table(obs).tolist() == [[float(number)] for number in expected]


def test_a_run_whose_environment_failed_goes_on_as_if_it_had_not(tmp_path, monkeypatch):
    common = words("sarsa", "cliff_walking", "total_steps=900", "evaluation.every_steps=300")
    common += ["log_every_steps=50", "checkpoint.every_seconds=3600"]
    whole, failed = tmp_path / "whole", tmp_path / "failed"
    api.train(experiment([*common, f"run_dir={whole}"]))
    step, taken = ControlEnv.step, Counter()

    def failing(env, action, rows=None):
        taken[env.num_envs] += 1
        if env.num_envs == 1 and taken[1] == 707:
            raise EnvironmentFailure(0, 3, ArithmeticError("the wheels came off"))
        return step(env, action, rows)

    monkeypatch.setattr(ControlEnv, "step", failing)
    with pytest.raises(EnvironmentFailure):
        api.train(experiment([*common, f"run_dir={failed}"]))
    monkeypatch.undo()
    api.resume(failed, total_steps=None)
    assert_same_run(failed, whole)


def test_more_states_than_memory_are_refused():
    many = problem_of(control(Line, 1))
    with pytest.raises(UserError, match=r"a table of 1e\+30 states needs at least"):
        TableAgent(replace(context(), problem=replace(many, state_sizes=(10,) * 30)))


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(UserError, match="Hopper-v5 is no table: its states and actions cannot"):
        api.train(experiment(words("q_learning", "hopper")))
