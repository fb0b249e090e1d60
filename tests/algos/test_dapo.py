"""DAPO: which groups it learns from, its two bounds, and its fine for overlong episodes."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import TIME_LIMIT, algorithm_of, bare_rollout, control, counting, learn, set_up

from rlrun.advantages.episodes import discounted_returns
from rlrun.algos.groups.dapo import overlong_penalties
from rlrun.data.groups import take_columns
from rlrun.data.rollout import Rollout
from rlrun.errors import UserError
from rlrun.learning.surrogates import clipped_surrogate

CHOICE = spaces.Discrete(3)


class Moods(gym.Env):
    """Three steps, in one of two moods that the seed decides: the action is paid, or ignored.

    Observes (mood, seed), the mood being 1 where actions matter.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = CHOICE

    def __init__(self, matters=lambda seed: seed % 2 == 0):
        self.matters = matters

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        seed = seed or 0  # none for the episode that nobody will play
        self.obs = np.array([self.matters(seed), seed % 1000], np.float64)
        self.elapsed = 0
        return self.obs.copy(), {}

    def step(self, action):
        self.elapsed += 1
        reward = float(action) if self.obs[0] else 1.0
        return self.obs.copy(), reward, False, self.elapsed == 3, {}


class Watched:
    """A collector that remembers what it has collected."""

    def __init__(self, collector):
        self.collector = collector
        self.seen: list[Rollout] = []

    def collect(self, actor) -> Rollout:
        rollout = self.collector.collect(actor)
        everything = torch.arange(rollout.mask.shape[1])
        self.seen.append(take_columns(rollout, everything))
        return rollout


def moods(num_envs: int, *, matters=lambda seed: seed % 2 == 0, group_size: int = 4, **changes):
    """DAPO among moods, without normalised observations, and what collects for it."""
    env = control(lambda: Moods(matters), num_envs)
    settings = {"normalize_observation": False, "episodes_per_minibatch": num_envs, **changes}
    algorithm, collector = set_up(env, "dapo", group_size=group_size, **settings)
    return algorithm, Watched(collector)


def group_returns(rollout: Rollout) -> dict[int, set[float]]:
    """The raw returns of each group, by its number."""
    returns = {}
    for i, group in enumerate(rollout.group[0].tolist()):
        own = sum(rollout.raw_reward[t, i].item() for t in range(3) if rollout.mask[t, i])
        returns.setdefault(group, set()).add(own)
    return returns


# ---------------------------------------------------------------------- dynamic sampling


def test_it_learns_from_groups_with_a_spread_alone():
    algorithm, collector = moods(16, epochs=1, max_refills=5)
    fit, batches = algorithm.policy_learner.fit, []

    def watched(batch, learning_rate):
        batches.append(batch)
        return fit(batch, learning_rate)

    algorithm.policy_learner.fit = watched
    learn(algorithm, collector, iterations=6)
    played = [group for rollout in collector.seen for group in group_returns(rollout).values()]
    assert sum(len(returns) == 1 for returns in played) >= 12  # there was something to drop
    assert len(batches) == 6
    for batch in batches:
        assert (batch.obs[..., 0] == 1).all()
        # In each episode, if it is not by chance at its group's mean.
        assert (batch.advantage.abs().sum((0, 1)) > 0).float().mean() > 0.5
        by_start = {}
        for start, advantage in zip(
            batch.obs[0, 0, :, 1].tolist(), batch.advantage[0, 0].tolist(), strict=True
        ):
            by_start.setdefault(start, []).append(advantage)
        for advantages in by_start.values():
            assert len(advantages) % 4 == 0
            assert max(advantages) > 0 > min(advantages)


def test_dropped_groups_are_replaced_and_counted():
    # Two groups a collection, one of them without a spread: two collections make two groups.
    algorithm, collector = moods(8, max_refills=5)
    rollout = algorithm.collect(collector)
    collections = len(collector.seen)
    played = [group_returns(rollout) for rollout in collector.seen]
    flat = sum(len(returns) == 1 for groups in played for returns in groups.values())
    assert rollout.mask.shape[1] == 8
    assert all(len(returns) > 1 for returns in group_returns(rollout).values())
    assert len(group_returns(rollout)) == 2
    metrics = algorithm.update(rollout, progress=0.0)
    assert metrics["groups/dropped"] == flat >= 2
    assert metrics["groups/refills"] == collections - 1 >= 1
    assert collector.collector.steps == 3 * 8 * collections


def test_more_than_it_needs_is_left():
    # Three of four groups have a spread: the second collection has more than the one missing.
    algorithm, collector = moods(16, matters=lambda seed: seed % 4 > 0, max_refills=5)
    rollout = algorithm.collect(collector)
    assert len(collector.seen) == 2
    assert rollout.mask.shape == (3, 16)
    assert sorted(group_returns(rollout)) == sorted(set(rollout.group[0].tolist()))
    assert len(group_returns(rollout)) == 4


def test_after_the_last_refill_it_goes_on_with_fewer():
    algorithm, collector = moods(16, matters=lambda seed: seed % 4 == 0, max_refills=1, epochs=1)
    rollout = algorithm.collect(collector)
    assert len(collector.seen) == 2
    assert 0 < rollout.mask.shape[1] <= 8
    metrics = algorithm.update(rollout, progress=0.0)
    assert metrics["updates"] == 1
    assert metrics["groups/refills"] == 1
    assert metrics["groups/dropped"] >= 6


def test_without_refills_it_plays_once():
    algorithm, collector = moods(8, max_refills=0)
    algorithm.collect(collector)
    assert len(collector.seen) == 1


def test_where_no_group_has_a_spread_nothing_is_learned():
    algorithm, collector = moods(8, matters=lambda seed: False, max_refills=2)
    before = algorithm.policy_learner.parameters.vector.clone()
    (metrics,) = learn(algorithm, collector, iterations=1)
    assert torch.equal(algorithm.policy_learner.parameters.vector, before)
    assert metrics == {"groups/dropped": 6, "groups/refills": 2, "updates": 0}
    assert collector.collector.steps == 3 * 8 * 3


def test_a_run_that_never_learns_says_so_once(capsys):
    algorithm, collector = moods(4, matters=lambda seed: False, max_refills=0)
    learn(algorithm, collector, iterations=9)
    assert capsys.readouterr().err == ""
    learn(algorithm, collector, iterations=15)
    assert capsys.readouterr().err == (
        "warning: dapo has learned nothing in 10 iterations in a row: the returns of each group "
        "are equal, the task being solved or out of reach\n"
    )


def test_an_update_now_and_then_is_enough(capsys):
    algorithm, collector = moods(4, matters=lambda seed: True, max_refills=0)
    rollout = algorithm.collect(collector)
    nothing = take_columns(rollout, torch.arange(0))
    for _ in range(3):
        for _ in range(9):
            assert algorithm.update(nothing, progress=0.0)["updates"] == 0
        assert algorithm.update(rollout, progress=0.0)["updates"] > 0
    assert capsys.readouterr().err == ""


def test_a_spread_within_the_tolerance_is_none():
    everywhere = {"matters": lambda seed: True, "max_refills": 0}
    algorithm, collector = moods(8, spread_tolerance=6.0, **everywhere)  # returns are 0 to 6
    assert algorithm.collect(collector).mask.shape[1] == 0
    algorithm, collector = moods(8, spread_tolerance=0.5, **everywhere)
    assert algorithm.collect(collector).mask.shape[1] == 8


# ---------------------------------------------------------------------- clip-higher


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.27, 2.0, 2.54, 2.0),  # further up than down
        (1.29, 2.0, 2.56, 0.0),
        (0.81, -2.0, -1.62, -2.0),
        (0.79, -2.0, -1.6, 0.0),
        (0.5, 2.0, 1.0, 2.0),  # what would lower the objective is never clipped
        (1.5, -2.0, -3.0, -2.0),
    ],
)
def test_the_band_reaches_further_up_than_down(ratio, advantage, value, slope):
    settings = algorithm_of("dapo")
    assert (settings.clip_low, settings.clip_high) == (0.2, 0.28)
    ratio = torch.tensor(ratio, requires_grad=True)
    objective = clipped_surrogate(
        ratio.log(), torch.tensor(advantage), settings.clip_low, settings.clip_high
    )
    objective.backward()
    assert objective.item() == pytest.approx(value)
    assert ratio.grad.item() == pytest.approx(slope)


# ---------------------------------------------------------------------- overlong episodes


def test_the_fine_grows_towards_the_time_limit():
    lengths = torch.tensor([1, 60, 80, 85, 90, 99, 100])
    fines = overlong_penalties(lengths, longest=100, buffer=20, factor=2.0)
    torch.testing.assert_close(fines, torch.tensor([0.0, 0.0, 0.0, -0.5, -1.0, -1.9, -2.0]))


def test_without_a_discount_the_fine_is_taken_from_the_last_step():
    env, _ = counting(4, CHOICE)  # of 1 to 4 steps
    # 2 for each step above 2.
    changes = {"overlong_buffer": 13, "overlong_penalty": 26.0, "gamma": 1.0}
    algorithm, collector = set_up(env, "dapo", group_size=2, **changes)
    rollout = collector.collect(algorithm.agent)
    assert set(rollout.mask.sum(0).tolist()) == {1, 2, 3, 4}
    difference = rollout.reward - algorithm.shaped(rollout).reward
    for i, length in enumerate(rollout.mask.sum(0).tolist()):
        expected = torch.zeros(len(difference))
        expected[length - 1] = 2.0 * max(length - 2, 0)
        torch.testing.assert_close(difference[:, i], expected)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.99, 1.0])
def test_the_fine_is_in_every_return_in_full(gamma):
    settings = {"overlong_buffer": 200, "gamma": gamma}
    algorithm, _ = set_up(control(Moods, 4), "dapo", group_size=2, time_limit=500, **settings)
    lengths = torch.tensor([500, 400, 301, 250])
    step = torch.arange(500)[:, None]
    rollout = bare_rollout(
        torch.zeros(500, 4),
        mask=step < lengths,
        truncated=step == lengths - 1,
        whole_episodes=True,
    )
    returns = discounted_returns(algorithm.shaped(rollout), gamma)
    fined = torch.tensor([-1.0, -0.5, -0.005, 0.0])
    torch.testing.assert_close(returns, fined * rollout.mask, atol=1e-5, rtol=0.0)


def test_by_default_there_is_no_fine():
    env, _ = counting(4, CHOICE)
    algorithm, collector = set_up(env, "dapo", group_size=2)
    rollout = collector.collect(algorithm.agent)
    assert algorithm.shaped(rollout) is rollout


def test_the_fine_reaches_the_advantage():
    class Dawdle(gym.Env):
        """Ends when the action says so, after 15 steps at the latest; pays nothing."""

        observation_space = spaces.Box(0.0, 1.0, (1,), np.float64)
        action_space = spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.elapsed = 0
            return np.ones(1), {}

        def step(self, action):
            self.elapsed += 1
            return np.ones(1), float(self.elapsed == 1), action == 1, self.elapsed == 15, {}

    changes = {"overlong_buffer": 15, "epochs": 1, "spread_tolerance": 0.0, "max_refills": 0}
    env = control(Dawdle, 8)
    algorithm, collector = set_up(env, "dapo", group_size=8, **changes)
    # All returns are 1: without a spread of raw returns there is nothing to learn, fined or not.
    assert algorithm.collect(collector).mask.shape[1] == 0
    rollout = collector.collect(algorithm.agent)
    advantage, _ = algorithm.estimate(algorithm.shaped(rollout))
    lengths = rollout.mask.sum(0)
    assert advantage[0, lengths.argmin()] > 0 > advantage[0, lengths.argmax()]


# ---------------------------------------------------------------------- hyperparameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_refills": -1}, "max_refills must be at least 0, got -1"),
        ({"spread_tolerance": -0.5}, "spread_tolerance must be at least 0"),
        ({"overlong_buffer": 0}, "overlong_buffer must be at least 1, got 0"),
        ({"overlong_penalty": -1.0}, "overlong_penalty must be at least 0"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        algorithm_of("dapo", **changes)


def test_a_buffer_longer_than_an_episode_is_refused():
    message = r"^algo\.overlong_buffer=16 is longer than an episode, which may last 15 steps$"
    assert TIME_LIMIT == 15
    with pytest.raises(UserError, match=message):
        set_up(control(Moods, 4), "dapo", group_size=2, overlong_buffer=16)


def test_it_knows_no_reference_policy():
    with pytest.raises(TypeError, match="reference"):
        algorithm_of("dapo", reference="outputs/a-run")
