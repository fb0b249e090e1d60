import os
from pathlib import Path

import pytest
import torch
from gymnasium import spaces
from measure import peak_memory
from torch.utils._pytree import tree_flatten, tree_unflatten

from rlrun.data.replay.buffer import ReplayBuffer
from rlrun.data.replay.rows import Rows, take
from rlrun.envs.problem import Problem
from rlrun.errors import UserError
from rlrun.hardware.program import trace

CPU = torch.device("cpu")
GAMMA = 0.9


def problem(dtype: torch.dtype = torch.float32) -> Problem:
    return Problem(
        env_id="Tiny-v0",
        obs_size=2,
        action_space=spaces.Box(-1, 1, (3,)),
        action_units="raw",
        time_limit=None,
        obs_dtype=dtype,
    )


def buffer(capacity: int, num_envs: int = 2, **changes) -> ReplayBuffer:
    settings = {"num_envs": num_envs, "total_steps": 1000, "device": CPU, **changes}
    return ReplayBuffer(problem(), capacity=capacity, **settings)


def rows(numbers: list[int], done: list[int] = (), terminated: list[int] = ()) -> Rows:
    """Rows whose columns all say their numbers."""
    number = torch.tensor(numbers, dtype=torch.float32)
    ends = torch.tensor([n in terminated for n in numbers])
    return Rows(
        obs=torch.stack([number, -number], -1),
        action=number.unsqueeze(-1).expand(-1, 3),
        reward=number,
        next_obs=torch.stack([number + 100, number], -1),
        terminated=ends,
        done=ends | torch.tensor([n in done for n in numbers]),
    )


def test_the_newest_rows_replace_the_oldest():
    replay = buffer(6)
    for first in range(0, 16, 4):
        replay.write(rows(list(range(first, first + 4))))
    assert len(replay) == 6
    assert replay.count == 16
    assert sorted(replay.ring.rows.reward.tolist()) == [10, 11, 12, 13, 14, 15]
    assert replay.read(0).reward.tolist() == [10, 11, 12, 13, 14, 15]
    assert replay.read(14).reward.tolist() == [14, 15]
    torch.testing.assert_close(replay.read(0).next_obs[:, 0], replay.read(0).reward + 100)


def test_only_what_was_written_is_drawn_and_all_of_it_alike():
    replay = buffer(50)
    replay.write(rows(list(range(1, 11))))
    index = replay.uniform(200, 100, torch.Generator().manual_seed(0))
    assert index.shape == (200, 100)
    counts = replay.ring.rows.reward[index].long().flatten().bincount()
    assert counts[0] == 0
    # 20,000 draws of ten rows: 2,000 each, with a standard deviation of 42.
    assert (counts[1:] - 2000).abs().max() < 200


def by_hand(replay: ReplayBuffer, number: int, n: int, num_envs: int, done, terminated):
    """n-step return of row `number`, row after row."""
    total, factor, k = 0.0, 1.0, number
    for _ in range(n):
        total += factor * k
        factor *= GAMMA
        last = k
        if k in done or k in terminated or k + num_envs >= replay.count:
            break
        k += num_envs
    return total, last, 0.0 if last in terminated else factor


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("written", [9, 12, 21, 30])
def test_n_steps_equal_a_plain_loop(n, written):
    num_envs, done, terminated = 3, {4, 11, 18, 26}, {6, 13, 20}
    replay = buffer(12, num_envs)
    for first in range(0, written, 3):
        replay.write(rows([first, first + 1, first + 2], done, terminated))
    stored = list(range(max(0, written - 12), written))
    index = torch.tensor([number % 12 for number in stored])
    batch = take(replay.ring, index, gamma=GAMMA, steps=n, num_envs=num_envs)
    for i, number in enumerate(stored):
        reward, last, discount = by_hand(replay, number, n, num_envs, done, terminated)
        assert batch.obs[i, 0] == number
        assert batch.reward[i].item() == pytest.approx(reward)
        assert batch.next_obs[i, 0] == last + 100
        assert batch.discount[i].item() == pytest.approx(discount)


def test_a_cut_episode_is_bootstrapped_and_a_terminal_one_is_not():
    replay = buffer(4)
    replay.write(rows([1, 2, 3, 4], done=[1], terminated=[2]))
    batch = take(replay.ring, torch.arange(4), gamma=GAMMA, steps=1, num_envs=2)
    assert batch.discount.tolist() == pytest.approx([GAMMA, 0, GAMMA, GAMMA])


def test_small_numbers_stay_small():
    replay = ReplayBuffer(problem(torch.uint8), capacity=4, num_envs=1, total_steps=10, device=CPU)
    replay.write(rows([1, 2])._replace(obs=torch.tensor([[0.0, 255.0], [7.0, 1.0]])))
    assert replay.ring.rows.obs.dtype == torch.uint8
    batch = take(replay.ring, torch.tensor([0]), gamma=GAMMA, steps=1, num_envs=1)
    assert batch.obs.tolist() == [[0.0, 255.0]]
    # 2 + 2 bytes of observations, 3 x 4 of the action, 4 of the reward, 2 flags.
    assert replay.row_bytes == 22


def test_a_buffer_goes_on_with_the_rows_that_were_saved():
    replay = buffer(6)
    replay.write(rows(list(range(8))[:6]))
    replay.write(rows([6, 7]))
    again = buffer(6)
    again.load_state_dict(replay.state_dict())
    assert len(again) == 0
    again.refill([(2, replay.read(0))])
    for one, other in zip(replay.ring.rows, again.ring.rows, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(replay.ring.written, again.ring.written)
    draws = [one.uniform(2, 9, torch.Generator().manual_seed(1)) for one in (replay, again)]
    assert torch.equal(*draws)


def test_a_buffer_without_its_rows_draws_new_ones_only():
    again = buffer(6)
    again.load_state_dict({"count": 9, "stored": 6, "cut": []})
    again.write(rows([9, 10]))
    assert len(again) == 2
    index = again.uniform(1, 50, torch.Generator().manual_seed(1))
    assert set(again.ring.rows.reward[index].flatten().tolist()) == {9.0, 10.0}


def test_other_rows_are_refused():
    again = buffer(6)
    again.load_state_dict({"count": 2, "stored": 2})  # of an earlier commit
    with pytest.raises(ValueError, match="obs is"):
        again.refill([(0, rows([0, 1])._replace(obs=torch.zeros(2, 5)))])
    for state in ({"count": 2, "stored": 3}, {"count": 9, "stored": 7}, {"count": 1, "stored": -1}):
        with pytest.raises(ValueError, match="places"):
            buffer(6).load_state_dict(state)
    for number in (1, 8):
        with pytest.raises(ValueError, match="cut rows"):
            buffer(6).load_state_dict({"count": 8, "stored": 6, "cut": [number]})


def test_an_episode_that_cannot_go_on_is_cut():
    replay = buffer(6)
    replay.cut([1])  # of nothing
    replay.write(rows(list(range(8))[2:]))
    replay.write(rows([8, 9]))
    replay.cut([1])
    assert replay.read(0).done.tolist() == [False] * 5 + [True]
    batch = take(replay.ring, torch.tensor([1]), gamma=GAMMA, steps=2, num_envs=2)
    assert batch.discount.item() == pytest.approx(GAMMA)
    replay.write(rows(list(range(10, 16))))
    assert not replay.ring.rows.done.any()
    assert replay.state_dict() == {"count": 14, "stored": 6, "cut": []}


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="less than 4 environments"):
        buffer(3, num_envs=4)
    with pytest.raises(UserError, match=r"replay buffer of .* needs at least"):
        buffer(10**15, total_steps=10**15)
    with pytest.raises(UserError, match=r"replay buffer of .* steps \(algo.replay.capacity\): "):
        buffer(10**15)
    # A long ring of a short run takes what the run writes.
    assert buffer(10**6).most_bytes < 10**5


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux says what is taken")
def test_a_long_ring_takes_memory_as_it_is_written_to():
    def step(*leaves: torch.Tensor) -> list[torch.Tensor]:
        ring = tree_unflatten(leaves, tree)
        return list(take(ring, ring.written.new_ones(3), gamma=GAMMA, steps=3, num_envs=2))

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = peak_memory(os.getpid())
    replay = buffer(20_000_000)
    replay.write(rows(list(range(10))))
    leaves, tree = tree_flatten(replay.ring)
    program = trace(step, leaves)  # as a run does that is to be compiled
    assert program.inputs[0].shape == (20_000_000, 2)
    program.example()
    assert replay.row_bytes * replay.capacity > 600e6
    assert peak_memory(os.getpid()) - before < 200  # MiB: tracing imports what it needs


def test_capacity_is_a_multiple_of_the_environments():
    assert buffer(10, num_envs=4).capacity == 8


def test_discrete_actions_are_whole_numbers():
    choice = Problem(
        env_id="Tiny-v0",
        obs_size=2,
        action_space=spaces.Discrete(3),
        action_units="raw",
        time_limit=None,
    )
    replay = ReplayBuffer(choice, capacity=4, num_envs=1, total_steps=10, device=CPU)
    assert replay.ring.rows.action.dtype == torch.int64
    assert replay.ring.rows.action.shape == (4,)
