"""Ranges beside the fields: what they let pass, and what they say."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Interval, Le, Lt, MultipleOf
from omegaconf import OmegaConf
from running import experiment, small

from rlrun.config.schema import convert
from rlrun.config.types import (
    Count,
    Fraction,
    NonNegative,
    NonNegativeOrInfinite,
    Positive,
    PositiveOrInfinite,
)
from rlrun.errors import UserError


@pytest.mark.parametrize(
    ("algo", "name"),
    [
        ("ppo", "optimizer.learning_rate"),
        ("ppo", "entropy_coefficient"),
        ("trpo", "trust_region.max_kl"),
        ("trpo", "critic.optimizer.learning_rate"),
        ("grpo", "optimizer.epsilon"),
        ("actor_critic_td", "critic_optimizer.learning_rate"),
    ],
)
def test_an_infinite_hyperparameter_is_refused_before_the_run(algo, name):
    with pytest.raises(UserError, match=f"^algo.{name} must be finite, got inf$"):
        experiment(small("cartpole", f"algo.{name}=inf", algo=algo))


@pytest.mark.parametrize(
    ("algo", "name"),
    [
        ("ppo", "clip"),
        ("ppo", "optimizer.max_grad_norm"),
        ("ppo", "normalization.clip"),
        ("ppo_kl", "optimizer.max_grad_norm"),
        ("a2c", "optimizer.max_grad_norm"),
        ("reinforce", "optimizer.max_grad_norm"),
        ("grpo", "clip"),
        ("gspo", "clip_high"),
        ("dapo", "clip_high"),
        ("rloo", "optimizer.max_grad_norm"),
    ],
)
def test_a_bound_may_be_infinite(algo, name):
    built = experiment(small("cartpole", f"algo.{name}=inf", algo=algo))
    assert OmegaConf.select(OmegaConf.create(built.config["algo"]), name) == math.inf


@dataclass(kw_only=True)
class Adam:
    learning_rate: Positive
    max_grad_norm: PositiveOrInfinite | None
    betas: tuple[Fraction, ...]


@dataclass(kw_only=True)
class Algorithm:
    epochs: Count
    optimizer: Adam


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Count, 0, "x must be at least 1, got 0"),
        (Count, -1e6, "x must be at least 1, got -1000000"),
        (Count, 1.5, "x: expected a whole number, got 1.5"),
        (Count, True, "x: expected a whole number, got true"),
        (Count, None, "x: expected a whole number, got null"),
        (Count | None, 0, "x must be at least 1, got 0"),
        (Count | None, "a", "x: expected a whole number or null, got 'a'"),
        (Count | Literal["auto"], 0, "x must be at least 1, got 0"),
        (Fraction, 1.5, "x must be in [0, 1], got 1.5"),
        (Fraction, -1, "x must be in [0, 1], got -1.0"),
        (Fraction, math.nan, "x must be in [0, 1], got nan"),
        (Fraction, math.inf, "x must be in [0, 1], got inf"),
        (Fraction | None, 2, "x must be in [0, 1], got 2.0"),
        (Positive, 0, "x must be positive, got 0.0"),
        (Positive, -math.inf, "x must be positive, got -inf"),
        (Positive, math.nan, "x must be positive, got nan"),
        (Positive, math.inf, "x must be finite, got inf"),
        (Positive | None, math.inf, "x must be finite, got inf"),
        (Positive, "a", "x: expected a number, got 'a'"),
        (PositiveOrInfinite, 0.0, "x must be positive, got 0.0"),
        (PositiveOrInfinite, math.nan, "x must be positive, got nan"),
        (NonNegative, -0.1, "x must be at least 0, got -0.1"),
        (NonNegative, math.nan, "x must be at least 0, got nan"),
        (NonNegative, math.inf, "x must be finite, got inf"),
        (NonNegativeOrInfinite, -1, "x must be at least 0, got -1.0"),
        (list[Count], [3, 0], "x[1] must be at least 1, got 0"),
        (list[Count] | None, [3, 0], "x[1] must be at least 1, got 0"),
        (dict[str, Positive], {"a": 0}, "x.a must be positive, got 0.0"),
        (Annotated[float, Interval(ge=0, lt=1)], 1, "x must be in [0, 1), got 1.0"),
        (Annotated[float, Interval(gt=0, le=1)], 0, "x must be in (0, 1], got 0.0"),
        (Annotated[int, Ge(2), Le(3)], 4, "x must be at most 3, got 4"),
        (Annotated[int, Lt(3)], 3, "x must be below 3, got 3"),
    ],
)
def test_a_setting_out_of_its_range_is_one_line(kind, value, message):
    with pytest.raises(UserError) as caught:
        convert(value, kind, "x")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Count, 1, 1),
        (Count, 1e6, 1_000_000),
        (Count | None, None, None),
        (Count | Literal["auto"], "auto", "auto"),
        (Fraction, 0, 0.0),
        (Fraction, 1, 1.0),
        (Positive, 1e-300, 1e-300),
        (Positive | None, None, None),
        (Positive | None, 2, 2.0),
        (PositiveOrInfinite, math.inf, math.inf),
        (NonNegative, 0, 0.0),
        (NonNegativeOrInfinite, math.inf, math.inf),
    ],
)
def test_a_setting_inside_its_range_is_converted(kind, value, expected):
    converted = convert(value, kind, "x")
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": -1}, "algo.optimizer.learning_rate must be positive, got -1.0"),
        ({"max_grad_norm": 0}, "algo.optimizer.max_grad_norm must be positive, got 0.0"),
        ({"betas": [0.9, 2]}, "algo.optimizer.betas[1] must be in [0, 1], got 2.0"),
    ],
)
def test_a_range_inside_nested_settings_is_named_with_its_whole_path(changes, message):
    optimizer = {"learning_rate": 3e-4, "max_grad_norm": None, "betas": [0.9, 0.999]}
    node = {"epochs": 1, "optimizer": optimizer}
    assert convert(node, Algorithm, "algo").optimizer.betas == (0.9, 0.999)
    with pytest.raises(UserError) as caught:
        convert({**node, "optimizer": {**optimizer, **changes}}, Algorithm, "algo")
    assert str(caught.value) == message


def test_a_range_that_nobody_checks_is_refused():
    with pytest.raises(TypeError, match="no range that rlrun checks"):
        convert(8, Annotated[int, MultipleOf(8)], "x")
