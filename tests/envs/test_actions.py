"""The units of a policy's numbers: a box's size must not decide whether it is learned."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import PointMass, learn, set_up, small_model

from rlrun.envs.actions import ActionAdapter, ActionUnits
from rlrun.envs.control import ControlEnv
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.errors import UserError
from rlrun.runs.evaluate import play_episodes

BOXES = [(-1.0, 1.0), (0.0, 500.0), (0.0, 1e-3)]


class Rescaled(PointMass):
    """The point mass, whose action of −1…1 goes by other numbers."""

    def __init__(self, low: float, high: float):
        self.low, self.high = low, high
        self.action_space = spaces.Box(low, high, (1,), np.float32)

    def step(self, action):
        assert self.action_space.contains(action)
        return super().step((2 * action - self.high - self.low) / (self.high - self.low))


def point_masses(box: tuple[float, float], units: ActionUnits, num_envs: int) -> ControlEnv:
    vector_env = SerialVectorEnv([lambda: Rescaled(*box)] * num_envs)
    return ControlEnv(vector_env, action_units=units)


def trained(box: tuple[float, float], units: ActionUnits) -> tuple[float, float]:
    """The mean return of the first 8 episodes, and that of the greedy policy after learning."""
    env = point_masses(box, units, 4)
    settings = {"horizon": 32, "epochs": 5, "minibatch_size": 64, "learning_rate": 1e-2}
    algorithm, collector = set_up(
        env, model=small_model(hidden_sizes=[16]), time_limit=10, gamma=0.9, **settings
    )
    learn(algorithm, collector, 25)
    first = [value for value, _ in env.drain_episodes()[:8]]
    greedy, evaluation_env = algorithm.agent.actor.act_greedily, point_masses(box, units, 20)
    episodes = play_episodes(greedy, evaluation_env, seed=1, max_length=10)
    return float(np.mean(first)), float(np.mean(episodes.returns))


@pytest.fixture(scope="module")
def as_made() -> tuple[float, float]:
    """What the point mass itself pays, whose box is of the policy's size."""
    first, last = trained(BOXES[0], "raw")
    assert last > -0.1
    return first, last


def test_a_box_of_any_size_pays_the_same_for_the_same_numbers():
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(60, 3, 1, generator=generator)  # some of them outside −1…1
    rewards = {}
    for box in BOXES:
        env = point_masses(box, "box", 3)
        env.reset(0)
        rewards[box] = torch.stack([env.step(action).reward for action in numbers])
    for box in BOXES[1:]:
        torch.testing.assert_close(rewards[box], rewards[BOXES[0]], rtol=0, atol=2e-6)


@pytest.mark.parametrize("box", BOXES)
def test_a_box_of_any_size_is_learned_alike(box, as_made):
    assert trained(box, "box") == pytest.approx(as_made, abs=1e-3)


@pytest.mark.parametrize("box", BOXES[1:])
def test_raw_numbers_learn_only_boxes_of_their_own_size(box, as_made):
    # Of 0…500 nothing is reached but its low end; of 0…1e-3 the two ends, as by a switch.
    assert trained(box, "raw")[1] < 10 * as_made[1]


def test_minus_one_and_one_are_the_ends_of_the_box():
    adapter = ActionAdapter(spaces.Box(0.0, 500.0, (1,), np.float32), "box")
    numbers = np.array([[-1.0], [0.0], [0.5], [1.0], [-7.0], [7.0]], np.float32)
    assert adapter(numbers).ravel().tolist() == [0, 250, 375, 500, 0, 500]
    assert adapter.policy_space == spaces.Box(-1.0, 1.0, (1,), np.float32)


def test_what_stands_for_an_end_is_inside_the_box():
    rng = np.random.default_rng(0)
    ends = np.sort(rng.normal(scale=1e-3, size=(2, 200)), axis=0).astype(np.float32)
    space = spaces.Box(*ends, dtype=np.float32)
    adapter = ActionAdapter(space, "box")
    for number in (-1.0, 1.0):
        actions = adapter(np.full((1, 200), number, np.float32))
        assert space.contains(actions[0].astype(np.float32))


@pytest.mark.filterwarnings("error")
def test_a_dimension_without_bounds_stays_raw():
    largest = np.finfo(np.float32).max
    low = np.array([-np.inf, 0.0, -np.inf, -largest, 0.0], np.float32)
    high = np.array([np.inf, np.inf, 3.0, largest, 4.0], np.float32)
    adapter = ActionAdapter(spaces.Box(low, high), "box")
    assert adapter(np.full((1, 5), 0.5, np.float32)).tolist() == [[0.5, 0.5, 0.5, 0.5, 3.0]]
    assert adapter(np.full((1, 5), -9.0, np.float32)).tolist() == [[-9, 0, -9, -9, 0]]
    assert adapter.policy_space.low[[0, 1, 4]].tolist() == [-np.inf, 0, -1]
    assert adapter.policy_space.high[[0, 2, 4]].tolist() == [np.inf, 3, 1]


def test_raw_numbers_are_the_actions():
    space = spaces.Box(-2.0, 2.0, (2,), np.float32)
    adapter = ActionAdapter(space, "raw")
    assert adapter(np.array([[1.5, -9.0]], np.float32)).tolist() == [[1.5, -2.0]]
    assert adapter.policy_space == space


@pytest.mark.parametrize("units", ["box", "raw"])
def test_a_box_of_minus_one_to_one_is_the_same_in_both(units):
    numbers = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    adapter = ActionAdapter(spaces.Box(-1.0, 1.0, (3,), np.float32), units)
    assert np.array_equal(adapter(numbers), numbers.clip(-1, 1))


@pytest.mark.parametrize("units", ["box", "raw"])
def test_choices_count_from_zero_whatever_the_units(units):
    adapter = ActionAdapter(spaces.Discrete(3, start=-1), units)
    assert adapter.policy_space == spaces.Discrete(3)
    assert adapter(np.array([0, 2])).tolist() == [-1, 1]


@pytest.mark.parametrize("space", [spaces.MultiBinary(3), spaces.Box(0, 9, (2,), np.int64)])
def test_refuses_other_spaces(space):
    with pytest.raises(UserError, match="not supported: use Discrete or a Box of floats"):
        ActionAdapter(space, "raw")
