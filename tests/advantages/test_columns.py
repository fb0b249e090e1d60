"""How an estimator's needs are found before the first step."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny import bare_rollout

from rlrun.advantages.columns import (
    ACTOR_CRITIC_COLUMNS,
    POLICY_COLUMNS,
    MissingColumn,
    column,
    groups,
    prepare,
    require_whole_episodes,
)
from rlrun.advantages.temporal import baseline_value, gae, nstep, td
from rlrun.envs.problem import Problem
from rlrun.errors import UserError

CHOICE = gym.spaces.Discrete(2)
BOX = gym.spaces.Box(-1, 1, (3,), np.float32)


def prepared(estimator, *, offers=ACTOR_CRITIC_COLUMNS, group_size=None, action_space=CHOICE):
    """What an algorithm gets that asks for this estimator."""
    problem = Problem(
        env_id="Any-v0",
        obs_size=4,
        action_space=action_space,
        time_limit=10,
        group_size=group_size,
    )
    return prepare(
        estimator, algorithm="ppo", offers=offers, gamma=0.9, problem=problem, num_envs=4
    )


def needs(*names: str):
    """An estimator that adds these columns up."""

    def estimator(rollout, *, gamma):
        total = sum((column(rollout, name) for name in names), start=rollout.reward)
        return total, gamma * total

    return estimator


def compares(rollout, *, gamma):
    """An estimator that needs groups."""
    return groups(rollout) * rollout.reward, rollout.reward


def waits(rollout, *, gamma):
    """An estimator that needs whole episodes, and to see their ends."""
    require_whole_episodes(rollout)
    assert rollout.done.sum() == rollout.done.shape[1]
    return rollout.reward, rollout.reward


# ---------------------------------------------------------------------- what is found out


@pytest.mark.parametrize(
    "estimator", [td, partial(nstep, n=3), partial(gae, lam=0.9), baseline_value]
)
def test_td_errors_need_the_values_of_both_states(estimator):
    _, columns = prepared(estimator)
    assert columns == {"value", "next_value"}


@pytest.mark.parametrize("name", sorted(ACTOR_CRITIC_COLUMNS))
def test_each_column_is_asked_for_by_its_name(name):
    assert prepared(needs(name))[1] == {name}


def test_columns_are_found_one_after_the_other():
    names = {"q", "next_q", "policy_q", "policy_logp", "score_square"}
    assert prepared(needs(*names))[1] == names


def test_a_plain_sum_of_rewards_needs_nothing():
    assert prepared(needs(), offers=frozenset())[1] == frozenset()


def test_gamma_and_the_constants_are_in_the_function_of_the_rollout():
    estimate, _ = prepared(needs("value"))
    rollout = bare_rollout(torch.ones(3, 2), value=torch.full((3, 2), 4.0))
    advantage, target = estimate(rollout)
    assert torch.equal(advantage, torch.full((3, 2), 5.0))
    torch.testing.assert_close(target, torch.full((3, 2), 4.5))


def test_groups_and_whole_episodes_are_there_if_the_environment_has_them():
    for group_size in (1, 2):
        assert prepared(waits, group_size=group_size)[1] == frozenset()
    assert prepared(compares, group_size=2)[1] == frozenset()


# ---------------------------------------------------------------------- mistakes


def out_of_range(rollout, *, gamma):
    raise ValueError("lam must be in [0, 1], got 1.5")


@pytest.mark.parametrize(
    ("estimator", "settings", "message"),
    [
        (None, {}, "ppo needs an estimator: advantage=…, see rlrun --help"),
        (out_of_range, {}, "advantage: lam must be in [0, 1], got 1.5"),
        (
            compares,
            {},
            "advantage: this estimator compares episodes from one start: env.group_size=8, say; "
            "got env.group_size=null",
        ),
        (
            compares,
            {"group_size": 1},
            "advantage: this estimator compares episodes from one start: env.group_size=8, say; "
            "got env.group_size=1",
        ),
        (
            waits,
            {},
            "advantage: this estimator needs whole episodes: env.group_size=1, or more",
        ),
        (
            needs("policy_logp", "value"),
            {"offers": POLICY_COLUMNS},
            "advantage: it needs a critic V(s), which ppo has not; a2c, ppo and reinforce have one",
        ),
        (
            needs("next_q"),
            {"offers": POLICY_COLUMNS},
            "advantage: it needs a critic Q(s, a), which ppo has not; "
            "a2c, ppo and reinforce have one",
        ),
        (
            needs("q", "policy_q"),
            {"action_space": BOX},
            "advantage: the mean of Q over all actions needs discrete ones; "
            "advantage.baseline=value needs none",
        ),
    ],
)
def test_a_mistake_is_named_before_the_first_step(estimator, settings, message):
    with pytest.raises(UserError) as caught:
        prepared(estimator, **settings)
    assert str(caught.value) == message


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(MissingColumn, match=r"no column 'next_q', which needs a critic Q\(s, a\)"):
        column(bare_rollout(torch.zeros(2, 1)), "next_q")


def test_groups_are_those_of_the_columns():
    group = torch.tensor([0, 0, 1, 1]).expand(3, 4)
    assert groups(bare_rollout(torch.zeros(3, 4), group=group)).tolist() == [0, 0, 1, 1]
