"""What environments of users return wrongly is named, not trained on."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.errors import EnvironmentFailure, InvalidOutput

FLOATS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
PIXELS = spaces.Box(0, 255, (2,), np.uint8)
PAIR = spaces.Tuple((FLOATS, spaces.Discrete(4)))
PARTS = spaces.Dict({"position": FLOATS, "door": spaces.MultiBinary(2)})


def right(space: gym.Space) -> Any:
    space.seed(0)
    return space.sample()


class Says(gym.Env):
    """Returns what it is told to, in the step or reset that it is told."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: gym.Space, wrong: dict[str, Any]):
        self.observation_space, self.wrong = space, wrong
        self.good = right(space)
        self.resets = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets += 1
        self.elapsed = 0
        if "reset" in self.wrong:
            return self.wrong["reset"]
        where = "first" if self.resets == 1 else "next"
        return self.wrong.get(where, self.good), {}

    def step(self, action):
        self.elapsed += 1
        if "step" in self.wrong:
            return self.wrong["step"]
        over = self.elapsed == 3
        obs = self.wrong.get("final" if over else "obs", self.good)
        reward, terminated = self.wrong.get("reward", 1.0), self.wrong.get("terminated", over)
        return obs, reward, terminated, self.wrong.get("truncated", False), {}


def run(vector_type: Any, space: gym.Space, wrong: dict[str, Any], **arguments: Any) -> list[Any]:
    """Three environments, the second of which is wrong, over the end of an episode."""
    told: list[dict[str, Any]] = [{}, wrong, {}]
    env = vector_type([lambda told=one: Says(space, told) for one in told], **arguments)
    results: list[Any] = [env.reset(seed=40)]
    results += [env.step(np.zeros(3, np.int64)) for _ in range(5)]
    return results


def run_gymnasium(space: gym.Space, wrong: dict[str, Any]) -> list[Any]:
    return run(SyncVectorEnv, space, wrong, autoreset_mode=AutoresetMode.SAME_STEP)


# (space, observation that is not of it, what is said of it)
OBSERVATIONS = [
    (FLOATS, np.zeros(1, np.float32), r"has shape \(1,\), and its space \(3,\)"),
    (FLOATS, np.zeros((3, 1), np.float32), r"has shape \(3, 1\), and its space \(3,\)"),
    (FLOATS, 0.5, r"has shape \(\), and its space \(3,\)"),
    (FLOATS, None, "None is of type object, and its space of float32"),
    (FLOATS, [1.0, None, 2.0], "is of type object"),
    (FLOATS, [[1.0], [1.0, 2.0], 3.0], "is no array"),
    (FLOATS, ["1", "2", "3"], "is of type <U1, and its space of float32"),
    (FLOATS, np.zeros(3, complex), "is of type complex128"),
    (PIXELS, np.array([300.0, 1.0]), "is of type float64, and its space of uint8"),
    (PIXELS, np.array([300, 1]), "is of type int64, and its space of uint8"),
    (PIXELS, np.array([-1, 1], np.int8), "is of type int8, and its space of uint8"),
    (spaces.Box(0, 9, (1,), np.int32), np.array([2**40]), "does not fit into int32"),
    (spaces.Discrete(4), 1.5, "1.5 is of type float64, and its space of int64"),
    (spaces.Discrete(4), 4, r"4 is not in Discrete\(4\)"),
    (spaces.Discrete(4, start=2), 1, "1 is not in Discrete"),
    (spaces.Discrete(4), np.array([1]), r"has shape \(1,\), and its space \(\)"),
    (spaces.Discrete(4), None, "None is of type object"),
    (spaces.MultiDiscrete([2, 3]), np.array([1.0, 2.0]), "is of type float64"),
    (spaces.MultiDiscrete([2, 3]), np.array([1, 3]), r"\[1, 3\] is not in MultiDiscrete"),
    (spaces.MultiDiscrete([2, 3]), np.array([1]), r"has shape \(1,\)"),
    (spaces.MultiBinary(2), np.array([0, 2]), r"\[0, 2\] is not in MultiBinary"),
    (PAIR, (np.zeros(3, np.float32),), "is no tuple of 2 parts"),
    (PAIR, (np.zeros(3, np.float32), 1, 1), "is no tuple of 2 parts"),
    (PAIR, None, "None is no tuple of 2 parts"),
    (PAIR, (np.zeros(2, np.float32), 1), r"\[0\] has shape \(2,\)"),
    (PAIR, (np.zeros(3, np.float32), 9), r"\[1\] 9 is not in Discrete\(4\)"),
    (PARTS, {"position": np.zeros(3)}, "is no dict of 'door', 'position'"),
    (PARTS, {**right(PARTS), "sound": 1}, "is no dict of 'door', 'position'"),
    (PARTS, {**right(PARTS), "position": 1.0}, r"\['position'\] has shape \(\)"),
    (PARTS, np.zeros(5), "is no dict of"),
]


@pytest.mark.parametrize("where", ["first", "obs", "final", "next"])
@pytest.mark.parametrize(("space", "obs", "message"), OBSERVATIONS)
def test_an_observation_that_is_not_of_its_space_is_named(space, obs, message, where):
    match = rf"^environment 1 \(seed 41\): observation.*{message}"
    with warnings.catch_warnings(action="error"), pytest.raises(InvalidOutput, match=match) as got:
        run(SerialVectorEnv, space, {where: obs})
    assert (got.value.index, got.value.seed) == (1, 41)
    assert "\n" not in str(got.value)


# (space, observation that is cast to it without loss, or as a float is rounded)
OTHER_TYPES = [
    (FLOATS, np.array([0.1, 1e-60, 2.0])),
    (FLOATS, [1, 2, 3]),
    (FLOATS, np.array([True, False, True])),
    (FLOATS, np.array([1, 2, 3], np.uint8)),
    (spaces.Box(-9, 9, (2,), np.int64), np.array([-1, 3], np.int8)),
    (spaces.Box(-9, 9, (2,), np.int8), np.array([-1, 3], np.int64)),
    (spaces.Box(0, 9, (2,), np.int64), np.array([1, 3], np.uint64)),
    (spaces.Discrete(4), np.uint8(3)),
    (spaces.Discrete(4), True),
    (spaces.MultiDiscrete([2, 3]), [1, 2]),
    (spaces.MultiBinary(2), [1, 0]),
    (spaces.MultiBinary(2), np.array([True, False])),
    (PAIR, (np.zeros(3), np.int8(2))),
    (PARTS, {"door": [1, 1], "position": [0.5, 1.0, 1.5]}),
]


@pytest.mark.parametrize("where", ["first", "obs", "final", "next"])
@pytest.mark.parametrize(("space", "obs"), OTHER_TYPES)
def test_an_observation_of_another_type_is_cast_as_gymnasium_does(space, obs, where):
    ours, theirs = run(SerialVectorEnv, space, {where: obs}), run_gymnasium(space, {where: obs})
    for got, expected in zip(ours, theirs, strict=True):
        assert data_equivalence(got[:-1], expected[:-1], exact=True)


@pytest.mark.parametrize(
    ("space", "obs"), [(space, obs) for space, obs, _ in OBSERVATIONS], ids=str
)
def test_what_gymnasium_refuses_is_among_what_is_refused(space, obs):
    """Gymnasium raises in most of the cases above; it must raise in none of those that are cast."""
    try:
        run_gymnasium(space, {"first": obs})
    except Exception:
        with pytest.raises(InvalidOutput):
            run(SerialVectorEnv, space, {"first": obs})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reward": None}, "reward None is not one number"),
        ({"reward": np.ones(1)}, r"reward array\(\[1.\]\) is not one number"),
        ({"reward": [1.0, 2.0]}, r"reward \[1.0, 2.0\] is not one number"),
        ({"reward": "1.0"}, "reward '1.0' is not one number"),
        ({"reward": 1j}, "reward 1j is not one number"),
        ({"terminated": None}, "terminated None is neither True nor False"),
        ({"terminated": 0}, "terminated 0 is neither True nor False"),
        ({"terminated": np.array([False])}, r"terminated array\(\[False\]\) is neither"),
        ({"truncated": "no"}, "truncated 'no' is neither True nor False"),
        ({"truncated": 1.0}, "truncated 1.0 is neither True nor False"),
        ({"step": (np.zeros(3), 1.0, False, {})}, r"step returned .*, not \(observation, reward"),
        ({"step": None}, "step returned None, not"),
        ({"step": (np.zeros(3), 1.0, False, False, None)}, "step returned .*, not"),
        ({"reset": np.zeros(3, np.float32)}, r"reset returned array.*, not \(observation, info\)"),
        # Two things, but not those: a Box of two numbers would be taken apart.
        ({"reset": np.zeros(2, np.float32)}, r"reset returned array.*, not \(observation, info\)"),
        ({"reset": (np.zeros(3), 1.0)}, r"reset returned .*, not \(observation, info\)"),
        ({"reset": None}, "reset returned None, not"),
    ],
)
def test_whatever_else_is_returned_wrongly_is_named(wrong, message):
    with pytest.raises(InvalidOutput, match=rf"^environment 1 \(seed 41\): {message}"):
        run(SerialVectorEnv, FLOATS, wrong)


@pytest.mark.parametrize(
    "told",
    [
        {"reward": 2},
        {"reward": True},
        {"reward": np.float32(0.1)},
        {"reward": np.array(0.1)},
        {"reward": np.int64(3)},
        {"terminated": np.True_},
        {"truncated": np.array(True)},
    ],
)
def test_scalars_of_any_make_are_taken(told):
    ours, theirs = run(SerialVectorEnv, FLOATS, told), run_gymnasium(FLOATS, told)
    for got, expected in zip(ours, theirs, strict=True):
        assert data_equivalence(got[:-1], expected[:-1], exact=True)


def test_only_those_that_step_are_looked_at():
    told: list[dict[str, Any]] = [{}, {}, {"reward": None}]
    env = SerialVectorEnv([lambda told=one: Says(FLOATS, told) for one in told])
    env.reset(seed=40)
    assert env.step(np.zeros(3, np.int64), np.array([0, 1]))[1].tolist() == [1.0, 1.0, 0.0]
    with pytest.raises(InvalidOutput, match=r"^environment 2 \(seed 42\): reward None"):
        env.step(np.zeros(3, np.int64), np.array([0, 2]))


def test_a_wrong_output_ends_a_run_as_a_failure_does():
    # The loop saves what was before it, as for an environment that raises.
    assert issubclass(InvalidOutput, EnvironmentFailure)


class InPlace(gym.Env):
    """Writes every observation over the last one."""

    observation_space = spaces.Box(0.0, 9.0, (1,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.place = np.zeros(1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place[:] = 0
        return self.place, {}

    def step(self, action):
        self.place += 1
        return self.place, 0.0, bool(self.place == 3), False, {}


def test_a_final_observation_is_not_overwritten_by_the_next_episode():
    env = SerialVectorEnv([InPlace] * 2)
    env.reset(seed=0)
    for _ in range(3):
        observations, _, _, _, infos = env.step(np.zeros(2, np.int64))
    assert observations.tolist() == [[0], [0]]
    assert [final.tolist() for final in infos["final_obs"]] == [[3], [3]]
