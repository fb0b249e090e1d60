"""A trained policy in Python: one observation or many, of any kind, as the environment takes it."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from running import experiment, metrics, small

from rlrun.data.seeding import Streams, evaluation_seed
from rlrun.errors import UserError
from rlrun.runs import api
from rlrun.runs.trained import load_policy

RUNS = {
    "cartpole": ("cartpole", "ppo"),
    "hopper": ("hopper", "ppo"),
    "pendulum": ("pendulum", "sac"),
    "td3": ("pendulum", "td3"),
    "dqn": ("cartpole", "dqn"),
    "blackjack": ("blackjack", "q_learning"),
    "stacked": ("cartpole", "ppo"),
}
STACKED = "env.wrappers=[{name: FrameStackObservation, stack_size: 3}]"
ENVIRONMENTS = {
    "cartpole": lambda: gym.make("CartPole-v1"),
    "hopper": lambda: gym.make("Hopper-v5"),
    "pendulum": lambda: gym.make("Pendulum-v1"),
    "td3": lambda: gym.make("Pendulum-v1"),
    "dqn": lambda: gym.make("CartPole-v1"),
    "blackjack": lambda: gym.make("Blackjack-v1", sab=True),
    "stacked": lambda: gym.wrappers.FrameStackObservation(gym.make("CartPole-v1"), 3),
}


@pytest.fixture(scope="module")
def run(request, tmp_path_factory):
    """A function that trains a run of this module's once."""
    made = {}

    def get(name: str):
        if name not in made:
            directory = tmp_path_factory.mktemp(name) / "run"
            env, algo = RUNS[name]
            words = ["total_steps=320", "evaluation.every_steps=160", f"run_dir={directory}"]
            words += [STACKED] if name == "stacked" else []
            api.train(experiment(small(env, *words, algo=algo)))
            made[name] = directory
        return made[name]

    return get


@pytest.mark.parametrize("name", RUNS)
def test_an_episode_in_ones_own_loop_is_the_one_of_an_evaluation(run, name):
    env, policy = ENVIRONMENTS[name](), load_policy(run(name))
    assert policy.observation_space == env.observation_space
    assert policy.action_space == env.action_space
    expected = api.evaluate_run(run(name), episodes=1, seed=3, checkpoint="last")
    obs, _ = env.reset(seed=3)
    total, over = 0.0, False
    while not over:
        action = policy.act(obs)
        assert env.action_space.contains(action)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, over = total + reward, terminated or truncated
    assert total == pytest.approx(expected["return"], rel=1e-6)


def test_the_best_checkpoint_is_another_policy_and_says_what_it_is(run):
    rows = {
        row["step"]: row["eval/return"] for row in metrics(run("hopper")) if "eval/return" in row
    }
    best, last = (load_policy(run("hopper"), checkpoint=kind).facts for kind in ("best", "last"))
    assert best["return"] == max(rows.values())
    assert rows[best["step"]] == best["return"]
    assert (last["step"], last["return"]) == (max(rows), rows[max(rows)])
    assert last["algorithm"] == "ppo"
    assert last["env_id"] == "Hopper-v5"
    assert last["checkpoint"] == f"step-{last['step']:012d}"
    assert last["git_commit"]
    assert repr(load_policy(run("hopper"))) == f"<policy of ppo on Hopper-v5, step {max(rows):,}>"


def test_a_policy_between_two_evaluations_has_no_return(run, tmp_path):
    words = ["total_steps=192", "evaluation.every_steps=128", "checkpoint.keep=9"]
    words += ["checkpoint.every_seconds=0", f"run_dir={tmp_path / 'run'}"]
    api.train(experiment(small("cartpole", *words)))
    last = tmp_path / "run" / "checkpoints" / "step-000000000192"
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    (tmp_path / "run" / "checkpoints" / "step-000000000128").rename(last.with_name("elsewhere"))
    facts = load_policy(tmp_path / "run").facts
    assert (facts["step"], facts["return"]) == (64, None)


KINDS = {
    "float32": lambda array: array.astype(np.float32),
    "float64": lambda array: array.astype(np.float64),
    "list": lambda array: array.tolist(),
    "torch float32": lambda array: torch.from_numpy(array).float(),
    "torch float64": lambda array: torch.from_numpy(array).double(),
    "torch with a gradient": lambda array: torch.from_numpy(array).double().requires_grad_(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["cartpole", "hopper"])
def test_one_observation_or_many_of_any_kind(run, name, kind):
    policy = load_policy(run(name))
    batch = np.random.default_rng(0).normal(size=(5, *policy.observation_space.shape))
    batch = batch.astype(np.float32).astype(np.float64)
    expected = policy.act(batch)
    given = KINDS[kind](batch)
    many, one = policy.act(given), policy.act(given[2])
    assert isinstance(many, torch.Tensor) is isinstance(one, torch.Tensor) is ("torch" in kind)
    if "torch" in kind:
        assert many.dtype == {"cartpole": torch.int64, "hopper": torch.float32}[name]
        assert not many.requires_grad
        assert not many.is_inference()
        many, one = many.numpy(), one.numpy()[()]
    space = policy.action_space
    assert many.shape == (5, *space.shape)
    assert many.dtype == one.dtype == space.dtype
    np.testing.assert_array_equal(many, expected)
    np.testing.assert_allclose(one, expected[2], rtol=1e-5, atol=1e-6)
    assert space.contains(one)


def test_an_observation_of_several_parts(run):
    policy = load_policy(run("blackjack"))
    hands = [(12, 1, 0), (20, 10, 1), (31, 5, 0)]
    columns = tuple(np.array(column) for column in zip(*hands, strict=True))
    many = policy.act(columns)
    assert many.tolist() == [policy.act(hand) for hand in hands]
    tensors = tuple(torch.from_numpy(column) for column in columns)
    assert isinstance(policy.act(tensors), torch.Tensor)
    assert policy.act(tensors).tolist() == many.tolist()


@pytest.mark.parametrize("name", ["cartpole", "hopper", "pendulum"])
def test_drawn_actions_are_the_policys_own_and_come_again_with_the_seed(run, name):
    batch = np.zeros((20_000, *load_policy(run(name)).observation_space.shape))
    one, same = (load_policy(run(name), seed=1) for _ in range(2))
    drawn = one.act(batch, deterministic=False)
    np.testing.assert_array_equal(drawn, same.act(batch, deterministic=False))
    assert not np.array_equal(drawn, one.act(batch, deterministic=False))
    one.generator.manual_seed(1)
    np.testing.assert_array_equal(drawn, one.act(batch, deterministic=False))
    other = load_policy(run(name), seed=2).act(batch, deterministic=False)
    assert not np.array_equal(drawn, other)
    distribution = one.module.distribution(torch.zeros(1, batch.shape[1]))
    if isinstance(one.action_space, spaces.Discrete):
        probability = distribution.logits.softmax(-1)[0].detach().numpy()
        share = np.bincount(drawn, minlength=2) / len(drawn)
        np.testing.assert_allclose(share, probability, atol=0.02)
    else:
        low, high = one.action_space.low, one.action_space.high
        u = distribution.sample(torch.Generator().manual_seed(3)).detach()
        assert u.shape == (1, *low.shape)
        assert (low <= drawn).all()
        assert (drawn <= high).all()
        assert drawn.std() > 0.1


@pytest.mark.parametrize("name", ["td3", "dqn", "blackjack"])
def test_a_policy_without_chance_draws_nothing(run, name):
    policy = load_policy(run(name))
    obs = policy.observation_space.sample()
    with pytest.raises(UserError, match="is deterministic: it has no actions to draw from"):
        policy.act(obs, deterministic=False)


BAD = {
    "short": ("cartpole", np.zeros(3), r"obs has shape \(3,\), and its space \(4,\)"),
    "too deep": ("cartpole", np.zeros((2, 2, 4)), r"obs has shape \(2, 2, 4\)"),
    "text": ("cartpole", "left", "no numbers"),
    "none": ("cartpole", None, "no numbers"),
    "ragged": ("cartpole", [[1.0], [1.0, 2.0]], "is no array"),
    "nan": ("cartpole", np.full(4, np.nan), "obs is not finite"),
    "dict": ("blackjack", {"a": 1}, "obs is no tuple of 3 parts"),
    "too few parts": ("blackjack", (12, 1), "obs is no tuple of 3 parts"),
    "no such card": ("blackjack", (12, 11, 0), r"obs.1 11 is not in Discrete\(11\)"),
    "half a card": ("blackjack", (12, 1.5, 0), r"obs.1 .*1\.5.* is of type float64"),
    "lengths": (
        "blackjack",
        (np.array([12, 13]), np.array([1]), np.array([0, 0])),
        "one part has more observations than another",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_observation_is_one_line(run, case):
    name, obs, message = BAD[case]
    with pytest.raises(UserError, match=message) as raised:
        load_policy(run(name)).act(obs)
    assert "\n" not in str(raised.value)


def test_it_plays_as_in_training(run):
    rows = {row["step"]: row for row in metrics(run("hopper")) if "eval/return" in row}
    seed = evaluation_seed(Streams.from_seed(0).evaluation, max(rows))
    result = api.evaluate_run(run("hopper"), episodes=2, seed=seed, checkpoint="last")
    assert result["return"] == rows[max(rows)]["eval/return"]


def test_a_word_that_is_no_checkpoint(run):
    with pytest.raises(UserError, match="checkpoint 'bset': there is last and best"):
        load_policy(run("cartpole"), checkpoint="bset")
