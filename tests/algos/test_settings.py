"""Values out of range are refused in a sentence that names the setting as the command line does."""

import pytest
from tiny import Corridor, algorithm_of, control, learn, part_of, set_up, small_model

from rlrun.errors import UserError

FRACTION = r"must be in \[0, 1\]"
COUNT, POSITIVE, NON_NEGATIVE = "must be at least 1", "must be positive", "must be at least 0"

GROUPS = ["rloo", "grpo", "gspo", "dapo", "cispo"]
SEGMENTS = ["a2c", "actor_critic_q", "actor_critic_td", "ppo", "ppo_kl", "trpo"]
EVERY = [*SEGMENTS, "reinforce", *GROUPS]
ADAM = ["ppo", "ppo_kl", "reinforce", *GROUPS]
# The setting, a value, what is said of it, and which algorithms have it.
CASES = [
    ("gamma", 1.5, FRACTION, EVERY),
    ("gamma", -0.1, FRACTION, EVERY),
    ("num_envs", 0, COUNT, EVERY),
    ("horizon", 0, COUNT, SEGMENTS),
    ("epochs", 0, COUNT, ["ppo", "ppo_kl", *GROUPS]),
    ("minibatch_size", 0, COUNT, ["ppo", "ppo_kl"]),
    ("episodes_per_minibatch", 0, COUNT, GROUPS),
    ("entropy_coefficient", -0.1, NON_NEGATIVE, ["a2c", *ADAM]),
    ("normalization.clip", -10.0, POSITIVE, EVERY),
    ("optimizer.learning_rate", 0.0, POSITIVE, ["a2c", *ADAM]),
    ("optimizer.epsilon", 0.0, POSITIVE, ["a2c", *ADAM]),
    ("optimizer.max_grad_norm", 0.0, POSITIVE, ["a2c", *ADAM]),
    ("optimizer.alpha", 1.1, r"must be in \[0, 1\)", ["a2c"]),
    ("clip", 0.0, POSITIVE, ["ppo", "rloo", "grpo"]),
    ("clip_low", 0.0, POSITIVE, ["dapo", "gspo", "cispo"]),
    ("clip_high", 0.0, POSITIVE, ["dapo", "gspo"]),
    ("value_clip", -0.2, POSITIVE, ["ppo"]),
    ("stop_kl", 0.0, POSITIVE, ["ppo"]),
    ("kl.coefficient", -1.0, NON_NEGATIVE, ["ppo_kl", "rloo", "grpo", "gspo"]),
    ("kl.target", 0.0, POSITIVE, ["ppo_kl", "rloo", "grpo", "gspo"]),
    ("kl.horizon", 0, COUNT, ["rloo", "grpo", "gspo", "cispo"]),
    ("kl.refresh_every", 0, COUNT, ["rloo", "grpo", "gspo", "cispo"]),
    ("overlong_buffer", 0, COUNT, ["dapo"]),
    ("overlong_penalty", -1.0, NON_NEGATIVE, ["dapo"]),
    ("trust_region.max_kl", 0.0, POSITIVE, ["trpo"]),
    ("trust_region.damping", -0.1, NON_NEGATIVE, ["trpo"]),
    ("trust_region.cg_iterations", 0, COUNT, ["trpo"]),
    ("trust_region.cg_tolerance", -1.0, NON_NEGATIVE, ["trpo"]),
    ("trust_region.line_search_steps", 0, COUNT, ["trpo"]),
    ("trust_region.line_search_shrink", 0.0, r"must be in \(0, 1\]", ["trpo"]),
    ("trust_region.line_search_shrink", 1.5, r"must be in \(0, 1\]", ["trpo"]),
    ("critic.epochs", 0, COUNT, ["trpo", "reinforce"]),
    ("critic.minibatch_size", 0, COUNT, ["trpo", "reinforce"]),
    ("critic.optimizer.learning_rate", 0.0, POSITIVE, ["trpo", "reinforce"]),
    ("critic.optimizer.epsilon", 0.0, POSITIVE, ["trpo", "reinforce"]),
    ("critic.optimizer.max_grad_norm", 0.0, POSITIVE, ["trpo", "reinforce"]),
    ("optimizer.learning_rate", 0.0, POSITIVE, ["actor_critic_q", "actor_critic_td"]),
    ("critic_optimizer.learning_rate", -1.0, POSITIVE, ["actor_critic_q", "actor_critic_td"]),
    ("optimizer.epsilon", 0.0, POSITIVE, ["actor_critic_q", "actor_critic_td"]),
]


@pytest.mark.parametrize(
    ("algo", "setting", "value", "problem"),
    [
        pytest.param(algo, setting, value, problem, id=f"{algo}-{setting}={value}")
        for setting, value, problem, algorithms in CASES
        for algo in algorithms
    ],
)
def test_a_value_out_of_range_is_refused(algo, setting, value, problem):
    with pytest.raises(UserError, match=rf"^algo\.{setting} {problem}, got {value}$"):
        algorithm_of(algo, **{setting: value})


@pytest.mark.parametrize("algo", ["ppo", "ppo_kl"])
def test_an_advantage_that_is_alone_cannot_be_normalised(algo):
    message = r"^algo\.minibatch_size must be at least 2 to normalize_advantage, got 1$"
    with pytest.raises(UserError, match=message):
        set_up(control(Corridor, 2), algo, minibatch_size=1)


def test_no_factor_leads_away_from_a_coefficient_of_zero():
    with pytest.raises(UserError, match=r"^algo\.kl\.coefficient must be positive to be adapted"):
        algorithm_of("ppo_kl", **{"kl.coefficient": 0.0})


@pytest.mark.parametrize("algo", ["ppo", "ppo_kl"])
def test_minibatches_that_leave_out_rows_are_refused(algo):
    message = r"^algo: minibatch_size must divide num_envs x horizon = 15, got 4$"
    with pytest.raises(UserError, match=message):
        set_up(control(Corridor, 3), algo, horizon=5, minibatch_size=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_sizes": [64, 0]}, r"model\.hidden_sizes\[1\] must be at least 1, got 0"),
        ({"log_std": float("nan")}, "model\\.log_std must be finite, got nan"),
        ({"activation": "sigmoid"}, "model.activation"),
    ],
)
def test_a_model_out_of_range_is_refused(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        small_model(**changes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("episodes", {"group_size": 0}, "group_size must be at least 1, got 0"),
        ("segments", {"horizon": 0}, "horizon must be at least 1, got 0"),
        ("dynamic_sampling", {"max_refills": -1}, "max_refills must be at least 0, got -1"),
        ("dynamic_sampling", {"spread_tolerance": -0.5}, "spread_tolerance must be at least 0"),
    ],
)
def test_a_collector_out_of_range_is_refused(name, changes, message):
    with pytest.raises(UserError, match=rf"^collector\.{message}"):
        part_of("collector", name, **changes)


@pytest.mark.parametrize(
    ("changes", "hidden_sizes"),
    [
        ({"gamma": 0.0}, [8]),
        ({"gamma": 1.0}, [8]),
        ({}, []),
        ({"minibatch_size": 1, "normalize_advantage": False}, [8]),
        (
            {"num_envs": 1, "horizon": 1, "minibatch_size": 1, "normalize_advantage": False},
            [8],
        ),
    ],
)
def test_the_ends_of_the_ranges_train(changes, hidden_sizes):
    changes = dict(changes)
    env = control(Corridor, changes.pop("num_envs", 4))
    (metrics,) = learn(*set_up(env, model=small_model(hidden_sizes=hidden_sizes), **changes), 1)
    assert all(value.isfinite() for value in metrics.values())
