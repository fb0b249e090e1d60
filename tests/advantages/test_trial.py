"""How an estimator's needs, and its mistakes, are found before the first step."""

from collections import namedtuple
from dataclasses import replace
from functools import partial

import pytest
import torch
from gymnasium import spaces
from tiny import bare_rollout, context_of, counting, problem_of, set_up

from rlrun.advantages.columns import COLUMNS, column, groups, require_whole_episodes
from rlrun.advantages.temporal import baseline_value, gae, nstep, td
from rlrun.advantages.trial import check_result, made_up_rollout, prepare
from rlrun.collectors.episodes import Episodes
from rlrun.collectors.segments import Segments
from rlrun.errors import UserError

CPU = torch.device("cpu")
CHOICE = spaces.Discrete(2)
BOX = spaces.Box(-1, 1, (3,))


def prepared(estimator, *, critics=True, group_size=None, action_space=CHOICE, num_envs=4):
    """What an algorithm gets that asks for this estimator."""
    collector = Segments(horizon=8) if group_size is None else Episodes(group_size=group_size)
    context = context_of(counting(num_envs, action_space)[0], collector)
    return prepare(
        estimator,
        critics=critics,
        gamma=0.9,
        problem=context.problem,
        shape=context.shape,
        device=CPU,
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


@pytest.mark.parametrize("name", COLUMNS)
def test_each_column_is_asked_for_by_its_name(name):
    assert prepared(needs(name))[1] == {name}


def test_columns_are_found_one_after_the_other():
    names = {"q", "next_q", "policy_q", "policy_logp", "score_square"}
    assert prepared(needs(*names))[1] == names


def test_a_plain_sum_of_rewards_needs_nothing():
    assert prepared(needs(), critics=False)[1] == set()


def test_gamma_and_the_constants_are_in_the_function_of_the_rollout():
    estimate, _ = prepared(needs("value"))
    rollout = bare_rollout(torch.ones(3, 2), value=torch.full((3, 2), 4.0))
    advantage, target = estimate(rollout)
    assert torch.equal(advantage, torch.full((3, 2), 5.0))
    torch.testing.assert_close(target, torch.full((3, 2), 4.5))


def test_groups_and_whole_episodes_are_there_if_the_collector_plays_them():
    for group_size in (1, 2):
        assert prepared(waits, group_size=group_size)[1] == set()
    assert prepared(compares, group_size=2)[1] == set()


@pytest.mark.parametrize("num_envs", [1, 2, 3, 8])
def test_it_is_tried_on_a_rollout_whose_sides_differ(num_envs):
    def estimator(rollout, *, gamma):
        steps, envs = rollout.reward.shape
        assert envs == num_envs != steps > 1
        assert rollout.reward.std() > 0  # a spread to divide by
        return rollout.reward, rollout.reward

    prepared(estimator, num_envs=num_envs)


@pytest.mark.parametrize("action_space", [CHOICE, BOX])
def test_it_is_tried_on_actions_of_the_environments_kind(action_space):
    env, _ = counting(4, action_space)
    algorithm, collector = set_up(env, "ppo")
    actor = algorithm.agent.actor
    real = algorithm.agent.rollout(collector.collect(actor))
    for made_up in (
        algorithm.agent.made_up_rollout(),
        made_up_rollout(problem_of(env), Segments(horizon=8).shape(problem_of(env), 4), CPU),
    ):
        for name, ours in vars(made_up).items():
            theirs = vars(real)[name]
            if isinstance(theirs, torch.Tensor):
                assert (ours.dtype, ours.shape[1:]) == (theirs.dtype, theirs.shape[1:]), name


# ---------------------------------------------------------------------- mistakes


def out_of_range(rollout, *, gamma):
    raise ValueError("lam must be in [0, 1], got 1.5")


@pytest.mark.parametrize(
    ("estimator", "settings", "message"),
    [
        (None, {}, "this algorithm needs an estimator: advantage=…, see rlrun --help"),
        (out_of_range, {}, "advantage: lam must be in [0, 1], got 1.5"),
        (
            compares,
            {},
            "advantage: this estimator compares episodes from one start: collector=groups; "
            "got collector=segments",
        ),
        (
            compares,
            {"group_size": 1},
            "advantage: this estimator compares episodes from one start: "
            "collector.group_size=8, say; got collector.group_size=1",
        ),
        (
            waits,
            {},
            "advantage: this estimator needs whole episodes: collector=episodes, or groups",
        ),
        (
            needs("policy_logp", "value"),
            {"critics": False},
            "advantage: it needs a critic V(s), which this algorithm has not: "
            "take an algorithm with critics",
        ),
        (
            needs("next_q"),
            {"critics": False},
            "advantage: it needs a critic Q(s, a), which this algorithm has not: "
            "take an algorithm with critics",
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


# ---------------------------------------------------------------------- what it returns


def returns(result):
    """An estimator that returns what a function makes of the rewards [T, N]."""
    return lambda rollout, *, gamma: result(rollout.reward)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda r: r, "it returns a value of type Tensor, not (advantage, target)"),
        (lambda r: None, "it returns a value of type NoneType, not (advantage, target)"),
        (lambda r: (r,), "it returns 1 values, not (advantage, target)"),
        (lambda r: (r, r, r), "it returns 3 values, not (advantage, target)"),
        (lambda r: (r, None), "its target is a value of type NoneType, not a tensor [T, N]"),
        (lambda r: (r.numpy(), r), "its advantage is a value of type ndarray, not a tensor [T, N]"),
        (lambda r: (0.0, r), "its advantage is a value of type float, not a tensor [T, N]"),
        # What an update would broadcast.
        (
            lambda r: (r[..., None], r),
            "its advantage has the shape [2, 4, 1] where T = 2 and N = 4, not [T, N]",
        ),
        (
            lambda r: (r, r.T),
            "its target has the shape [4, 2] where T = 2 and N = 4, not [T, N]",
        ),
        (
            lambda r: (r[0], r),
            "its advantage has the shape [4] where T = 2 and N = 4, not [T, N]",
        ),
        (
            lambda r: (r.mean(), r),
            "its advantage has the shape [] where T = 2 and N = 4, not [T, N]",
        ),
        # What it would convert, or fail on later.
        (lambda r: (r.double(), r), "its advantage is of torch.float64, not float32"),
        (lambda r: (r, (r > 0)), "its target is of torch.bool, not float32"),
        (lambda r: (r.long(), r), "its advantage is of torch.int64, not float32"),
        (lambda r: (r.to("meta"), r), "its advantage is on meta, not on cpu"),
        # What it would spread.
        (lambda r: (r / 0, r), "its advantage is not finite where all rewards are"),
        (lambda r: (r, r * torch.nan), "its target is not finite where all rewards are"),
    ],
)
def test_what_no_update_can_use_is_refused(result, message):
    with pytest.raises(UserError) as caught:
        prepared(returns(result))
    assert str(caught.value) == f"advantage: {message}"


def test_one_number_that_is_not_finite_is_enough():
    def last_is_lost(reward):
        lost = reward.clone()
        lost[-1, -1] = torch.inf
        return lost, reward

    with pytest.raises(UserError, match="its advantage is not finite"):
        prepared(returns(last_is_lost))


def test_a_tuple_with_names_is_a_tuple():
    named = namedtuple("Estimate", "advantage target")
    assert prepared(returns(lambda reward: named(reward, reward)))[1] == set()


def test_it_is_checked_after_its_columns_are_known():
    def estimator(rollout, *, gamma):
        return column(rollout, "value")[0], rollout.reward

    with pytest.raises(UserError, match=r"its advantage has the shape \[4\]"):
        prepared(estimator)


def test_rows_that_do_not_count_may_be_anything():
    context = context_of(counting(4, CHOICE)[0], Episodes(group_size=2))
    rollout = made_up_rollout(context.problem, context.shape, CPU)
    mask = rollout.mask.clone()
    mask[-1, 0] = False
    lost = torch.where(mask, rollout.reward, torch.nan)
    check_result((lost, rollout.reward), replace(rollout, mask=mask))
    with pytest.raises(UserError, match="not finite"):
        check_result((lost, rollout.reward), rollout)
