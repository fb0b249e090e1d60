"""Range checks: what they let pass, and what they say."""

import math

import pytest
from running import experiment, small

from rlrun.config.types import at_least, between, positive, positive_or_infinite
from rlrun.errors import UserError


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (positive, 0.0, "x must be positive, got 0.0"),
        (positive, math.nan, "x must be positive, got nan"),
        (positive, math.inf, "x must be finite, got inf"),
        (positive_or_infinite, 0.0, "x must be positive, got 0.0"),
        (positive_or_infinite, math.nan, "x must be positive, got nan"),
        (lambda x: at_least(1, x=x), 0, "x must be at least 1, got 0"),
        (lambda x: at_least(1, x=x), -math.inf, "x must be at least 1, got -inf"),
        (lambda x: at_least(1, x=x), math.nan, "x must be at least 1, got nan"),
        (lambda x: at_least(1, x=x), math.inf, "x must be finite, got inf"),
        (lambda x: between(0, 1, x=x), 1.5, r"x must be in \[0, 1\], got 1.5"),
    ],
)
def test_a_value_out_of_range_is_named(check, value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check(x=value)


def test_the_ends_of_the_ranges_pass():
    positive(x=1e-300)
    positive_or_infinite(x=math.inf)
    at_least(1, x=1)
    between(0, 1, x=0, y=1)


@pytest.mark.parametrize(
    ("algo", "name"),
    [
        ("ppo", "learning_rate"),
        ("ppo", "entropy_coefficient"),
        ("trpo", "max_kl"),
        ("grpo", "adam_epsilon"),
        ("actor_critic_td", "critic_learning_rate"),
    ],
)
def test_an_infinite_hyperparameter_is_refused_before_the_run(algo, name):
    with pytest.raises(UserError, match=f"^algo.{name} must be finite, got inf$"):
        experiment(small("cartpole", f"algo.{name}=inf", algo=algo))


@pytest.mark.parametrize(
    ("algo", "name"),
    [
        ("ppo", "clip"),
        ("ppo", "max_grad_norm"),
        ("ppo", "normalizer_clip"),
        ("ppo_kl", "max_grad_norm"),
        ("a2c", "max_grad_norm"),
        ("reinforce", "max_grad_norm"),
        ("grpo", "clip"),
        ("gspo", "clip_high"),
        ("dapo", "clip_high"),
        ("rloo", "max_grad_norm"),
    ],
)
def test_a_bound_may_be_infinite(algo, name):
    built = experiment(small("cartpole", f"algo.{name}=inf", algo=algo))
    assert built.config["algo"][name] == math.inf
