"""What holds of every estimator that is shipped: globbed, so that a new one is covered."""

from typing import Any

import pytest
import torch
from gymnasium import spaces
from hydra.utils import instantiate
from random_rollouts import assert_equal_where_it_counts, segment, whole_episodes, with_columns
from tiny import context_of, counting, yaml_of
from torch import Tensor

from rlrun.advantages.columns import COLUMNS, Estimator
from rlrun.advantages.trial import prepare
from rlrun.collectors.episodes import Episodes
from rlrun.collectors.segments import Segments
from rlrun.config import targets
from rlrun.config.files import conf_directory
from rlrun.config.load import ESTIMATOR_ARGUMENTS, ESTIMATORS
from rlrun.data.rollout import Rollout
from rlrun.errors import UserError

GAMMA = 0.9
CHOICE = spaces.Discrete(2)
NAMES = sorted(path.stem for path in (conf_directory() / "advantage").glob("*.yaml"))

V, Q = {"value", "next_value"}, {"q", "next_q"}
# The columns that each asks for, and the episodes that it needs.
NEEDS: dict[str, tuple[set[str], str]] = {
    "td": (V, "any"),
    "nstep": (V, "any"),
    "gae": (V, "any"),
    "baseline_value": (V, "any"),
    "q_value": (Q, "any"),
    "advantage_q": (Q | {"value"}, "any"),
    "vtrace": (V | {"policy_logp"}, "any"),
    "total_return": (set(), "whole"),
    "reward_to_go": (set(), "whole"),
    "baseline_constant": (set(), "whole"),
    "baseline_optimal": ({"score_square"}, "whole"),
    "reinforce_pp": (set(), "whole"),
    "rloo": (set(), "groups"),
    "grpo": (set(), "groups"),
    "dr_grpo": (set(), "groups"),
    "time_group": (set(), "groups"),
}


def estimator(name: str, **constants: Any) -> Estimator:
    """The estimator of a YAML file."""
    return instantiate({**yaml_of("advantage", name), **constants})


VARIANTS = {name: estimator(name) for name in NAMES} | {
    "advantage_q, policy_mean": estimator("advantage_q", baseline="policy_mean"),
    "reinforce_pp, group": estimator("reinforce_pp", baseline="group"),
    "grpo, population": estimator("grpo", ddof=0),
}
every_estimator = pytest.mark.parametrize("estimate", VARIANTS.values(), ids=VARIANTS)


def grouped(padding: int = 3) -> Rollout:
    """Groups of 3 and 2 episodes, with every column."""
    return whole_episodes([4, 7, 1, 5, 2], seed=0, sizes=[3, 2], padding=padding)


@every_estimator
def test_whole_episodes_in_groups_are_enough_for_all(estimate):
    rollout = grouped()
    for column in estimate(rollout, gamma=GAMMA):
        assert column.shape == rollout.reward.shape
        assert column.dtype == rollout.reward.dtype
        assert column.isfinite().all()
    advantage, target = (x[rollout.mask] for x in estimate(rollout, gamma=GAMMA))
    assert advantage.std() > 0.1
    assert target.std() > 0.1


@every_estimator
def test_padding_changes_nothing_that_counts(estimate):
    long = grouped(padding=9)
    steps = int(long.mask.sum(0).max())
    short = with_columns(long, lambda column: column[:steps].clone())
    # Other numbers behind the episodes' ends, but for rewards and ends: there are none.
    others = [column for name, column in long.columns.items() if name != "policy_logp"]
    for column in (*others, long.logp):
        column[~long.mask] = 50.0
    for ours, theirs in zip(estimate(long, gamma=GAMMA), estimate(short, gamma=GAMMA), strict=True):
        assert_equal_where_it_counts(short, ours[:steps], theirs)
        assert ours.isfinite().all()


@every_estimator
def test_the_order_of_the_episodes_is_no_matter(estimate):
    rollout, order = grouped(), torch.tensor([3, 0, 4, 2, 1])
    moved = with_columns(rollout, lambda column: column[:, order])
    for ours, theirs in zip(
        estimate(moved, gamma=GAMMA), estimate(rollout, gamma=GAMMA), strict=True
    ):
        torch.testing.assert_close(ours, theirs[:, order])


@every_estimator
def test_single_precision_stays_single(estimate):
    def single(column: Tensor) -> Tensor:
        return column.float() if column.is_floating_point() else column

    rollout = grouped()
    expected = estimate(rollout, gamma=GAMMA)
    for ours, theirs in zip(
        estimate(with_columns(rollout, single), gamma=GAMMA), expected, strict=True
    ):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs.float(), atol=1e-4, rtol=1e-4)


@every_estimator
def test_the_rollout_stays_as_it_is(estimate):
    rollout = grouped()
    estimate(rollout, gamma=GAMMA)
    for name, column in vars(grouped()).items():
        if isinstance(column, Tensor):
            assert torch.equal(vars(rollout)[name], column)
    for name, column in grouped().columns.items():
        assert torch.equal(rollout.columns[name], column)


# ---------------------------------------------------------------------- before the first step


def prepared(
    name: str,
    *,
    group_size: int | None,
    num_envs: int = 4,
    critics: bool = True,
    action_space: spaces.Space = CHOICE,
    **constants: Any,
):
    """What an algorithm learns of an estimator at its setup, with segments or with groups."""
    collector = Segments(horizon=8) if group_size is None else Episodes(group_size=group_size)
    context = context_of(counting(num_envs, action_space)[0], collector)
    return prepare(
        estimator(name, **constants),
        critics=critics,
        gamma=GAMMA,
        problem=context.problem,
        shape=context.shape,
        device=torch.device("cpu"),
    )


def test_all_are_in_the_table():
    assert sorted(NEEDS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_its_columns_are_found(name):
    assert prepared(name, group_size=2)[1] == NEEDS[name][0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("group_size", [None, 1])
def test_episodes_of_another_kind_are_refused(name, group_size):
    columns, episodes = NEEDS[name]
    if episodes == "any" or (episodes == "whole" and group_size == 1):
        estimate, found = prepared(name, group_size=group_size)
        assert found == columns
        rollout = segment(6) if group_size is None else whole_episodes([3, 6])
        assert all(column.isfinite().all() for column in estimate(rollout))
    else:
        message = "needs whole episodes" if episodes == "whole" else "episodes from one start"
        with pytest.raises(UserError, match=f"^advantage: this estimator .*{message}"):
            prepared(name, group_size=group_size)


@pytest.mark.parametrize("name", NAMES)
def test_critics_that_the_algorithm_has_not_are_named(name):
    columns, _ = NEEDS[name]
    if all(COLUMNS[column].network == "policy" for column in columns):
        assert prepared(name, group_size=2, critics=False)[1] == columns
    else:
        with pytest.raises(UserError, match=r"^advantage: it needs a critic .* algorithm has not"):
            prepared(name, group_size=2, critics=False)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_returns_passes_the_check_whatever_the_number_of_environments(name):
    # [T, N] with T different from N, so that the two cannot be exchanged unseen.
    for num_envs in (2, 4, 6):
        prepared(name, group_size=2, num_envs=num_envs)


def test_variants_need_what_they_are_made_of():
    assert prepared("advantage_q", group_size=None, baseline="policy_mean")[1] == Q | {"policy_q"}
    with pytest.raises(UserError, match="episodes from one start"):
        prepared("reinforce_pp", group_size=1, baseline="group")


@pytest.mark.parametrize(
    ("name", "constants", "message"),
    [
        ("gae", {"lam": 1.5}, "must be in [0, 1], got 1.5"),
        ("gae", {"lam": -0.1}, "must be in [0, 1], got -0.1"),
        ("nstep", {"n": 0}, "must be at least 1, got 0"),
        ("grpo", {"epsilon": -1.0}, "must be at least 0, got -1.0"),
        ("reinforce_pp", {"epsilon": -1.0}, "must be at least 0, got -1.0"),
        ("vtrace", {"rho_bar": 0.0}, "must be positive, got 0.0"),
    ],
)
def test_a_constant_out_of_range_is_the_users_mistake(name, constants, message):
    node = {**yaml_of("advantage", name), **constants}
    (key,) = constants
    with pytest.raises(UserError) as caught:
        targets.build(node, "advantage", ESTIMATORS, later=ESTIMATOR_ARGUMENTS)
    assert str(caught.value) == f"advantage.{key} {message}"


def test_a_rule_between_constants_is_found_before_the_first_step():
    with pytest.raises(UserError) as caught:
        prepared("vtrace", group_size=2, c_bar=2.0)
    assert str(caught.value) == "advantage: c_bar must be in [0, 1.0], got 2.0"


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("grpo", {"ddof": 2}),
        ("reinforce_pp", {"baseline": "batch"}),
        ("advantage_q", {"baseline": "mean"}),
    ],
)
def test_a_word_that_is_none_of_the_choices_is_refused(name, constants):
    node = {**yaml_of("advantage", name), **constants}
    (key,) = constants
    with pytest.raises(UserError, match=rf"^advantage\.{key}: "):
        targets.build(node, "advantage", ESTIMATORS, later=ESTIMATOR_ARGUMENTS)


def test_a_box_of_actions_has_no_mean_of_q_over_all_of_them():
    box = {"group_size": None, "action_space": spaces.Box(-1, 1, (3,))}
    prepared("advantage_q", **box)
    with pytest.raises(UserError, match="needs discrete ones"):
        prepared("advantage_q", baseline="policy_mean", **box)


@pytest.mark.parametrize("name", ["baseline_constant", "baseline_optimal"])
def test_one_episode_has_no_others_to_compare_with(name):
    with pytest.raises(UserError, match=r"algo\.num_envs must be at least 2"):
        prepared(name, group_size=1, num_envs=1)
