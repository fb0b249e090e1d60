import itertools
import pickle
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
from corridors import Breaks, Corridor, Unrepeatable
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlrun.envs.gym_env import GymEnv
from rlrun.envs.serial.action_record import SMALLEST_RECORD
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.errors import EnvironmentFailure, UserError

# (id, limit): time limits that let some episodes end, by both ways, within a short test.
ENVIRONMENTS = [
    ("CartPole-v1", 30),
    ("Pendulum-v1", 40),
    ("LunarLander-v3", 90),
    ("LunarLanderContinuous-v3", 90),
    ("BipedalWalker-v3", 80),
    ("FrozenLake-v1", None),
    ("Taxi-v4", 50),
    ("Blackjack-v1", None),
]


def gym_env(env_id: str, limit: int | None) -> GymEnv:
    return GymEnv(
        id=env_id,
        max_episode_steps=limit,
        options={},
        action_units="raw",
        fresh_each_episode=env_id.startswith("Bipedal"),
    )


def gym_envs(env_id: str, limit: int | None, num_envs: int) -> list[Callable[[], gym.Env]]:
    spec = gym_env(env_id, limit)
    return [lambda: spec.make_single(render_mode=None)] * num_envs


def random_actions(env: SerialVectorEnv, steps: int, seed: int = 0) -> list[np.ndarray]:
    """``steps`` batches of actions: the same every time for the same seed."""
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


def through_disk(state: dict) -> dict:
    return pickle.loads(pickle.dumps(state))


def assert_same_future(original: SerialVectorEnv, restored: SerialVectorEnv, steps: int):
    for action in random_actions(original, steps, seed=1):
        expected, got = original.step(action), restored.step(action)
        assert data_equivalence(got, expected, exact=True)
    assert data_equivalence(
        [saved["generator"] for saved in restored.state_dict()["environments"]],
        [saved["generator"] for saved in original.state_dict()["environments"]],
    )


@pytest.mark.parametrize(("env_id", "limit"), [*ENVIRONMENTS, ("corridor", None)])
def test_equals_gymnasium(env_id, limit):
    env_fns = [Corridor] * 3 if env_id == "corridor" else gym_envs(env_id, limit, 3)
    ours = SerialVectorEnv(env_fns)
    theirs = SyncVectorEnv(env_fns, autoreset_mode=AutoresetMode.SAME_STEP)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata == theirs.metadata

    assert data_equivalence(ours.reset(seed=7), theirs.reset(seed=7), exact=True)
    ended = 0
    for action in random_actions(ours, 200):
        got, expected = ours.step(action), theirs.step(action)
        assert data_equivalence(got, expected, exact=True)
        ended += "final_obs" in got[4]
    assert ended > 0


def test_seeds_as_gymnasium_does():
    env = SerialVectorEnv([Corridor] * 3)
    alone = Corridor()
    for seeds in (5, np.int64(5), [5, 6, 7]):
        observations, _ = env.reset(seed=seeds)
        first, _ = alone.reset(seed=6)
        assert (observations["position"][1] == first["position"]).all()


def test_wrong_number_of_seeds_is_refused():
    env = SerialVectorEnv([Corridor] * 3)
    with pytest.raises(ValueError, match="2 seeds for 3 environments"):
        env.reset(seed=[1, 2])


def draw_rows(steps: int, num_envs: int) -> list[np.ndarray | None]:
    """Some environments of each step; now and then none or, as None, all of them."""
    rng = np.random.default_rng(0)
    chosen = [np.flatnonzero(rng.random(num_envs) < 0.5) for _ in range(steps)]
    return [None if len(rows) == num_envs else rows for rows in chosen]


def test_steps_a_subset_as_if_the_others_were_not_there():
    env = SerialVectorEnv([Corridor] * 3)
    singles = [SerialVectorEnv([Corridor]) for _ in range(3)]
    observations, _ = env.reset(seed=3)
    for index, single in enumerate(singles):
        single.reset(seed=3 + index)
    ends = 0
    for action, rows in zip(random_actions(env, 80), draw_rows(80, 3), strict=True):
        earlier = observations
        observations, rewards, terminated, truncated, infos = env.step(action, rows)
        for row, single in enumerate(singles):
            if rows is None or row in rows:
                step = single.step(action[row : row + 1])
                assert (observations["position"][row] == step[0]["position"][0]).all()
                assert rewards[row] == step[1][0]
                assert (terminated[row], truncated[row]) == (step[2][0], step[3][0])
                assert infos["left"][row] == step[4]["left"][0]
                ends += step[2][0]
            else:
                assert (observations["position"][row] == earlier["position"][row]).all()
                assert (rewards[row], terminated[row], truncated[row]) == (0.0, False, False)
    assert ends > 9
    for row, single in enumerate(singles):
        saved, expected = env.state_dict()["environments"][row], single.state_dict()
        for key, value in expected["environments"][0].items():
            assert np.array_equal(saved[key], value), key


def test_a_step_of_none_has_the_types_of_any_other():
    env = SerialVectorEnv([Corridor] * 3)
    env.reset(seed=3)
    (action,) = random_actions(env, 1)
    _, *none, infos = env.step(action, np.array([], np.intp))
    _, *all_, _ = env.step(action)
    assert [column.dtype for column in none] == [column.dtype for column in all_]
    assert not any(column.any() for column in none)
    assert infos == {}


def test_snapshot_where_some_are_paused():
    original = SerialVectorEnv([Corridor] * 3)
    original.reset(seed=3)
    rows = draw_rows(40, 3)
    for action, running in zip(random_actions(original, 40), rows, strict=True):
        restored = SerialVectorEnv([Corridor] * 3)
        assert restored.load_state_dict(through_disk(original.state_dict())) == {}
        # What was restored may be paused and saved again, to the same effect.
        paused = np.array([1])
        state = original.state_dict()
        expected, got = original.step(action, paused), restored.step(action, paused)
        assert data_equivalence(got, expected, exact=True)
        again = SerialVectorEnv([Corridor] * 3)
        assert again.load_state_dict(through_disk(restored.state_dict())) == {}
        assert_same_future(restored, again, 12)
        assert original.load_state_dict(state) == {}
        original.step(action, running)


def test_the_record_grows_and_keeps_pauses():
    steps = SMALLEST_RECORD + 50
    original = SerialVectorEnv(gym_envs("Pendulum-v1", 2 * steps, 2))
    original.reset(seed=0)
    for time, action in enumerate(random_actions(original, steps)):
        original.step(action, None if time % 3 else np.array([1]))
    state = original.state_dict()
    lengths = [len(saved["actions"]) for saved in state["environments"]]
    assert lengths == [steps - (steps + 2) // 3, steps]
    restored = SerialVectorEnv(gym_envs("Pendulum-v1", 2 * steps, 2))
    assert restored.load_state_dict(state) == {}
    assert_same_future(original, restored, 20)


def test_results_are_not_overwritten():
    env = SerialVectorEnv(gym_envs("CartPole-v1", 5, 2))
    env.reset(seed=0)
    results = [env.step(action)[:4] for action in random_actions(env, 12)]
    copies = [[array.copy() for array in result] for result in results]
    for action in random_actions(env, 12):
        env.step(action)
    assert data_equivalence([list(result) for result in results], copies, exact=True)
    assert not (results[0][0] == results[1][0]).all()


@pytest.mark.parametrize(("env_id", "limit"), ENVIRONMENTS)
def test_snapshot_in_mid_episode(env_id, limit, capsys):
    # 333 steps of some environments are a few episodes, of others hundreds; no limit ends then.
    original = SerialVectorEnv(gym_envs(env_id, limit, 3))
    original.reset(seed=11)
    for action in random_actions(original, 333):
        original.step(action)
    restored = SerialVectorEnv(gym_envs(env_id, limit, 3))
    assert restored.load_state_dict(through_disk(original.state_dict())) == {}
    assert capsys.readouterr().err == ""
    assert_same_future(original, restored, 300)


def test_snapshot_at_every_step():
    original = SerialVectorEnv([Corridor] * 2)
    original.reset(seed=3, options={"shift": 4.0})
    for action in random_actions(original, 25):
        restored = SerialVectorEnv([Corridor] * 2)
        assert restored.load_state_dict(through_disk(original.state_dict())) == {}
        # What was restored can be saved again, to the same effect.
        again = SerialVectorEnv([Corridor] * 2)
        assert again.load_state_dict(through_disk(restored.state_dict())) == {}
        assert_same_future(restored, again, 12)
        original.step(action)


def test_snapshot_of_an_unseeded_environment():
    original = SerialVectorEnv([Corridor] * 2)
    original.reset()
    for action in random_actions(original, 3):
        original.step(action)
    restored = SerialVectorEnv([Corridor] * 2)
    assert restored.load_state_dict(through_disk(original.state_dict())) == {}
    assert_same_future(original, restored, 30)


def test_snapshot_replaces_what_the_environment_was_doing():
    original = SerialVectorEnv([Corridor] * 2)
    original.reset(seed=3)
    state = original.state_dict()
    for action in random_actions(original, 17, seed=5):
        original.step(action)
    restored = SerialVectorEnv([Corridor] * 2)
    restored.reset(seed=3)
    assert original.load_state_dict(state) == {}
    assert_same_future(original, restored, 30)


def test_snapshot_keeps_what_derives_from_the_seed():
    class Maze(Corridor):
        """Draws its walls only when it is seeded."""

        def reset(self, *, seed=None, options=None):
            obs, info = super().reset(seed=seed, options=options)
            if seed is not None:
                self.walls = self.np_random.normal(size=2)
            return obs, info

        def step(self, action):
            return super().step(self.walls * action)

    original = SerialVectorEnv([Maze] * 2)
    original.reset(seed=3)
    for action in random_actions(original, 40):
        original.step(action)
    restored = SerialVectorEnv([Maze] * 2)
    assert restored.load_state_dict(original.state_dict()) == {}
    assert_same_future(original, restored, 30)


def test_long_episodes_are_recorded_whole_and_ended_ones_forgotten():
    long = SerialVectorEnv([*gym_envs("Pendulum-v1", 4 * SMALLEST_RECORD, 2)])
    long.reset(seed=0)
    for action in random_actions(long, 3 * SMALLEST_RECORD):
        long.step(action)
    state = long.state_dict()
    assert len(state["environments"][0]["actions"]) == 3 * SMALLEST_RECORD
    restored = SerialVectorEnv([*gym_envs("Pendulum-v1", 4 * SMALLEST_RECORD, 2)])
    assert restored.load_state_dict(state) == {}
    assert_same_future(long, restored, 2 * SMALLEST_RECORD)

    short = SerialVectorEnv([Corridor] * 2)
    short.reset(seed=0)
    for action in random_actions(short, 5 * SMALLEST_RECORD):
        short.step(action)
    assert len(short.state_dict()["environments"][0]["actions"]) < 9
    assert len(short._episodes._record._actions) == SMALLEST_RECORD


def test_replay_gets_the_actions_that_the_environment_got():
    original = SerialVectorEnv([Corridor] * 2)
    original.reset(seed=0)
    for action in random_actions(original, 3):
        original.step(action.astype(np.float64) + 1e-12)  # more digits than the space has
    restored = SerialVectorEnv([Corridor] * 2)
    assert restored.load_state_dict(original.state_dict()) == {}


def test_what_does_not_replay_says_so_and_starts_anew(capsys):
    original = SerialVectorEnv([Unrepeatable] * 3)
    original.reset(seed=0)
    for action in random_actions(original, 3):
        original.step(action)
    restored = SerialVectorEnv([Unrepeatable] * 3)
    first = restored.load_state_dict(through_disk(original.state_dict()))
    assert capsys.readouterr().err == (
        "environment Unrepeatable does not replay exactly: its episode starts anew\n"
    )
    assert list(first) == [0, 1, 2]
    # A new episode lasts at least five steps, whatever was left of the old one.
    for action in random_actions(restored, 4):
        _, _, terminated, _, _ = restored.step(action)
        assert not terminated.any()
    # Nothing of the old episode is in the record.
    assert len(restored.state_dict()["environments"][0]["actions"]) == 4


def test_a_replay_that_ends_too_soon_starts_anew(capsys):
    lengths = itertools.chain([9], itertools.repeat(2))

    class Shorter(Corridor):
        """Lasts nine steps the first time and two ever after."""

        def reset(self, *, seed=None, options=None):
            _, info = super().reset(seed=seed, options=options)
            self.left = next(lengths)
            return self._obs(), info

    original = SerialVectorEnv([Shorter])
    original.reset(seed=0)
    for action in random_actions(original, 5):
        original.step(action)
    first = SerialVectorEnv([Shorter]).load_state_dict(original.state_dict())
    assert "does not replay" in capsys.readouterr().err
    # The new episode is the one that would have come next.
    assert data_equivalence(first, {0: original.envs[0].reset()[0]}, exact=True)


def test_a_replay_that_only_looks_the_same_starts_anew(capsys):
    class Loaded(Corridor):
        """Draws a number that nobody sees, but not in the same steps every time."""

        coin = np.random.default_rng(0)

        def step(self, action):
            result = super().step(action)
            if self.coin.random() < 0.5:
                self.np_random.random()
            self.position = np.zeros(2)
            return {**result[0], "position": self.position}, *result[1:]

    original = SerialVectorEnv([Loaded] * 4)
    original.reset(seed=0)
    for action in random_actions(original, 4):
        original.step(action)
    restarted = SerialVectorEnv([Loaded] * 4).load_state_dict(original.state_dict())
    assert restarted
    assert "does not replay" in capsys.readouterr().err


def test_a_foreign_generator_starts_anew(capsys):
    class Foreign(Corridor):
        """Uses NumPy's old kind of generator, as dm_control does."""

        def reset(self, *, seed=None, options=None):
            if seed is not None:
                self.np_random = np.random.RandomState(seed)
            self.position, self.left = self.np_random.normal(size=2), 6
            return self._obs(), {}

    original = SerialVectorEnv([Foreign])
    original.reset(seed=0)
    first_episode = through_disk(original.state_dict())
    # The first episode is made again from its seed alone ...
    assert SerialVectorEnv([Foreign]).load_state_dict(first_episode) == {}
    for action in random_actions(original, 8):
        original.step(action)
    # ... a later one is not.
    assert list(SerialVectorEnv([Foreign]).load_state_dict(original.state_dict())) == [0]
    assert "does not replay" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
@pytest.mark.parametrize(("where", "when"), [("reset", 1), ("reset", 2), ("step", 1), ("step", 4)])
def test_failure_names_the_environment(where, when, error):
    env = SerialVectorEnv([Corridor, Corridor, lambda: Breaks(where, when, error), Corridor])

    def run():
        env.reset(seed=40)
        for action in random_actions(env, 20):
            env.step(action)

    with pytest.raises(EnvironmentFailure, match=r"environment 2 \(seed 42\).*corridor") as failure:
        run()
    assert (failure.value.index, failure.value.seed) == (2, 42)
    assert isinstance(failure.value.__cause__, error)


def test_failure_while_loading_names_the_environment():
    original = SerialVectorEnv([Corridor] * 2)
    original.reset(seed=40)
    for action in random_actions(original, 4):
        original.step(action)
    broken = SerialVectorEnv([Corridor, lambda: Breaks("step", 2)])
    with pytest.raises(EnvironmentFailure, match=r"environment 1 \(seed 41\).*corridor"):
        broken.load_state_dict(original.state_dict())


def test_refuses_what_it_cannot_batch():
    class TupleActions(Corridor):
        action_space = spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2)))

    with pytest.raises(UserError, match="Tuple"):
        SerialVectorEnv([TupleActions])
    with pytest.raises(ValueError, match="environment 1 has other spaces"):
        SerialVectorEnv([Corridor, *gym_envs("CartPole-v1", None, 1)])


def test_renders_and_closes():
    spec = gym_env("Taxi-v4", limit=None)
    env = SerialVectorEnv([lambda: spec.make_single(render_mode="ansi")] * 2)
    env.reset(seed=0)
    assert env.render_mode == "ansi"
    assert [type(frame) for frame in env.render()] == [str, str]
    assert "Taxi-v4" in repr(env)
    env.close()
    assert env.closed


def test_those_that_are_made_are_closed_if_one_cannot_be():
    closed = []

    class Closes(Corridor):
        def close(self):
            closed.append(self)

    def fails():
        raise OSError("no licence left")

    for last, error in ((fails, OSError), (gym_envs("CartPole-v1", None, 1)[0], ValueError)):
        with pytest.raises(error):
            SerialVectorEnv([Closes, Closes, last])
        assert len(closed) == 2
        closed.clear()


@pytest.mark.parametrize("seed", [None, 9, [4, None, 6, 7]])
def test_a_partial_reset_is_gymnasiums(seed):
    def make(vector_type, **arguments):
        env = vector_type([Corridor] * 4, **arguments)
        env.reset(seed=3, options={"shift": 1.0})
        return env

    ours = make(SerialVectorEnv)
    theirs = make(SyncVectorEnv, autoreset_mode=AutoresetMode.SAME_STEP)
    rng = np.random.default_rng(0)
    for action in random_actions(ours, 12):
        mask = rng.random(4) < 0.5
        mask[rng.integers(4)] = True
        options = {"reset_mask": mask, "shift": 100.0}
        got = ours.reset(seed=seed, options=options)
        assert list(options) == ["reset_mask", "shift"]  # the caller's dict is left alone
        assert data_equivalence(got, theirs.reset(seed=seed, options=options), exact=True)
        got, expected = ours.step(action), theirs.step(action)
        assert data_equivalence(got[:-1], expected[:-1], exact=True)


def test_continues_from_a_snapshot_after_a_partial_reset():
    original = SerialVectorEnv([Corridor] * 3)
    original.reset(seed=3)
    for action in random_actions(original, 3):
        original.step(action)
    mask = np.array([False, True, False])
    original.reset(options={"reset_mask": mask, "shift": 5.0})
    for action in random_actions(original, 2, seed=1):
        original.step(action)
    restored = SerialVectorEnv([Corridor] * 3)
    assert restored.load_state_dict(through_disk(original.state_dict())) == {}
    assert_same_future(original, restored, 12)


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        ([True, False], TypeError),
        (np.array([1, 0]), TypeError),
        (np.array([True]), ValueError),
        (np.array([False, False]), ValueError),
    ],
)
def test_a_mask_that_is_none_is_refused(mask, error):
    env = SerialVectorEnv([Corridor] * 2)
    env.reset(seed=0)
    with pytest.raises(error, match="reset_mask"):
        env.reset(options={"reset_mask": mask})


def test_the_first_reset_is_of_all():
    with pytest.raises(gym.error.ResetNeeded):
        SerialVectorEnv([Corridor] * 2).reset(options={"reset_mask": np.array([True, False])})
