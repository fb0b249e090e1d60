import copy

import numpy as np
import pytest
import torch

from rlrun.data.normalize import ObservationNormalizer, RewardNormalizer, RunningMoments

GAMMA = 0.9


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def observation_normalizer(*, enabled: bool = True) -> ObservationNormalizer:
    return ObservationNormalizer(3, clip=10.0, enabled=enabled)


def reward_normalizer(*, enabled: bool = True, clip: float = 10.0) -> RewardNormalizer:
    return RewardNormalizer(2, gamma=GAMMA, clip=clip, enabled=enabled)


# ---------------------------------------------------------------------- moments


def test_batches_give_the_moments_of_all_rows_at_once():
    # Columns of very different places and sizes, in batches of different lengths.
    rows = randn(1_000, 3).double() * torch.tensor([1.0, 1e-3, 1e3]) + torch.tensor([0, 50, -1e4])
    moments, at_once = RunningMoments(3), RunningMoments(3)
    for batch in rows.split([1, 2, 500, 497]):
        moments.merge(RunningMoments.of(batch))
    at_once.merge(RunningMoments.of(rows))
    assert moments.count == at_once.count == 1_000
    for ours in (moments, at_once):
        np.testing.assert_allclose(ours.mean, rows.numpy().mean(0), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(ours.variance, rows.numpy().var(0), rtol=1e-8)


def test_an_empty_batch_has_the_moments_of_nothing_seen(recwarn):
    nothing, moments = RunningMoments.of(torch.empty(0, 3)), RunningMoments.of(randn(5, 3))
    assert not recwarn
    assert (nothing.count, nothing.mean.tolist()) == (0, [0.0] * 3)
    assert nothing.variance.tolist() == [1.0] * 3
    mean = moments.mean
    moments.merge(nothing)
    assert torch.equal(moments.mean, mean)


def test_a_small_spread_around_a_large_mean_survives():
    # E[x²] − E[x]² in float32 would give 0 or less than that.
    rows = torch.tensor([[1e4 - 0.01], [1e4 + 0.01]], dtype=torch.float64)
    moments = RunningMoments(1)
    for _ in range(1_000):
        moments.merge(RunningMoments.of(rows))
    assert moments.variance.item() == pytest.approx(1e-4, rel=1e-6)


def test_merging_leaves_the_other_moments_and_a_saved_state_as_they_are():
    moments, other = RunningMoments.of(randn(20, 3)), RunningMoments.of(randn(5, 3, seed=1))
    state, others = moments.state_dict(), other.state_dict()
    before = copy.deepcopy((state, others))
    moments.merge(other)
    moments.merge(other)
    for now, then in zip((state, others, other.state_dict()), (*before, before[1]), strict=True):
        assert now["count"] == then["count"]
        assert torch.equal(now["mean"], then["mean"])
        assert torch.equal(now["variance"], then["variance"])


def test_moments_that_begin_with_others_go_on_by_themselves():
    # The first merge into empty moments must not take over the other's tensors.
    other = RunningMoments.of(randn(5, 3))
    moments = RunningMoments(3)
    moments.merge(other)
    moments.merge(RunningMoments.of(100 * randn(5, 3, seed=1)))
    torch.testing.assert_close(other.mean, randn(5, 3).double().mean(0))


# ---------------------------------------------------------------------- observations


def test_observations_are_as_they_are_before_the_first_rollout():
    obs = randn(4, 2, 3)
    torch.testing.assert_close(observation_normalizer()(obs), obs)


def test_observations_come_to_mean_zero_and_unit_scale():
    normalizer = observation_normalizer()
    obs = 5 * randn(600, 3) + 100
    raw = obs.clone()
    normalizer.learn(RunningMoments.of(obs))
    scaled = normalizer(obs)
    assert torch.equal(obs, raw)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_observations_are_clipped():
    normalizer = observation_normalizer()
    normalizer.learn(RunningMoments.of(randn(200, 3)))
    far = torch.tensor([[1e6, -1e6, 0.0]])
    assert normalizer(far)[0, :2].tolist() == [10.0, -10.0]


def test_a_constant_observation_is_zero():
    normalizer = observation_normalizer()
    normalizer.learn(RunningMoments.of(torch.full((20, 3), 7.0)))
    assert normalizer(torch.full((1, 3), 7.0)).tolist() == [[0.0, 0.0, 0.0]]


def test_statistics_stay_fixed_while_they_are_used():
    normalizer = observation_normalizer()
    normalizer.learn(RunningMoments.of(randn(20, 3)))
    obs = randn(4, 3, seed=1)
    first = normalizer(obs)
    for _ in range(5):
        normalizer(100 * obs)
    assert torch.equal(normalizer(obs), first)


def test_a_disabled_observation_normalizer_is_the_identity_for_good():
    normalizer = observation_normalizer(enabled=False)
    normalizer.learn(RunningMoments.of(randn(20, 3)))
    far = torch.tensor([[1e6, -3.0, 0.5]])
    assert torch.equal(normalizer(far), far)
    assert normalizer.moments.count == 0


def test_a_loaded_observation_normalizer_goes_on_alike():
    normalizer, loaded = observation_normalizer(), observation_normalizer()
    normalizer.learn(RunningMoments.of(randn(20, 3)))
    loaded.load_state_dict(copy.deepcopy(normalizer.state_dict()))
    obs = randn(12, 3, seed=1)
    for _ in range(2):
        assert torch.equal(loaded(obs), normalizer(obs))
        loaded.learn(RunningMoments.of(obs))
        normalizer.learn(RunningMoments.of(obs))


def test_an_observation_normalizers_state_is_a_snapshot():
    normalizer = observation_normalizer()
    normalizer.learn(RunningMoments.of(randn(20, 3)))
    state = normalizer.state_dict()
    before = copy.deepcopy(state)
    normalizer.learn(RunningMoments.of(100 * randn(20, 3, seed=1)))
    loaded, expected = observation_normalizer(), observation_normalizer()
    loaded.load_state_dict(state)
    expected.load_state_dict(before)
    assert torch.equal(loaded(randn(4, 3)), expected(randn(4, 3)))
    assert not torch.equal(loaded(randn(4, 3)), normalizer(randn(4, 3)))


# ---------------------------------------------------------------------- rewards


def random_rewards(steps: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards and episode ends of rows that all count, each [T, 2]."""
    ends = torch.rand(steps, 2, generator=torch.Generator().manual_seed(seed)) < 0.2
    return 3 * randn(steps, 2, seed=seed + 100) + 1, ends, all_of(ends)


def all_of(ends: torch.Tensor) -> torch.Tensor:
    """The mask of rows that all count."""
    return torch.ones_like(ends)


def test_rewards_equal_a_plain_loop_over_several_rollouts():
    normalizer = reward_normalizer()
    running, seen = np.zeros(2), []
    for rollout, steps in enumerate((1, 5, 8, 13)):
        reward, done, mask = random_rewards(steps, seed=rollout)
        for t in range(steps):
            running = reward[t].double().numpy() + GAMMA * running  # R ← r + γR
            seen += running.tolist()
            running = np.where(done[t].numpy(), 0.0, running)  # an episode ended: begin again
        expected = np.clip(reward.numpy() / np.sqrt(np.var(seen) + 1e-8), -10, 10)
        np.testing.assert_allclose(normalizer(reward, done, mask), expected, rtol=1e-5)
    assert normalizer.moments.count == len(seen)


def test_constant_rewards_by_hand():
    # Reward 1, γ = 0.9, an end after the second step: R = 1, 1.9, 1 in both environments.
    # Mean 1.3, variance (0.09 + 0.36 + 0.09)/3 = 0.18: rewards become 1/√0.18 = 2.357
    done = torch.tensor([[False] * 2, [True] * 2, [False] * 2])
    scaled = reward_normalizer()(torch.ones(3, 2), done, all_of(done))
    assert scaled.flatten().tolist() == pytest.approx([0.18**-0.5] * 6)


def test_rows_behind_an_episodes_end_do_not_count():
    # Reward 1, γ = 0.9: R = 1, 1.9, 2.71 in the first episode and 1 in the second, whose column
    # is zero after that. Mean 1.6525, mean square (1 + 3.61 + 7.3441 + 1)/4 = 3.238525,
    # variance 3.238525 − 2.73075625 = 0.50776875
    reward = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    done = torch.tensor([[False, True], [False, False], [True, False]])
    mask = torch.tensor([[True, True], [True, False], [True, False]])
    whole_episodes = RewardNormalizer(None, gamma=GAMMA, clip=10.0, enabled=True)
    for normalizer in (reward_normalizer(), whole_episodes):
        scaled = normalizer(reward, done, mask)
        assert normalizer.moments.count == 4
        assert scaled[mask].tolist() == pytest.approx([0.50776875**-0.5] * 4)
        assert not scaled[~mask].any()


def test_whole_episodes_may_differ_in_number():
    # R = 1, 1.9 and 1, 1.9, 1, 1.9: mean 1.45, variance 0.45² = 0.2025
    normalizer = RewardNormalizer(None, gamma=GAMMA, clip=10.0, enabled=True)
    for episodes in (1, 0, 2):
        done = torch.tensor([[False], [True]]).expand(2, episodes)
        scaled = normalizer(torch.ones(2, episodes), done, all_of(done))
        assert scaled.flatten().tolist() == pytest.approx([1 / 0.45] * 2 * episodes)
    loaded = RewardNormalizer(None, gamma=GAMMA, clip=10.0, enabled=True)
    loaded.load_state_dict(copy.deepcopy(normalizer.state_dict()))
    rewards = random_rewards(5, 0)
    assert torch.equal(loaded(*rewards), normalizer(*rewards))


def test_rewards_keep_their_sign_and_are_clipped():
    reward = torch.cat([1 + randn(500, 2).abs(), torch.full((1, 2), 1e6)])
    done = torch.ones_like(reward, dtype=torch.bool)
    scaled = reward_normalizer(clip=2.0)(reward, done, all_of(done))
    assert (scaled > 0).all()  # no shift: a reward for staying alive stays one
    assert scaled.max() == 2.0


def test_raw_rewards_are_left_as_they_are():
    reward, done, mask = random_rewards(9, seed=0)
    raw = reward.clone()
    reward_normalizer()(reward, done, mask)
    assert torch.equal(reward, raw)


def test_a_disabled_reward_normalizer_is_the_identity_for_good():
    normalizer = reward_normalizer(enabled=False)
    reward, done = 1e6 * torch.ones(4, 2), torch.zeros(4, 2, dtype=torch.bool)
    for _ in range(2):
        assert torch.equal(normalizer(reward, done, all_of(done)), reward)
    assert normalizer.moments.count == 0


def test_a_loaded_reward_normalizer_goes_on_alike():
    # In mid-episode: the running returns are part of the state.
    normalizer, loaded = reward_normalizer(), reward_normalizer()
    done = torch.zeros(4, 2, dtype=torch.bool)
    normalizer(torch.ones(4, 2), done, all_of(done))
    assert normalizer.carried.all()
    loaded.load_state_dict(copy.deepcopy(normalizer.state_dict()))
    for seed in range(3):
        rewards = random_rewards(7, seed)
        assert torch.equal(loaded(*rewards), normalizer(*rewards))


def test_a_reward_normalizers_state_is_a_snapshot():
    normalizer, loaded = reward_normalizer(), reward_normalizer()
    normalizer(*random_rewards(7, 0))
    state = normalizer.state_dict()
    before = copy.deepcopy(state)
    for seed in range(1, 3):
        normalizer(*random_rewards(7, seed))
    assert torch.equal(state["carried"], before["carried"])
    assert state["moments"]["count"] == before["moments"]["count"] == 14
    # Neither does who was loaded write into what it was loaded from.
    loaded.load_state_dict(state)
    loaded(*random_rewards(7, 1))
    assert torch.equal(state["carried"], before["carried"])
    assert torch.equal(state["moments"]["variance"], before["moments"]["variance"])
