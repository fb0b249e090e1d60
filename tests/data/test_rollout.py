"""What passes between the parts, and what it looks like before there is any."""

import pytest
import torch
from tiny import bare_rollout

from rlrun.data.rollout import RolloutShape
from rlrun.errors import UserError


def test_an_episode_is_done_either_way():
    terminated = torch.tensor([[True, False], [False, False]])
    truncated = torch.tensor([[False, True], [False, False]])
    rollout = bare_rollout(torch.zeros(2, 2), terminated=terminated, truncated=truncated)
    assert rollout.done.tolist() == [[True, True], [False, False]]


def test_minibatches_leave_no_row_of_a_segment_out():
    segments = RolloutShape(num_envs=4, longest=6, whole_episodes=False, group_size=1)
    assert segments.rows == 24
    assert [segments.minibatches(size) for size in (1, 8, 24)] == [24, 3, 1]
    for size in (5, 48):
        with pytest.raises(UserError, match=rf"must divide num_envs x horizon = 24, got {size}"):
            segments.minibatches(size)


def test_minibatches_of_episodes_are_as_many_as_there_usually_are():
    # How many rows an iteration has is not known before: the last ones may be left out.
    episodes = RolloutShape(num_envs=4, longest=6, whole_episodes=True, group_size=2)
    assert [episodes.minibatches(size) for size in (5, 24, 48)] == [4, 1, 1]
