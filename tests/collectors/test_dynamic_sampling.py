"""Dynamic sampling: groups without a spread are dropped, others are played in their place."""

import copy

import pytest
import torch
from moods import Moods
from running import differences
from tiny import context_of, control, part_of, set_up

from rlrun.collectors.contract import Collector
from rlrun.collectors.dynamic_sampling import DynamicSamplingCollector
from rlrun.data.groups import return_spreads, take_episodes
from rlrun.data.rollout import Transitions
from rlrun.errors import UserError


class Watched:
    """A collector of groups that remembers what it has collected."""

    def __init__(self, groups: Collector):
        self.groups = groups
        self.seen: list[Transitions] = []

    def collect(self, actor) -> Transitions:
        played = self.groups.collect(actor)
        self.seen.append(take_episodes(played, torch.arange(played.mask.shape[1])))
        return played

    def state_dict(self):
        return self.groups.state_dict()

    def load_state_dict(self, state):
        self.groups.load_state_dict(state)


def moods(
    num_envs: int,
    *,
    matters=lambda seed: seed % 2 == 0,
    max_refills: int = 3,
    spread_tolerance: float = 0.0,
):
    """An actor among moods, the collector of groups of four, and what it is wrapped around."""
    env = control(lambda: Moods(matters), num_envs)
    spec = part_of(
        "collector",
        "dynamic_sampling",
        group_size=4,
        max_refills=max_refills,
        spread_tolerance=spread_tolerance,
    )
    algorithm, collector = set_up(env, "dapo", collector=spec, time_limit=3)
    assert isinstance(collector, DynamicSamplingCollector)
    watched = collector._groups = Watched(collector._groups)
    return algorithm.agent.actor, collector, watched


def group_returns(transitions: Transitions) -> dict[int, set[float]]:
    """The returns of each group, by its number."""
    returns = {}
    for i, group in enumerate(transitions.group[0].tolist()):
        own = sum(transitions.reward[t, i].item() for t in range(3) if transitions.mask[t, i])
        returns.setdefault(group, set()).add(own)
    return returns


def test_dropped_groups_are_replaced_and_counted():
    # Two groups a collection, one of them without a spread: two collections make two groups.
    actor, collector, watched = moods(8, max_refills=5)
    transitions = collector.collect(actor)
    played = [group_returns(played) for played in watched.seen]
    flat = sum(len(returns) == 1 for groups in played for returns in groups.values())
    assert transitions.mask.shape[1] == 8
    assert all(len(returns) > 1 for returns in group_returns(transitions).values())
    assert len(group_returns(transitions)) == 2
    assert (transitions.obs[..., 0] == 1).all()
    assert transitions.metrics["groups/dropped"] == flat >= 2
    assert transitions.metrics["groups/refills"] == len(watched.seen) - 1 >= 1
    for name, column in vars(transitions).items():
        assert not (isinstance(column, torch.Tensor) and column.is_inference()), name


def test_steps_and_moments_are_those_of_dropped_groups_too():
    actor, collector, watched = moods(8, max_refills=5)
    transitions = collector.collect(actor)
    obs = torch.cat([played.obs[played.mask] for played in watched.seen]).double()
    assert transitions.steps == transitions.obs_moments.count == len(obs) == 24 * len(watched.seen)
    assert transitions.steps > transitions.mask.sum()
    assert (obs[:, 0] == 0).any()
    torch.testing.assert_close(transitions.obs_moments.mean, obs.mean(0))
    torch.testing.assert_close(transitions.obs_moments.variance, obs.var(0, correction=0))


def test_what_is_kept_is_as_it_was_played():
    actor, collector, watched = moods(8, max_refills=5)
    transitions = collector.collect(actor)
    kept = []
    for played in watched.seen:
        spread = return_spreads(played.reward, played.mask, 4) > 0
        kept.append(take_episodes(played, spread.repeat_interleave(4).nonzero().squeeze(-1)))
    for name in ("obs", "next_obs", "action", "logp", "reward", "truncated", "mask"):
        expected = torch.cat([vars(part)[name] for part in kept], 1)[:, :8]
        assert torch.equal(vars(transitions)[name], expected), name


def test_more_than_it_needs_is_left():
    # Three of four groups have a spread: the second collection has more than the one missing.
    actor, collector, watched = moods(16, matters=lambda seed: seed % 4 > 0, max_refills=5)
    transitions = collector.collect(actor)
    assert len(watched.seen) == 2
    assert transitions.mask.shape == (3, 16)
    assert len(group_returns(transitions)) == 4


def test_after_the_last_refill_it_goes_on_with_fewer():
    actor, collector, watched = moods(16, matters=lambda seed: seed % 4 == 0, max_refills=1)
    transitions = collector.collect(actor)
    assert len(watched.seen) == 2
    assert 0 < transitions.mask.shape[1] <= 8
    assert transitions.metrics["groups/refills"] == 1
    assert transitions.metrics["groups/dropped"] >= 6


def test_without_refills_it_plays_once():
    actor, collector, watched = moods(8, max_refills=0)
    collector.collect(actor)
    assert len(watched.seen) == 1


def test_where_no_group_has_a_spread_there_is_nothing_but_the_steps():
    actor, collector, _ = moods(8, matters=lambda seed: False, max_refills=2)
    transitions = collector.collect(actor)
    assert transitions.mask.shape == (3, 0)
    assert transitions.metrics == {"groups/dropped": 6, "groups/refills": 2}
    assert transitions.steps == transitions.obs_moments.count == 3 * 8 * 3


def test_a_spread_within_the_tolerance_is_none():
    everywhere = {"matters": lambda seed: True, "max_refills": 0}
    for tolerance, kept in ((6.0, 0), (0.5, 8)):  # returns are 0 to 6
        actor, collector, _ = moods(8, spread_tolerance=tolerance, **everywhere)
        assert collector.collect(actor).mask.shape[1] == kept


# ---------------------------------------------------------------------- state


def test_a_state_is_that_of_the_next_start_and_a_snapshot():
    actor, collector, _ = moods(8)
    again, loaded, _ = moods(8)
    collector.collect(actor)
    state, drawn = collector.state_dict(), actor.generator.get_state()
    before = copy.deepcopy(state)
    expected = collector.collect(actor)
    assert differences(state, before) == []
    loaded.load_state_dict(state)
    again.generator.set_state(drawn)
    transitions = loaded.collect(again)
    assert torch.equal(transitions.obs, expected.obs)
    assert torch.equal(transitions.action, expected.action)


# ---------------------------------------------------------------------- what fits


def test_without_groups_there_is_nothing_to_drop():
    spec = part_of("collector", "dynamic_sampling", group_size=1)
    with pytest.raises(UserError, match=r"drops groups without a spread: collector\.group_size=8"):
        context_of(control(Moods, 8), spec)
    spec = part_of("collector", "dynamic_sampling", group_size=4)
    with pytest.raises(UserError, match=r"num_envs=6 is not a multiple of collector\.group_size=4"):
        context_of(control(Moods, 6), spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 0}, "group_size must be at least 1, got 0"),
        ({"max_refills": -1}, "max_refills must be at least 0, got -1"),
        ({"spread_tolerance": -0.1}, r"spread_tolerance must be at least 0, got -0\.1"),
        ({"spread_tolerance": float("nan")}, "spread_tolerance must be .*, got nan"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        part_of("collector", "dynamic_sampling", **changes)
