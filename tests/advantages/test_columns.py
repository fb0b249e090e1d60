"""What an estimator may ask a rollout for."""

import pytest
import torch
from tiny import bare_rollout

from rlrun.advantages.columns import (
    COLUMNS,
    MissingColumn,
    column,
    groups,
    require_whole_episodes,
)


def test_a_column_that_is_there_is_returned():
    value = torch.rand(2, 3)
    assert column(bare_rollout(torch.zeros(2, 3), value=value), "value") is value


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_that_is_not_there_is_named_with_its_source(name):
    with pytest.raises(MissingColumn) as caught:
        column(bare_rollout(torch.zeros(2, 1)), name)
    said = f"the rollout has no column {name!r}, which needs {COLUMNS[name].source}"
    assert str(caught.value) == said
    assert caught.value.name == name


def test_sources_are_told_apart():
    sources = {name: declared.source for name, declared in COLUMNS.items()}
    assert sources["next_value"] == "a critic V(s)"
    assert sources["next_q"] == sources["policy_q"] == "a critic Q(s, a)"
    assert sources["policy_logp"] == "a policy"


def test_groups_are_those_of_the_columns():
    group = torch.tensor([0, 0, 1, 1]).expand(3, 4)
    assert groups(bare_rollout(torch.zeros(3, 4), group=group)).tolist() == [0, 0, 1, 1]


def test_where_there_are_no_groups_the_collector_is_named():
    rollout = bare_rollout(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"collector=groups; got collector=segments$"):
        groups(rollout)
    alone = bare_rollout(torch.zeros(3, 4), whole_episodes=True)
    with pytest.raises(ValueError, match=r"group_size=8, say; got collector\.group_size=1$"):
        groups(alone)


def test_episodes_that_are_no_whole_ones_are_refused():
    require_whole_episodes(bare_rollout(torch.zeros(3, 4), whole_episodes=True))
    with pytest.raises(ValueError, match="needs whole episodes: collector=episodes, or groups"):
        require_whole_episodes(bare_rollout(torch.zeros(3, 4)))
