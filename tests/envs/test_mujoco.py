"""The MuJoCo tasks against ``gymnasium.make``, and what a vector environment owes its users."""

import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium.envs.mujoco import mujoco_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from tiny import part_of

from rlrun.config.files import conf_directory
from rlrun.envs.mujoco import contact
from rlrun.envs.mujoco.env import MujocoEnv, gymnasium_options
from rlrun.envs.mujoco.tasks import TASKS
from rlrun.envs.mujoco.vector import MujocoVectorEnv
from rlrun.errors import EnvironmentFailure, UserError


def specify(env_id, *, limit=None, **options) -> MujocoEnv:
    return MujocoEnv(
        id=env_id,
        max_episode_steps=limit,
        options=options,
        action_units="raw",
    )


def make(env_id, *, num_envs=3, threads=2, limit=None, **options) -> MujocoVectorEnv:
    return specify(env_id, limit=limit, **options).make(num_envs=num_envs, threads=threads)


def make_gymnasium(env_id, *, num_envs=3, limit=None, **options) -> SyncVectorEnv:
    return SyncVectorEnv(
        [lambda: gym.make(env_id, max_episode_steps=limit, **options)] * num_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )


def draw_actions(env, steps, seed=0):
    """Actions beyond the control range, as an unclipped Gaussian policy gives them."""
    space, rng = env.action_space, np.random.default_rng(seed)
    return rng.normal(0.0, space.high, (steps, *space.shape)).astype(np.float32)


def assert_close(value, expected):
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)


def assert_same_physics(env, reference):
    """Time, joint positions and velocities are equal to the last bit."""
    for state, single in zip(env.state_dict()["simulations"], reference.envs, strict=True):
        data = single.unwrapped.data
        expected = np.concatenate(([data.time], data.qpos, data.qvel))
        np.testing.assert_array_equal(state[: len(expected)], expected)


def assert_same_step(step, expected):
    """Two results of ``step`` are equal, final observations included."""
    for value, expected_value in zip(step[:4], expected[:4], strict=True):
        assert value.shape == expected_value.shape
        assert value.dtype == expected_value.dtype
        assert_close(value, expected_value)
    assert ("final_obs" in step[4]) == ("final_obs" in expected[4])
    if "final_obs" in step[4]:
        np.testing.assert_array_equal(step[4]["_final_obs"], expected[4]["_final_obs"])
        for obs, expected_obs in zip(step[4]["final_obs"], expected[4]["final_obs"], strict=True):
            if expected_obs is None:
                assert obs is None
            else:
                assert_close(obs, expected_obs)


@pytest.mark.parametrize("env_id", TASKS)
def test_equals_gymnasium(env_id):
    env, reference = make(env_id, limit=300), make_gymnasium(env_id, limit=300)
    assert env.single_observation_space == reference.single_observation_space
    assert env.single_action_space == reference.single_action_space
    assert env.observation_space == reference.observation_space
    assert env.action_space == reference.action_space

    assert_close(env.reset(seed=7)[0], reference.reset(seed=7)[0])
    truncations = 0
    for actions in draw_actions(env, 1000):
        step = env.step(actions)
        assert_same_step(step, reference.step(actions))
        assert_same_physics(env, reference)
        truncations += step[3].sum()
    # A random policy drops the poles and the two-legged robots before the limit.
    falls = ("Hopper-v5", "Humanoid-v5", "Walker2d-v5")
    assert truncations >= 9 or "Pendulum" in env_id or env_id in (*falls, "Ant-v5")
    # Without a seed each environment goes on with its own random numbers.
    assert_close(env.reset()[0], reference.reset()[0])
    assert_same_physics(env, reference)


@pytest.mark.parametrize("env_id", TASKS)
def test_options_do_what_they_do_in_gymnasium(env_id):
    """With every option but the model changed."""
    change = {
        bool: lambda value: not value,
        int: lambda value: value + 1,
        float: lambda value: 1.5 * value,
        tuple: lambda value: (1.5 * value[0], 0.8 * value[1]),
        str: lambda value: value,
    }
    defaults = gymnasium_options(env_id)
    options = {name: change[type(value)](value) for name, value in defaults.items()}
    env, reference = make(env_id, **options), make_gymnasium(env_id, **options)
    assert_close(env.reset(seed=1)[0], reference.reset(seed=1)[0])
    for actions in draw_actions(env, 60):
        assert_same_step(env.step(actions), reference.step(actions))


@pytest.mark.parametrize("env_id", ["Ant-v5", "Humanoid-v5", "HumanoidStandup-v5"])
def test_contact_forces_are_those_of_the_step_and_zero_after_a_reset(env_id):
    env = make(env_id, limit=40)
    contact_columns = slice(-6 * 13, None)  # of 13 bodies, the last ones observed
    assert not env.reset(seed=0)[0][:, contact_columns].any()
    largest, resets = 0.0, 0
    for actions in draw_actions(env, 80):
        obs, _, terminated, truncated, _ = env.step(actions)
        ended = terminated | truncated
        largest = max(largest, np.abs(obs[:, contact_columns]).max())
        assert not obs[ended, contact_columns].any()
        resets += ended.sum()
    assert largest > 0.1
    assert resets >= 3


def test_float64_actions_cost_what_they_cost_in_gymnasium():
    env, reference = make("HalfCheetah-v5"), make_gymnasium("HalfCheetah-v5")
    env.reset(seed=0), reference.reset(seed=0)
    for actions in draw_actions(env, 20).astype(np.float64) / 3.0:
        assert_same_step(env.step(actions), reference.step(actions))


def test_seeds_can_be_given_one_by_one():
    env, reference = make("Reacher-v5"), make_gymnasium("Reacher-v5")
    first, _ = env.reset(seed=[5, 3, 5])
    assert_close(first, reference.reset(seed=[5, 3, 5])[0])
    np.testing.assert_array_equal(first[0], first[2])
    assert env.np_random_seed == (5, 3, 5)
    with pytest.raises(ValueError, match="2 seeds for 3 environments"):
        env.reset(seed=[1, 2])


@pytest.mark.parametrize("env_id", TASKS)
def test_equal_seeds_begin_equally(env_id):
    env = make(env_id, num_envs=4)
    first, _ = env.reset(seed=[5, 5, 6, 5])
    np.testing.assert_array_equal(first[1], first[0])
    np.testing.assert_array_equal(first[3], first[0])
    assert (first[2] != first[0]).any()


def draw_rows(steps, num_envs=3):
    """Some environments of each step; now and then none or all of them."""
    rng = np.random.default_rng(0)
    return [np.flatnonzero(rng.random(num_envs) < 0.5) for _ in range(steps)]


@pytest.mark.parametrize("env_id", TASKS)
def test_steps_a_subset_as_if_the_others_were_not_there(env_id):
    env = make(env_id, limit=20)
    singles = [make(env_id, num_envs=1, limit=20, threads=1) for _ in range(3)]
    obs, _ = env.reset(seed=3)
    for index, single in enumerate(singles):
        single.reset(seed=3 + index)
    episodes = 0
    for actions, rows in zip(draw_actions(env, 90), draw_rows(90), strict=True):
        earlier = obs
        obs, reward, terminated, truncated, infos = env.step(actions, rows)
        paused = np.setdiff1d(np.arange(3), rows)
        np.testing.assert_array_equal(obs[paused], earlier[paused])
        assert not reward[paused].any()
        assert not (terminated | truncated)[paused].any()
        for row in rows:
            step = singles[row].step(actions[row : row + 1])
            assert_close(obs[row], step[0][0])
            assert_close(reward[row], step[1][0])
            assert (terminated[row], truncated[row]) == (step[2][0], step[3][0])
            if "final_obs" in step[4]:
                assert_close(infos["final_obs"][row], step[4]["final_obs"][0])
                episodes += 1
        assert ("final_obs" in infos) == (terminated | truncated).any()
        if "final_obs" in infos:
            np.testing.assert_array_equal(infos["_final_obs"], terminated | truncated)
    assert episodes >= 3
    for row, single in enumerate(singles):
        saved, expected = env.state_dict(), single.state_dict()
        assert (saved["simulations"][row] == expected["simulations"][0]).all()
        assert saved["elapsed"][row] == expected["elapsed"][0]
        assert saved["generators"][row] == expected["generators"][0]


@pytest.mark.parametrize("env_id", TASKS)
def test_continues_bit_for_bit_where_some_are_paused(env_id):
    env = make(env_id, limit=25)
    env.reset(seed=3)
    actions = draw_actions(env, 60)
    for action in actions[:10]:
        env.step(action)
    for action in actions[10:20]:
        latest, *_ = env.step(action, np.array([0, 2]))
    restored = make(env_id, limit=25, threads=1)
    restored.load_state_dict(env.state_dict())
    for action in actions[20:30]:
        step, expected = (either.step(action, np.array([0])) for either in (restored, env))
        for value, expected_value in zip(step[:4], expected[:4], strict=True):
            np.testing.assert_array_equal(value, expected_value)
        np.testing.assert_array_equal(step[0][1:], latest[1:])
    for action in actions[30:]:
        step, expected = restored.step(action), env.step(action)
        for value, expected_value in zip(step[:4], expected[:4], strict=True):
            np.testing.assert_array_equal(value, expected_value)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5"])  # one of each kind of batch
def test_the_actions_of_paused_environments_count_for_nothing(env_id):
    env = make(env_id)
    env.reset(seed=10)
    actions = draw_actions(env, 1)[0]
    actions[1] = np.nan
    before = env.state_dict()
    _, reward, *_ = env.step(actions, np.array([0, 2]))
    assert np.isfinite(reward).all()
    after = env.state_dict()
    assert (after["simulations"][1] == before["simulations"][1]).all()
    assert after["elapsed"].tolist() == [1, 0, 1]
    with pytest.raises(EnvironmentFailure, match="CTRL at ACTUATOR 0") as failure:
        env.step(actions, np.array([1, 2]))
    assert (failure.value.index, failure.value.seed) == (1, 11)


@pytest.mark.parametrize("env_id", TASKS)
def test_continues_bit_for_bit_from_a_saved_state(env_id):
    """In the middle of an episode, in another process's environment with other threads."""
    env = make(env_id, limit=25)
    env.reset(seed=3)
    actions = draw_actions(env, 90)
    for action in actions[:35]:
        env.step(action)
    saved = pickle.dumps(env.state_dict())

    restored = make(env_id, limit=25, threads=1)
    restored.load_state_dict(pickle.loads(saved))
    for action in actions[35:]:
        step, expected = restored.step(action), env.step(action)
        assert_same_step(step, expected)
        for value, expected_value in zip(step[:4], expected[:4], strict=True):
            np.testing.assert_array_equal(value, expected_value)
    np.testing.assert_array_equal(
        restored.state_dict()["simulations"], env.state_dict()["simulations"]
    )
    np.testing.assert_array_equal(restored.reset()[0], env.reset()[0])
    assert restored.np_random_seed == (3, 4, 5)


def test_a_saved_state_is_a_copy():
    env = make("Hopper-v5")
    env.reset(seed=0)
    actions = draw_actions(env, 60)
    saved = env.state_dict()
    first = [env.step(action)[0] for action in actions]
    env.load_state_dict(saved)
    again = [env.step(action)[0] for action in actions]
    np.testing.assert_array_equal(first, again)


def test_returned_arrays_are_not_changed_by_later_steps():
    env = make("Hopper-v5", limit=5)
    results: list[np.ndarray] = [env.reset(seed=0)[0]]
    copies = [results[0].copy()]
    for action in draw_actions(env, 12):
        *batches, infos = env.step(action)
        arrays: list[np.ndarray] = [*batches]
        arrays += [row for row in infos.get("final_obs", ()) if row is not None]
        results += arrays
        copies += [array.copy() for array in arrays]
    for result, copy in zip(results, copies, strict=True):
        np.testing.assert_array_equal(result, copy)


def test_is_a_vector_env_that_gymnasium_can_wrap():
    env = make("Hopper-v5", limit=50)
    assert isinstance(env, gym.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.metadata["render_fps"] == 125
    assert env.spec.id == "Hopper-v5"
    assert env.spec.max_episode_steps == 50
    assert gym.spec("Hopper-v5").max_episode_steps == 1000  # Gymnasium's own is untouched
    assert repr(env) == "MujocoVectorEnv(Hopper-v5, num_envs=3)"

    wrapped = RecordEpisodeStatistics(env)
    obs, infos = wrapped.reset(seed=0)
    assert infos == {}
    returns, lengths = np.zeros(3), np.zeros(3, int)
    episodes = 0
    for actions in draw_actions(env, 100):
        obs, rewards, terminated, truncated, infos = wrapped.step(actions)
        assert obs in wrapped.observation_space
        returns += rewards
        lengths += 1
        for index in np.flatnonzero(terminated | truncated):
            assert infos["episode"]["r"][index] == pytest.approx(returns[index])
            assert infos["episode"]["l"][index] == lengths[index]
            assert infos["final_obs"][index] in wrapped.single_observation_space
            returns[index] = lengths[index] = 0
            episodes += 1
        if not (terminated | truncated).any():
            assert infos == {}
    assert episodes >= 6
    wrapped.close()


def test_the_registered_limit_truncates():
    env = make("Reacher-v5")
    env.reset(seed=0)
    truncated = [env.step(action)[3].all() for action in draw_actions(env, 100)]
    assert np.flatnonzero(truncated).tolist() == [49, 99]


def test_make_single_has_the_same_limit_and_options():
    spec = specify("Walker2d-v5", limit=7, terminate_when_unhealthy=False)
    single, env = spec.make_single(render_mode=None), spec.make(num_envs=1, threads=1)
    obs, _ = single.reset(seed=4)
    assert_close(env.reset(seed=4)[0][0], obs)
    for action in draw_actions(env, 7):
        obs, reward, terminated, truncated, _ = single.step(action[0])
        step = env.step(action)
        assert step[1][0] == pytest.approx(reward, abs=1e-12)
        assert (step[2][0], step[3][0]) == (terminated, truncated)
    assert truncated
    assert_close(step[4]["final_obs"][0], obs)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5"])  # one of each kind of batch
@pytest.mark.parametrize("seed", [None, 9, [4, None, 6]])
def test_a_partial_reset_is_gymnasiums(env_id, seed):
    env, reference = make(env_id, limit=9), make_gymnasium(env_id, limit=9)
    with pytest.raises(gym.error.ResetNeeded):
        env.reset(options={"reset_mask": np.array([True, False, False])})
    env.reset(seed=7), reference.reset(seed=7)
    rng = np.random.default_rng(0)
    for actions in draw_actions(env, 12):
        for _ in range(3):
            assert_same_step(env.step(actions), reference.step(actions))
        mask = rng.random(3) < 0.5
        mask[rng.integers(3)] = True
        got, _ = env.reset(seed=seed, options={"reset_mask": mask})
        assert_close(got, reference.reset(seed=seed, options={"reset_mask": mask})[0])
        assert_same_physics(env, reference)
    with pytest.raises(ValueError, match="leaves all environments out"):
        env.reset(options={"reset_mask": np.zeros(3, bool)})


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5"])  # one of each kind of batch
def test_nan_as_action_names_the_environment(env_id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = make(env_id)
    env.reset(seed=10)
    before = env.state_dict()
    actions = draw_actions(env, 1)[0]
    bad = actions.copy()
    bad[1, 0] = np.nan
    with pytest.raises(EnvironmentFailure, match="CTRL at ACTUATOR 0") as failure:
        env.step(bad)
    assert (failure.value.index, failure.value.seed) == (1, 11)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(actions)
    env.load_state_dict(before)
    env.step(actions)
    assert list(tmp_path.iterdir()) == []  # no MUJOCO_LOG.TXT


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5"])
def test_a_diverged_simulation_names_the_environment(env_id):
    env = make(env_id)
    env.reset(seed=10)
    state = env.state_dict()
    state["simulations"][2, 1] = 1e12  # the first joint position, after the time
    env.load_state_dict(state)
    with pytest.raises(EnvironmentFailure, match="QPOS at DOF 0") as failure:
        env.step(draw_actions(env, 1)[0])
    assert (failure.value.index, failure.value.seed) == (2, 12)


@pytest.mark.parametrize(
    ("env_id", "asset", "memory"), [("Hopper-v5", "hopper.xml", "4K"), ("Ant-v5", "ant.xml", "10K")]
)
def test_an_error_of_mujoco_names_the_environment(env_id, asset, memory, tmp_path):
    """In a model with too little memory for the contacts of a fallen robot."""
    model = (Path(mujoco_env.__file__).parent / "assets" / asset).read_text()
    path = tmp_path / asset
    path.write_text(re.sub(r"(<mujoco.*?>)", rf'\1<size memory="{memory}"/>', model, count=1))
    env = make(env_id, xml_file=str(path), terminate_when_unhealthy=False)
    env.reset(seed=10)

    def fall():
        for actions in draw_actions(env, 300):
            env.step(actions)

    with pytest.raises(EnvironmentFailure, match=r"raised SimulationError: .*memory") as failure:
        fall()
    assert failure.value.seed == 10 + failure.value.index
    with pytest.raises(gym.error.ResetNeeded):
        fall()


def test_misuse_is_refused():
    env = make("Hopper-v5")
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="no reset options but reset_mask"):
        env.reset(options={"shift": 1.0})
    env.reset(seed=0)
    with pytest.raises(ValueError, match=re.escape("(2, 3) for (3, 3)")):
        env.step(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("Hoper-v5", {}, "env.id: 'Hoper-v5' is no MuJoCo task; did you mean 'Hopper-v5'?"),
        (
            "Hopper-v5",
            {"foward_reward_weight": 2.0},
            "env.options.foward_reward_weight: no such setting; "
            "did you mean 'env.options.forward_reward_weight'?",
        ),
        (
            "Hopper-v5",
            {"healthy_reward": "high"},
            "env.options.healthy_reward: expected a number, got 'high'",
        ),
        (
            "Hopper-v5",
            {"healthy_z_range": [0.7]},
            "env.options.healthy_z_range: expected [low, high], got [0.7]",
        ),
        (
            "Hopper-v5",
            {"healthy_z_range": [2.0, 0.7]},
            "env.options.healthy_z_range: expected [low, high], got [2.0, 0.7]",
        ),
        ("Ant-v5", {"frame_skip": 0}, "env.options.frame_skip must be at least 1, got 0"),
        (
            "Ant-v5",
            {"frame_skip": 10**18},
            "env.options.frame_skip must be at most 2147483647, got 1000000000000000000",
        ),
        (
            "Ant-v5",
            {"reset_noise_scale": -0.1},
            "env.options.reset_noise_scale must be at least 0, got -0.1",
        ),
        (
            "Ant-v5",
            {"xml_file": "/no/such.xml"},
            "env.options.xml_file: File /no/such.xml does not exist",
        ),
        (
            "Reacher-v5",
            {"xml_file": "hopper.xml"},
            "env.options: the model lacks a body: fingertip",
        ),
    ],
)
def test_mistakes_end_in_one_line(env_id, options, message):
    with pytest.raises(UserError) as error:
        make(env_id, **options)
    assert str(error.value) == message


def test_the_limit_is_checked():
    with pytest.raises(UserError, match=r"env\.max_episode_steps must be at least 1, got 0"):
        part_of("env", "hopper", max_episode_steps=0)


def test_the_time_limit_is_the_given_or_the_registered_one():
    assert specify("Hopper-v5", limit=7).time_limit == 7
    assert specify("Hopper-v5").time_limit == 1000
    assert specify("Reacher-v5").time_limit == 50


def test_a_library_without_the_function_is_named(monkeypatch):
    monkeypatch.setitem(contact.SIGNATURES, "mjb_gone", (None, []))
    with pytest.raises(ImportError, match=r"has no mjb_gone, .* rlrun needs mujoco>=4\.0,<5"):
        contact._library.__wrapped__()


def test_every_yaml_has_gymnasiums_values():
    ids = set()
    for path in (conf_directory() / "env").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        del config["defaults"]
        if config.pop("_target_") != f"{MujocoEnv.__module__}.{MujocoEnv.__name__}":
            continue
        spec = MujocoEnv(**config)
        assert spec.max_episode_steps is None
        as_lists = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in gymnasium_options(spec.id).items()
        }
        assert spec.options == as_lists
        ids.add(spec.id)
    assert ids == set(TASKS)


def test_renders_what_gymnasium_renders():
    """In a process of its own, as MuJoCo takes the kind of OpenGL when it is imported."""
    program = """
        import gymnasium as gym, numpy as np
        from rlrun.envs.mujoco.env import MujocoEnv

        single = gym.make("Hopper-v5", render_mode="rgb_array")
        single.reset(seed=1)
        try:
            single.render()
        except Exception as error:
            raise SystemExit(77) from error  # there is no OpenGL
        options = {"max_episode_steps": None, "options": {}}
        spec = MujocoEnv(id="Hopper-v5", action_units="raw", **options)
        env = spec.make(num_envs=2, threads=1)
        assert env.render() is None
        env.render_mode = "rgb_array"
        env.reset(seed=0)
        for _ in range(10):
            env.step(np.ones((2, 3)))
            single.step(np.ones(3))
        frames = env.render()
        assert len(frames) == 2
        # The camera follows the robot as it was a substep ago; the frames differ in few pixels.
        assert (frames[1] == single.render()).mean() > 0.99
        assert (frames[1] != frames[0]).any()
        env.close()
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "MUJOCO_GL": "egl"},
        capture_output=True,
        text=True,
    )
    if result.returncode == 77:
        pytest.skip("no OpenGL here")
    assert result.returncode == 0, result.stderr
